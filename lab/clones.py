"""Clones of target machines: overlays on their frozen disks, with an identity of their own.

The source's disks are frozen (:mod:`lab.layers`); source and clone go on in overlays. So a clone costs a second at
most, and as little disk as the two differ by.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contracts import document
from contracts.machine import MachineSource, VmDefinition
from contracts.report import InstallState, MachineStatus
from contracts.timeline import Event
from lab import identity, layers, provisioner, snapshot_store, snapshots, ssh, target
from lab.disks import create_overlay
from lab.keys import make_key
from lab.lab import Lab
from lab.snapshot_store import Snapshot
from lab.store import DefinitionStore, MachineRequest, require_name
from pipeline import commit
from pipeline.errors import ConflictError, PvmlabError

Documents = Callable[[VmDefinition], Mapping[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloneRequest:
    """What a person asks for.

    :ivar snapshot: of the source; nothing for what it is now. :ivar mac: of the first card. :ivar ip: of that one.
    :ivar keep_identity: its system stays as it is, host name and keys included.
    """

    source: str
    name: str
    snapshot: str = ""
    mac: str | None = None
    ip: str | None = None
    keep_identity: bool = False


@dataclasses.dataclass(frozen=True)
class Clone:
    """A clone that was made. :ivar warning: what it could not be given of its own, or nothing."""

    definition: VmDefinition
    warning: str = ""


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What a clone is made from: the layers of its disks, in their order, and files."""

    layers: Sequence[Path]
    variables: Path
    status: MachineStatus


def clone(lab: Lab, request: CloneRequest, *, documents: Documents) -> Clone:
    """Make a clone. The source has to be off, or have the snapshot that is asked for.

    :param documents: returns the NoCloud documents of a machine.
    :raises NotFoundError: if there is no such machine or snapshot. :raises UsageError: if a value makes no sense.
    :raises ConflictError: if the source runs, has no system yet, or one that can get no other identity; or if the
        name or an address is taken.
    """
    require_name(request.name)
    store = DefinitionStore(lab)
    source = store.load(request.source)
    target.require_managed(source)
    lab.ensure_folders()
    with lab.starting(request.source):
        snapshots.recover_locked(lab, request.source)
        _require_off(lab, request)
        with lab.changing_definitions():
            definition = _plan(lab, store, source, request)
            snapshot = _find_snapshot(lab, source, request)
            status = snapshots.kept_status(lab, snapshot) if snapshot else target.read_status(lab, source)
            _require_system(source, status, request)
            origin = _origin(lab, source, snapshot, status)
            try:
                return _make(lab, store, source, definition, origin, request, documents)
            except BaseException:
                _remove(lab, store, definition)
                raise


def _plan(lab: Lab, store: DefinitionStore, source: VmDefinition, request: CloneRequest) -> VmDefinition:
    """Return the clone's definition: the source's hardware, and all else of its own."""
    asked = MachineRequest(
        name=request.name, distro=source.distro, arch=source.arch, cards=len(source.cards), mac=request.mac,
        ip=request.ip, firmware=source.firmware, installer=source.installer, source=source.source, image=source.image,
    )  # fmt: skip
    own = store.plan(
        asked,
        host_key=source.ssh_host_key if request.keep_identity else make_key(request.name, scratch=lab.home.ssh),
        authorized_key=ssh.lab_key(lab).read_public(),
    )
    return dataclasses.replace(
        source, name=own.name, uuid=own.uuid, mac=own.mac, ip=own.ip, ipv6=own.ipv6, nics=own.nics,
        ssh_host_key=own.ssh_host_key, ssh_authorized_keys=own.ssh_authorized_keys,
        forwards=(),  # ports of the host, which the source has
    )  # fmt: skip


def _find_snapshot(lab: Lab, source: VmDefinition, request: CloneRequest) -> Snapshot | None:
    """Return the snapshot that is to be cloned, or None for the machine as it is now."""
    if not request.snapshot:
        return None
    snapshot = snapshot_store.require_snapshot(lab.home, source.name, request.snapshot)
    snapshots.require_same_machine(lab, source, snapshot)
    return snapshot


def _origin(lab: Lab, source: VmDefinition, snapshot: Snapshot | None, status: MachineStatus) -> _Origin:
    """Return what the clone is made from; without a *snapshot*, the source's disks are frozen for it."""
    if snapshot is None:
        frozen = [layers.freeze(lab.home, disk) for disk in snapshots.require_disks(lab, source)]
        return _Origin(frozen, target.variables_path(lab, source.name), status)
    folder = snapshot_store.snapshot_folder(lab.home, source.name, snapshot.name)
    frozen = [snapshot_store.layer_path(lab.home, disk) for disk in snapshot.disks]
    return _Origin(frozen, folder / "vars.fd", status)


def _make(
    lab: Lab, store: DefinitionStore, source: VmDefinition, definition: VmDefinition, origin: _Origin,
    request: CloneRequest, documents: Documents,
) -> Clone:  # fmt: skip
    """Put all of the clone in place; its definition last, with which it exists."""
    name = definition.name
    disks = target.disk_paths(lab, definition)
    store.write_user_data(name, store.find_user_data(source.name))
    for disk, layer in zip(disks, origin.layers, strict=True):
        create_overlay(disk, layer, None)
    warning = _renew(lab, source, definition, request, documents)
    variables = target.variables_path(lab, name)
    variables.unlink(missing_ok=True)  # of a machine of that name that is no more
    if origin.variables.exists():
        with commit.publish(variables, mode=0o600) as temporary:
            shutil.copyfile(origin.variables, temporary)
    if origin.status.state is not InstallState.NEW:
        commit.publish_text(target.status_path(lab, name), document.dumps(_status(definition, origin, source.name)))
    store.write(definition)
    ssh.write_files(lab, provisioner.find_access(lab))
    return Clone(definition, warning)


def _renew(
    lab: Lab, source: VmDefinition, definition: VmDefinition, request: CloneRequest, documents: Documents
) -> str:
    """Give the system on the clone's disk its own identity; return what is not its own, for people."""
    first = target.disk_path(lab, definition.name)
    if request.keep_identity:
        return f"its system believes to be {source.name}: never let both run at once"
    if definition.source is MachineSource.IMAGE:
        if identity.renew_image(first):
            return ""
        return f"its /etc/machine-id is that of {source.name}: its file system is none that pvmlab can write to"
    identity.renew_installed(first, identity.Identity(source.name, definition.name, documents(definition)))
    return ""


def _status(definition: VmDefinition, origin: _Origin, source: str) -> MachineStatus:
    """Return the clone's install state: its source's, under its own name."""
    now = time.time()
    return dataclasses.replace(
        origin.status, name=definition.name, uuid=definition.uuid, order="", updated=now,
        events=(Event(time=now, text=f"cloned from {source}"),),
    )  # fmt: skip


def _require_off(lab: Lab, request: CloneRequest) -> None:
    if not request.snapshot and lab.machine(request.source).process() is not None:
        raise ConflictError(
            f"{request.source} is running",
            details="a clone is made of a machine that is off, or of a snapshot",
            resolution=f"./pvmlab vm.stop {request.source} first; or ./pvmlab vm.snapshot {request.source} SNAPSHOT, "
            "then the same command with --snapshot=SNAPSHOT",
        )


def _require_system(source: VmDefinition, status: MachineStatus, request: CloneRequest) -> None:
    if source.source is MachineSource.NETWORK and status.state is not InstallState.INSTALLED:
        what = f"its snapshot {request.snapshot}" if request.snapshot else "it"
        raise ConflictError(
            f"{source.name} has no system to clone: {what} is not installed ({status.state})",
            resolution=f"./pvmlab vm.start {source.name} --wait installs it",
        )
    if source.installer.is_native and not request.keep_identity:
        raise ConflictError(
            f"{source.name} was installed by the distribution's own installer: pvmlab does not know how to give a "
            "copy of it an identity of its own",
            resolution="--keep-identity clones it all the same: never let both run at once",
        )


def _remove(lab: Lab, store: DefinitionStore, definition: VmDefinition) -> None:
    """Remove what there is of a clone that did not come about."""
    name = definition.name
    with contextlib.suppress(PvmlabError, OSError):
        for path in (*target.disk_paths(lab, definition), target.variables_path(lab, name),
                     target.status_path(lab, name)):  # fmt: skip
            path.unlink(missing_ok=True)
        store.delete(name)
        snapshot_store.sweep_layers(lab.home)
