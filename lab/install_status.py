"""How far a target's install is: ``status/<name>.json``, and what is kept of its token, written by the boot handler."""

from __future__ import annotations

from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.machine import MachineSource, VmDefinition
from contracts.orders import OrderKind
from contracts.report import InstallState, MachineStatus
from contracts.tokens import RECORDS, Record, record_name
from lab import orders
from lab.lab import Lab
from pipeline.errors import ConflictError


def read_status(lab: Lab, definition: VmDefinition) -> MachineStatus:
    """Return how far the target's install is: a fresh status if nothing is known, or only of an older machine.

    :raises ConflictError: if the file is broken.
    """
    path = status_path(lab, definition.name)
    try:
        status = document.loads(MachineStatus, path.read_bytes())
    except FileNotFoundError:
        return MachineStatus(name=definition.name, uuid=definition.uuid)
    except (DocumentError, PermissionError) as error:
        faults = error.faults if isinstance(error, DocumentError) else [error.strerror or ""]
        raise ConflictError(
            f"the install status of {definition.name} is broken",
            details="\n".join([str(path), *faults]),
            resolution="remove that file: then the machine counts as not installed, and is installed at its next start",
        ) from None
    if status.uuid != definition.uuid:
        return MachineStatus(name=definition.name, uuid=definition.uuid)
    return status


def is_installed_next(lab: Lab, definition: VmDefinition) -> bool:
    """Tell whether the target is installed when it boots from the network next: it was not yet, or it is ordered.

    Never one from a cloud image.

    :raises ConflictError: if its status is broken.
    """
    if definition.source is MachineSource.IMAGE:
        return False
    status = read_status(lab, definition)
    if (due := orders.find_due(lab, definition, status)) is not None:
        return due.kind is OrderKind.REINSTALL
    state = status.resume if status.state is InstallState.RESCUE else status.state
    return state is not InstallState.INSTALLED


def status_path(lab: Lab, name: str) -> Path:
    """Return where the boot handler keeps the target's install state."""
    return lab.home.status / f"{name}.json"


def token_path(lab: Lab, definition: VmDefinition) -> Path:
    """Return where the boot handler keeps what it knows of the token of the target's last boot."""
    return lab.home.status / RECORDS / record_name(definition.uuid)


def read_token(path: Path) -> Record | None:
    """Return what is kept of a token at *path*; None if that is nothing, or cannot be understood."""
    try:
        return document.loads(Record, path.read_bytes())
    except (OSError, DocumentError):
        return None
