"""The snapshots of machines on the disk, and finishing what a killed command began.

``disks/snapshots/<machine>/<snapshot>/`` holds what a snapshot has besides the layers of its disks
(:mod:`lab.layers`)::

    record.json   written last: with it the snapshot exists, without it the folder is nobody's
    vars.fd       the machine's UEFI variables (and network.vars.fd, those of a Secure Boot machine's network boot)
    tpm.tar       its TPM's state
    status.json   its install state
    token.json    what is kept of the token of its last boot, to know it by; it is never put back
    memory.qcow2  the memory of a machine that was running

``_restoring`` beside them names the snapshot that is being restored: whoever finds it carries that to its end, since
each step may be done again. Nothing here looks at definitions, so that a start can call it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import shutil
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.names import validate_machine_name
from lab import layers
from lab.disks import create_overlay
from pipeline import commit
from pipeline.errors import ConflictError, NotFoundError, UsageError
from pipeline.workspace import Home

_RECORD = "record.json"
_RESTORING = "_restoring"  # an underscore is in no snapshot's name
_WAITING = "_waiting"
MEMORY = "memory.qcow2"


class SnapshotKind(enum.StrEnum):
    """What is in a snapshot."""

    OFF = "off"  # of a machine that was off
    MEMORY = "memory"  # of a running machine, memory and all
    DISK = "disk"  # of a running machine, its disks only: as after a power cut


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenDisk:
    """A disk in a snapshot. :ivar disk: its name in ``disks/``. :ivar layer: its name in ``disks/layers/``."""

    disk: str
    layer: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptFile:
    """A file in a snapshot, or the tar of a folder.

    :ivar name: in the snapshot's folder. :ivar place: where it goes, from the lab's home.
    """

    name: str
    place: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot of a machine.

    :ivar uuid: of the machine: one that was made again under the old name has none of these.
    :ivar time: seconds since the epoch. :ivar quiet: its guest agent had the file systems in order meanwhile.
    :ivar missing: what was not there and is removed by a restore, from the lab's home.
    :ivar hardware: what the machine's memory fits to, see ``lab.snapshots``; nothing without memory.
    """

    schema: int = 1
    name: str
    machine: str
    uuid: str
    time: float
    kind: SnapshotKind
    quiet: bool = False
    disks: tuple[FrozenDisk, ...]
    files: tuple[KeptFile, ...] = ()
    missing: tuple[str, ...] = ()
    hardware: str = ""
    comment: str = ""


def require_snapshot_name(name: str) -> str:
    """Return *name* if a snapshot may have it: what a machine's name may be. :raises UsageError: if not."""
    try:
        return validate_machine_name(name)
    except ValueError:
        raise UsageError(
            f"{name!r} is not a snapshot's name", resolution="use 1 to 63 of a-z, 0-9 and inner hyphens"
        ) from None


def snapshot_folder(home: Home, machine: str, name: str) -> Path:
    """Return where the snapshot *name* of *machine* is."""
    return _folder(home, machine) / name


def write_record(home: Home, snapshot: Snapshot) -> None:
    """Publish *snapshot*: from here on it exists."""
    folder = snapshot_folder(home, snapshot.machine, snapshot.name)
    commit.publish_text(folder / _RECORD, document.dumps(snapshot), mode=0o600)


def list_snapshots(home: Home, machine: str) -> list[Snapshot]:
    """Return the snapshots of *machine*, the oldest first. One that cannot be understood is left out."""
    found = (_read(path) for path in _folder(home, machine).glob(f"*/{_RECORD}"))
    return sorted((snapshot for snapshot in found if snapshot), key=lambda snapshot: (snapshot.time, snapshot.name))


def require_snapshot(home: Home, machine: str, name: str) -> Snapshot:
    """Return the snapshot *name* of *machine*.

    :raises UsageError: if that is no name. :raises NotFoundError: if there is none.
    :raises ConflictError: if it cannot be understood.
    """
    record = snapshot_folder(home, machine, require_snapshot_name(name)) / _RECORD
    snapshot = _read(record)
    if snapshot is None and record.exists():
        raise ConflictError(
            f"the record of the snapshot {name} of {machine} is damaged",
            details=str(record),
            resolution=f"repair it; or remove the folder {record.parent}, then the snapshot is gone",
        )
    if snapshot is None:
        known = ", ".join(each.name for each in list_snapshots(home, machine))
        raise NotFoundError(
            f"{machine} has no snapshot {name!r}",
            resolution=f"it has: {known}" if known else f"it has none at all: ./pvmlab vm.snapshot {machine} NAME",
        )
    return snapshot


def require_new(home: Home, machine: str, name: str) -> Path:
    """Return the empty folder for a new snapshot. The caller holds the machine's lock.

    :raises UsageError: if *name* is no name. :raises ConflictError: if there is such a snapshot already.
    """
    folder = snapshot_folder(home, machine, require_snapshot_name(name))
    if (folder / _RECORD).exists():
        raise ConflictError(
            f"{machine} has a snapshot {name!r} already",
            resolution=f"choose another name, or ./pvmlab vm.snapshots {machine} --remove {name} first",
        )
    if folder.exists():  # a command was killed while it made this
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def remove(home: Home, snapshot: Snapshot) -> None:
    """Remove a snapshot, and the layers that nothing else stands on. The caller holds the machine's lock."""
    folder = snapshot_folder(home, snapshot.machine, snapshot.name)
    (folder / _RECORD).unlink()  # first: a snapshot is whole, or it is none
    shutil.rmtree(folder)
    sweep_layers(home)


def remove_all(home: Home, machine: str) -> None:
    """Remove all snapshots of a machine whose disks are gone, and the layers that nothing else stands on."""
    folder = _folder(home, machine)
    for record in folder.glob(f"*/{_RECORD}"):
        record.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    sweep_layers(home)


def needed_layers(home: Home, machines: Collection[str]) -> set[Path]:
    """Return the layers that snapshots of *machines* have: all there are, if some snapshot cannot be understood."""
    records = [path for machine in machines for path in _folder(home, machine).glob(f"*/{_RECORD}")]
    snapshots = [_read(path) for path in records]
    if any(snapshot is None for snapshot in snapshots):
        return set(layers.layers_folder(home).glob("*.qcow2"))
    return {layer_path(home, disk) for snapshot in snapshots if snapshot for disk in snapshot.disks}


def sweep_layers(home: Home) -> list[Path]:
    """Remove the layers that no disk and no snapshot of the lab needs; return them.

    As long as some snapshot cannot be understood, all stay.
    """
    if not layers.layers_folder(home).exists():
        return []
    with layers.changing(home):  # looked at with the lock: a snapshot may be taken while we wait for that
        return layers.sweep(home, needed_layers(home, [path.name for path in _snapshots_folder(home).glob("*")]))


def layer_path(home: Home, disk: FrozenDisk) -> Path:
    """Return the layer of a frozen disk."""
    return layers.layers_folder(home) / disk.layer


def restore_files(home: Home, snapshot: Snapshot) -> None:
    """Put the machine's disks and files back to *snapshot*. The machine is off, and the caller holds its lock."""
    commit.publish_text(_folder(home, snapshot.machine) / _RESTORING, f"{snapshot.name}\n", mode=0o600)
    finish(home, snapshot.machine)


def finish(home: Home, machine: str) -> None:
    """Carry a restore that was begun to its end; do nothing if none was. The caller holds the machine's lock.

    :raises NotFoundError: if the snapshot is gone.
    """
    marker = _folder(home, machine) / _RESTORING
    try:
        name = marker.read_text().strip()
    except FileNotFoundError:
        return
    snapshot = require_snapshot(home, machine, name)
    for disk in snapshot.disks:
        create_overlay(home.disks / disk.disk, layer_path(home, disk), None)
    for file in snapshot.files:
        _put_back(snapshot_folder(home, machine, name) / file.name, home.root / file.place)
    for place in snapshot.missing:
        _remove(home.root / place)
    marker.unlink()


@contextlib.contextmanager
def marked_as_waiting(home: Home, machine: str) -> Iterator[None]:
    """Mark that a running machine is held still for a snapshot, until the block has ended well.

    If we are killed or interrupted, or QEMU does not answer, the next command lets the machine go on.
    """
    commit.publish_text(_folder(home, machine) / _WAITING, "", mode=0o600)
    yield
    forget_waiting(home, machine)


def needs_care(home: Home, machine: str) -> bool:
    """Say whether a command seems to have been killed, or is still, in the middle of a snapshot or restore."""
    return any((_folder(home, machine) / mark).exists() for mark in (_RESTORING, _WAITING))


def was_left_waiting(home: Home, machine: str) -> bool:
    """Say whether a machine is marked as held still. Whoever holds its lock knows that nobody does any more."""
    return (_folder(home, machine) / _WAITING).exists()


def forget_waiting(home: Home, machine: str) -> None:
    """Remove that mark."""
    (_folder(home, machine) / _WAITING).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _put_back(source: Path, place: Path) -> None:
    if source.suffix == ".tar":
        _remove(place)
        place.mkdir(mode=0o700, parents=True)
        with tarfile.open(source) as archive:
            archive.extractall(place, filter="data")
        return
    with commit.publish(place, mode=0o600) as temporary:
        shutil.copyfile(source, temporary)


def _read(path: Path) -> Snapshot | None:
    try:
        return document.loads(Snapshot, path.read_bytes())
    except (OSError, DocumentError):
        return None


def _folder(home: Home, machine: str) -> Path:
    return _snapshots_folder(home) / machine


def _snapshots_folder(home: Home) -> Path:
    return home.disks / "snapshots"
