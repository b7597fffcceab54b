"""Orders of the person who runs the lab to the boot handler: ``$PVMLAB_HOME/vms/<name>.order``.

The host writes the file, the boot handler only reads it: it notes the number of the order in the machine's status, in
the same write as the state that the order leads to, and an order whose number stands there is not carried out again.
So an order is carried out once, however often it is read and whoever is restarted.
"""

from __future__ import annotations

import dataclasses
import enum
import uuid

ORDER_SUFFIX = ".order"  # after a machine's name
MAX_ORDER_BYTES = 4096


class OrderKind(enum.StrEnum):
    """What a machine is to do at its next network boot."""

    REINSTALL = "reinstall"  # install once more: its disk is wiped
    RESCUE = "rescue"  # boot the installer's shell, once; the disk is not touched


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """One order.

    :ivar id: a random UUID. :ivar uuid: of the machine: an order to an older machine of that name is void.
    :ivar time: when it was given, seconds since the epoch.
    """

    schema: int = 1
    id: str
    kind: OrderKind
    uuid: str
    time: float

    def __post_init__(self) -> None:
        if self.schema != 1:
            raise ValueError(f"schema {self.schema} is unknown, this version reads 1")
        for value in (self.id, self.uuid):
            if str(uuid.UUID(value)) != value:
                raise ValueError(f"{value!r} is not a UUID in its canonical form")

    def is_due(self, machine: str, done: str) -> bool:
        """Tell whether it is still to be carried out. :param machine: its UUID. :param done: the last order's id."""
        return self.uuid == machine and self.id != done
