"""Orders to the boot handler: one more install, or a rescue shell, at a machine's next network boot."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.machine import VmDefinition
from contracts.orders import ORDER_SUFFIX, Order, OrderKind
from contracts.report import InstallState, MachineStatus
from lab.lab import Lab
from pipeline import commit


def order_path(lab: Lab, name: str) -> Path:
    """Return where the last order for the machine *name* is."""
    return lab.home.vms / f"{name}{ORDER_SUFFIX}"


def give(lab: Lab, definition: VmDefinition, kind: OrderKind) -> Order:
    """Order *kind*, in the place of an order that was not carried out yet."""
    order = Order(id=str(uuid.uuid4()), kind=kind, uuid=definition.uuid, time=time.time())
    commit.publish_text(order_path(lab, definition.name), document.dumps(order))
    return order


def withdraw(lab: Lab, name: str) -> None:
    """Take back what was ordered for the machine *name*; one that was carried out stays so."""
    order_path(lab, name).unlink(missing_ok=True)


def find_due(lab: Lab, definition: VmDefinition, status: MachineStatus) -> Order | None:
    """Return the order that is still to be carried out, or None. One that cannot be read is none: it never will be."""
    try:
        order = document.loads(Order, order_path(lab, definition.name).read_bytes())
    except (FileNotFoundError, DocumentError):
        return None
    return order if order.is_due(definition.uuid, status.order) else None


def boots_network_first(due: Order | None, status: MachineStatus) -> bool:
    """Tell whether a machine has to ask the network although there is a system on its disk: its disk would win.

    So it is while an order is due, while the install that one led to has not ended, and during a rescue.
    """
    unfinished = status.installs > 0 and status.state is not InstallState.INSTALLED
    return due is not None or unfinished
