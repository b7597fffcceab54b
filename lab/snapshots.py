"""Snapshots of target machines: taking them, restoring them.

What a snapshot holds, and how it lies on the disk, is in :mod:`lab.snapshot_store`. A machine that is killed in the
middle of any of this, or whose command is, is brought to a good state by the next command: :func:`recover`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.machine import AnswerFile, VmDefinition
from contracts.report import InstallState, MachineStatus
from contracts.tokens import LIFETIME
from lab import forwards, layers, live_snapshots, processes, snapshot_store, target, tpm
from lab.install_status import read_token, token_path
from lab.lab import Lab
from lab.machine import Machine, StopOutcome
from lab.qemu import qemu_arguments, qemu_program
from lab.snapshot_store import FrozenDisk, KeptFile, Snapshot, SnapshotKind
from lab.spec import Accelerator, MachineSpec
from lab.target import StartOptions
from pipeline import commit
from pipeline.emulation import qemu_version
from pipeline.errors import ConflictError, PvmlabError
from pipeline.run import require_program

# What of QEMU's arguments does not matter to the memory of its guest.
_UNIMPORTANT = re.compile(r",bootindex=\d+")
_DROPPED_WORDS = {"-S"}
_DROPPED_PAIRS = {"-pidfile", "-action", "-sandbox"}
_TPM = "tpm.tar"
_STATUS = "status.json"
_TOKEN = "token.json"  # noqa: S105 (a file's name)
_MOMENT = 0.5  # seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class SnapshotSize:
    """What a snapshot takes on the host, in bytes. :ivar disks: of its layers, which others may need too."""

    disks: int
    memory: int


def take(lab: Lab, definition: VmDefinition, name: str, *, disk_only: bool = False, comment: str = "") -> Snapshot:
    """Take the snapshot *name* of a machine: of its disks, firmware and install state, and of its memory if it runs.

    :param disk_only: of a running machine, leave its memory out.
    :raises ConflictError: if there is one of that name, or QEMU cannot save the machine's memory.
    :raises UsageError: if that is no name.
    """
    target.require_managed(definition)
    snapshot_store.require_snapshot_name(name)
    with lab.starting(definition.name):
        recover_locked(lab, definition.name)
        snapshot = Snapshot(
            name=name, machine=definition.name, uuid=definition.uuid, time=time.time(), kind=SnapshotKind.OFF, disks=(),
            comment=comment,
        )  # fmt: skip
        disks = require_disks(lab, definition)
        folder = snapshot_store.require_new(lab.home, definition.name, name)
        try:
            machine = lab.machine(definition.name)
            if machine.process() is not None:
                snapshot = _take_live(lab, definition, snapshot, disks, disk_only=disk_only)
            else:
                frozen = tuple(_frozen(disk, layers.freeze(lab.home, disk)) for disk in disks)
                snapshot = dataclasses.replace(_keep_files(lab, definition, snapshot), disks=frozen)
            snapshot_store.write_record(lab.home, snapshot)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, PvmlabError):  # after Ctrl-C nobody wants to wait for QEMU: the next command does
                recover_locked(lab, definition.name)
            raise
    return snapshot


def restore(
    lab: Lab, definition: VmDefinition, name: str, accelerator: Accelerator, *, disk_only: bool = False
) -> tuple[Snapshot, StopOutcome]:
    """Put a machine back to its snapshot *name*. What it did since is lost; a running one is ended.

    It is off afterwards, but for a snapshot with memory: then it runs on from there.

    :param disk_only: leave the memory out. :return: the snapshot, and what ended the machine.
    :raises NotFoundError: if there is none.
    :raises ConflictError: if the machine is another one by now, or an install that is in the memory cannot go on.
    :raises PvmlabError: if its memory cannot be loaded; then it is off, and its disks are restored.
    """
    target.require_managed(definition)
    machine = lab.machine(definition.name)
    with lab.starting(definition.name):
        recover_locked(lab, definition.name)
        snapshot = snapshot_store.require_snapshot(lab.home, definition.name, name)
        with_memory = snapshot.kind is SnapshotKind.MEMORY and not disk_only
        require_same_machine(lab, definition, snapshot)
        if with_memory:
            _require_token(lab, definition, snapshot)
        outcome = machine.stop(timeout=0, force=True)
        snapshot_store.restore_files(lab.home, snapshot)
        if with_memory:
            _start_from_memory(lab, definition, snapshot, accelerator)
    return snapshot, outcome


def remove(lab: Lab, definition: VmDefinition, name: str) -> None:
    """Remove a snapshot. Disk space that nothing else needs is free at once.

    :raises NotFoundError: if there is none.
    """
    with lab.starting(definition.name):
        recover_locked(lab, definition.name)
        snapshot_store.remove(lab.home, snapshot_store.require_snapshot(lab.home, definition.name, name))


def recover(lab: Lab, name: str) -> None:
    """Repair what a killed snapshot or restore left of the machine *name*; mostly there is nothing, at no cost."""
    if snapshot_store.needs_care(lab.home, name):
        # A conflict: somebody is at it, alive. A killed one's child, just being started, holds the lock for a moment.
        with contextlib.suppress(ConflictError), lab.starting(name, timeout=_MOMENT):
            recover_locked(lab, name)


def size_of(lab: Lab, snapshot: Snapshot) -> SnapshotSize:
    """Return what *snapshot* takes on the host."""
    memory = snapshot_store.snapshot_folder(lab.home, snapshot.machine, snapshot.name) / snapshot_store.MEMORY
    return SnapshotSize(
        disks=sum(_allocated(snapshot_store.layer_path(lab.home, disk)) for disk in snapshot.disks),
        memory=_allocated(memory),
    )


def recover_locked(lab: Lab, name: str) -> None:
    """Do what :func:`recover` does; the caller holds the machine's lock: whoever left a mark is dead."""
    if snapshot_store.was_left_waiting(lab.home, name) and live_snapshots.let_go(lab.machine(name)):
        snapshot_store.forget_waiting(lab.home, name)
    if lab.machine(name).process() is None:
        snapshot_store.finish(lab.home, name)


def _take_live(
    lab: Lab, definition: VmDefinition, snapshot: Snapshot, disks: Sequence[Path], *, disk_only: bool
) -> Snapshot:
    """Take a snapshot of a machine that runs; its folder is there."""
    name, machine = definition.name, lab.machine(definition.name)
    folder = snapshot_store.snapshot_folder(lab.home, name, snapshot.name)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(live_snapshots.connect(machine))
        if not disk_only:
            live_snapshots.require_movable(client, name)
        stack.enter_context(snapshot_store.marked_as_waiting(lab.home, name))
        quiet = disk_only and stack.enter_context(live_snapshots.frozen_file_systems(machine))
        stack.enter_context(live_snapshots.held_still(client))
        frozen = tuple(_frozen(disk, layers.freeze(lab.home, disk)) for disk in disks)
        live_snapshots.switch_disks(client, disks)
        snapshot = _keep_files(lab, definition, snapshot)
        if not disk_only:
            live_snapshots.save_memory(client, folder / snapshot_store.MEMORY)
    return dataclasses.replace(
        snapshot,
        disks=frozen,
        kind=SnapshotKind.DISK if disk_only else SnapshotKind.MEMORY,
        quiet=quiet,
        hardware="" if disk_only else _hardware_of_process(definition, machine),
    )


def _keep_files(lab: Lab, definition: VmDefinition, snapshot: Snapshot) -> Snapshot:
    """Copy the files of a machine that is off or held still into the snapshot's folder; return the snapshot with them.

    A TPM that nobody asks anything has its state in files, whole, besides what it loses with its power: that goes with
    the memory.
    """
    name = definition.name
    folder = snapshot_store.snapshot_folder(lab.home, name, snapshot.name)
    kept, missing = [], []
    for label, path in (
        ("vars.fd", target.variables_path(lab, name)),
        ("network.vars.fd", target.network_variables_path(lab, name)),
        (_STATUS, target.status_path(lab, name)),
    ):
        place = path.relative_to(lab.home.root).as_posix()
        if not path.exists():
            missing.append(place)
            continue
        with commit.publish(folder / label, mode=0o600) as temporary:
            shutil.copyfile(path, temporary)
        kept.append(KeptFile(name=label, place=place))
    state = tpm.tpm_of(lab.home, name).state
    place = state.relative_to(lab.home.root).as_posix()
    if definition.tpm and state.exists():
        with commit.publish(folder / _TPM, mode=0o600) as temporary, tarfile.open(temporary, "w") as archive:
            archive.add(state, arcname=".")
        kept.append(KeptFile(name=_TPM, place=place))
    elif definition.tpm:
        missing.append(place)
    if (token := token_path(lab, definition)).exists():
        with contextlib.suppress(FileNotFoundError), commit.publish(folder / _TOKEN, mode=0o600) as temporary:
            shutil.copyfile(token, temporary)  # the boot handler may remove it at any moment
    return dataclasses.replace(snapshot, files=tuple(kept), missing=tuple(missing))


def _start_from_memory(lab: Lab, definition: VmDefinition, snapshot: Snapshot, accelerator: Accelerator) -> None:
    machine = lab.machine(definition.name)
    prepared = target.prepare(lab, definition, accelerator, options=StartOptions(resumes=True))
    spec = dataclasses.replace(prepared, paused=True)
    if hardware_of(spec) != snapshot.hardware:
        raise ConflictError(
            f"the memory in {snapshot.name} is of another machine than {definition.name} is now",
            details="its hardware or this host's QEMU has changed since; its disks are restored, and it is off",
            resolution=f"./pvmlab vm.start {definition.name} boots them",
        )
    machine.start(spec)
    path = snapshot_store.snapshot_folder(lab.home, definition.name, snapshot.name) / snapshot_store.MEMORY
    try:
        with live_snapshots.connect(machine) as client:
            live_snapshots.load_memory(client, path)
            client.execute("cont")
    except BaseException:
        machine.kill()
        raise
    forwards.ensure(lab, definition)


def hardware_of(spec: MachineSpec) -> str:
    """Return what the memory of a machine fits to: a digest of its QEMU and of the arguments that matter."""
    return _digest(qemu_arguments(spec))


def _hardware_of_process(definition: VmDefinition, machine: Machine) -> str:
    """Return the same of a machine that runs: its definition may have changed since it was started."""
    record = machine.process()
    words = processes.arguments(record) if record is not None else []
    return _digest([qemu_program(definition.arch), *words[1:]])


def _digest(arguments: Sequence[str]) -> str:
    words = [str(qemu_version(Path(require_program(arguments[0])))), *_important(arguments)]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _important(arguments: Sequence[str]) -> Iterator[str]:
    words = iter(arguments)
    for word in words:
        if word in _DROPPED_PAIRS:
            next(words, None)
        elif word and word not in _DROPPED_WORDS:
            yield _UNIMPORTANT.sub("", word)


def require_disks(lab: Lab, definition: VmDefinition) -> Sequence[Path]:
    """Return the machine's disks. :raises ConflictError: if it has none yet."""
    disks = target.disk_paths(lab, definition)
    if absent := [disk.name for disk in disks if not disk.exists()]:
        raise ConflictError(
            f"{definition.name} has no disk yet",
            details=f"{', '.join(absent)}: its first start makes it",
            resolution=f"./pvmlab vm.start {definition.name} --wait",
        )
    return disks


def require_same_machine(lab: Lab, definition: VmDefinition, snapshot: Snapshot) -> None:
    """Check that *snapshot* is whole, and fits to the machine's disks. :raises ConflictError: if not."""
    now = [disk.name for disk in target.disk_paths(lab, definition)]
    then = [disk.disk for disk in snapshot.disks]
    if snapshot.uuid != definition.uuid or now != then:
        raise ConflictError(
            f"the snapshot {snapshot.name} is of another machine than {definition.name} is now",
            details=f"it had the disks {', '.join(then)}; now it has {', '.join(now)}",
            resolution="give it the disks that it had",
        )
    lost = [disk.layer for disk in snapshot.disks if not snapshot_store.layer_path(lab.home, disk).exists()]
    if lost:
        raise ConflictError(f"the snapshot {snapshot.name} is damaged", details=f"{', '.join(lost)} is gone")


def kept_status(lab: Lab, snapshot: Snapshot) -> MachineStatus:
    """Return the install state in *snapshot*. :raises ConflictError: if it cannot be understood."""
    path = snapshot_store.snapshot_folder(lab.home, snapshot.machine, snapshot.name) / _STATUS
    try:
        return document.loads(MachineStatus, path.read_bytes())
    except FileNotFoundError:
        return MachineStatus(name=snapshot.machine, uuid=snapshot.uuid)
    except DocumentError as error:
        raise ConflictError(
            f"the snapshot {snapshot.name} is damaged", details="\n".join([str(path), *error.faults])
        ) from None


def is_amid_install(lab: Lab, definition: VmDefinition, snapshot: Snapshot) -> bool:
    """Tell whether the memory in *snapshot* is that of an installer, which has to report its end to the lab."""
    if snapshot.kind is not SnapshotKind.MEMORY or definition.answer_file is not AnswerFile.LAB:
        return False  # of a person's own answers nobody knows whether they report
    return kept_status(lab, snapshot).state in {InstallState.BOOTING, InstallState.INSTALLING}


def _require_token(lab: Lab, definition: VmDefinition, snapshot: Snapshot) -> None:
    """Check that the install in the middle of which the snapshot is, if so, can still report its end.

    :raises ConflictError: if its token is no more.
    """
    if not is_amid_install(lab, definition, snapshot):
        return
    folder = snapshot_store.snapshot_folder(lab.home, definition.name, snapshot.name)
    then, now = read_token(folder / _TOKEN), read_token(token_path(lab, definition))
    same = then is not None and now is not None and now.digest == then.digest
    if not same or now is None or now.ended is not None or time.time() - now.issued > LIFETIME:
        raise ConflictError(
            f"{definition.name} was being installed in {snapshot.name}, and that install cannot go on",
            details="the one-time token of its boot is worth nothing any more: it ends with the install, with the "
            f"machine's next network boot, and after {LIFETIME / 3600:g} hours",
            resolution="with --disk-only its disks are as they were, and it is off; its next start begins the install "
            "anew",
        )


def _frozen(disk: Path, layer: Path) -> FrozenDisk:
    return FrozenDisk(disk=disk.name, layer=layer.name)


def _allocated(path: Path) -> int:
    """Return the bytes that a file takes on the host; none if it is not there."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
