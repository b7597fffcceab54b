"""Changing a machine that is there: its processors, its memory, its labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from contracts.machine import Label, VmDefinition
from distros.registry import require_release
from lab.install_status import is_installed_next
from lab.lab import Lab
from lab.native import require_memory
from lab.store import DefinitionStore
from pipeline.errors import NotFoundError, UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What is to become other. None: it stays as it is. :ivar labels: by key; None removes a label."""

    cpus: int | None = None
    memory_mib: int | None = None
    labels: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    @property
    def is_of_hardware(self) -> bool:
        """Whether a machine that runs has it only after its next start."""
        return self.cpus is not None or self.memory_mib is not None


def apply(lab: Lab, name: str, change: Change) -> VmDefinition:
    """Change the definition of the machine *name*, whether it runs or not; return the new one.

    :raises NotFoundError: if there is no such machine, or no label that is to be removed.
    :raises UsageError: if it cannot be like that.
    """
    store = DefinitionStore(lab)
    store.load(name)  # before a lock file is made, perhaps in a lab that is not there
    with lab.changing_definitions():
        before = store.load(name)
        try:
            after = dataclasses.replace(
                before,
                cpus=before.cpus if change.cpus is None else change.cpus,
                memory_mib=before.memory_mib if change.memory_mib is None else change.memory_mib,
                labels=_labels(before, change.labels),
            )
        except ValueError as error:
            raise UsageError(f"{name} cannot be changed like this: {error}") from None
        if change.memory_mib is not None and after.managed and is_installed_next(lab, after):
            require_memory(after, lab.cache, require_release(after.distro, after.arch))
        store.rewrite(after)
    return after


def _labels(definition: VmDefinition, changes: Mapping[str, str | None]) -> tuple[Label, ...]:
    """Return the labels after *changes*, by key. :raises NotFoundError: if one is to be removed that is not there."""
    labels: dict[str, str | None] = {label.key: label.value for label in definition.labels}
    if missing := [key for key, value in changes.items() if value is None and key not in labels]:
        raise NotFoundError(
            f"{definition.name} has no label {missing[0]!r}",
            resolution=f"it has {', '.join(sorted(labels)) or 'none'}",
        )
    merged = sorted({**labels, **changes}.items())
    return tuple(Label(key=key, value=value) for key, value in merged if value is not None)
