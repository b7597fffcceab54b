"""All there is to say about one machine, as data: for ``vm.show``. Looking changes nothing. No secrets are in it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from contracts.machine import MachineSource, VmDefinition
from contracts.timeline import Event
from lab import disks, forwards, layers, orders, processes, snapshot_store, snapshots, ssh, target, watch
from lab.diagnosis import diagnose
from lab.events import read_events
from lab.forwards import ForwardView
from lab.lab import Lab
from lab.machine import Machine, MachineState
from lab.store import DefinitionStore
from pipeline.errors import PvmlabError

_EVENTS = 8  # the last ones
_HIDDEN = {"ssh_host_key", "ssh_authorized_keys", "schema"}  # keys; the public ones follow apart


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessView:
    """A machine's QEMU. :ivar started: seconds since the epoch. :ivar memory: what it takes on the host, in bytes."""

    pid: int
    started: float
    memory: int
    qmp_socket: str
    serial_socket: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiskView:
    """A disk. Sizes are in bytes.

    :ivar size: as the guest sees it. :ivar allocated: what it takes on the host, without what it stands on.
    :ivar below: what it stands on, the nearest first. :ivar fault: why it cannot be read, or nothing.
    """

    path: str
    bus: str
    size: int = 0
    allocated: int = 0
    below: tuple[str, ...] = ()
    fault: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SnapshotView:
    """A snapshot. :ivar time: seconds since the epoch. :ivar disk_bytes: of its layers, on the host."""

    name: str
    time: float
    kind: str
    disk_bytes: int
    memory_bytes: int
    comment: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstallView:
    """How far the machine's install is. :ivar ordered: what it does at its next network boot, or nothing."""

    state: str
    phase: str
    percent: int
    installs: int
    ordered: str
    message: str
    diagnosis: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Portrait:
    """A machine.

    :ivar reason: why it crashed or hangs, if that is known.
    :ivar definition: as in its file, without keys. :ivar user_data: size in bytes of a person's own, 0 without.
    :ivar login: what to type to get in. :ivar logs: files.
    """

    name: str
    state: MachineState
    reason: str
    definition: dict[str, object]
    host_key: str
    user_data: int
    process: ProcessView | None
    disks: tuple[DiskView, ...]
    snapshots: tuple[SnapshotView, ...]
    forwards: tuple[ForwardView, ...]
    install: InstallView | None
    events: tuple[Event, ...]
    login: str
    logs: tuple[str, ...]


def portray(lab: Lab, name: str) -> Portrait:
    """Return all there is to say about the target *name*.

    :raises NotFoundError: if there is none. :raises BrokenDefinitionError: if its definition makes no sense.
    :raises ConflictError: if its status or its process's record is broken.
    """
    store = DefinitionStore(lab)
    definition = store.load(name)
    snapshots.recover(lab, name)
    machine = lab.machine(name)
    state = watch.look(machine)
    reason = watch.why_stuck(machine) if state is MachineState.STUCK else machine.crash_reason()
    plain = {key: value for key, value in dataclasses.asdict(definition).items() if key not in _HIDDEN}
    logs = machine.logs
    return Portrait(
        name=name,
        state=state,
        reason=reason,
        definition=plain,
        host_key=" ".join(definition.ssh_host_key.public.split()[:2]),
        user_data=len((store.find_user_data(name) or "").encode()),
        process=_process(machine),
        disks=tuple(_disks(lab, definition)) if definition.managed else (),
        snapshots=tuple(_snapshots(lab, name)),
        forwards=tuple(forwards.view(lab, definition)),
        install=_install(lab, definition, state),
        events=tuple(sorted(read_events(lab, definition), key=lambda event: event.latest)[-_EVENTS:]),
        login=ssh.login_hint(name),
        logs=tuple(str(path) for path in (logs.ours, logs.serial, logs.qemu) if path.exists()),
    )


def _process(machine: Machine) -> ProcessView | None:
    record = machine.process()
    if record is None or record.pid is None:
        return None
    return ProcessView(
        pid=record.pid,
        started=machine.started(),
        memory=processes.resident_memory(record),
        qmp_socket=str(machine.qmp_socket),
        serial_socket=str(machine.serial_socket),
    )


def _disks(lab: Lab, definition: VmDefinition) -> list[DiskView]:
    buses = (definition.disk_bus, *(further.bus for further in definition.more_disks))
    paths = target.disk_paths(lab, definition)
    return [_disk(path, bus.value) for path, bus in zip(paths, buses, strict=True)]


def _disk(path: Path, bus: str) -> DiskView:
    try:
        info = disks.disk_info(path)
    except PvmlabError as error:
        return DiskView(path=str(path), bus=bus, fault=error.brief if path.exists() else "its first start makes it")
    below = tuple(str(base) for base in layers.chain(path))
    return DiskView(path=str(path), bus=bus, size=info.virtual_size, allocated=info.actual_size, below=below)


def _snapshots(lab: Lab, name: str) -> list[SnapshotView]:
    return [view_snapshot(lab, snapshot) for snapshot in snapshot_store.list_snapshots(lab.home, name)]


def view_snapshot(lab: Lab, snapshot: snapshot_store.Snapshot) -> SnapshotView:
    """Return what people see of a snapshot."""
    size = snapshots.size_of(lab, snapshot)
    return SnapshotView(
        name=snapshot.name, time=snapshot.time, kind=snapshot.kind.value, disk_bytes=size.disks,
        memory_bytes=size.memory, comment=snapshot.comment,
    )  # fmt: skip


def _install(lab: Lab, definition: VmDefinition, state: MachineState) -> InstallView | None:
    """Return how far the install is; None for a machine that has none: it came from an image."""
    if definition.source is MachineSource.IMAGE:
        return None
    status = target.read_status(lab, definition)
    due = orders.find_due(lab, definition, status)
    events = read_events(lab, definition, status)
    goes_on = state is MachineState.RUNNING and status.state.value not in {"installed", "failed", "rescue"}
    return InstallView(
        state=status.state.value,
        phase=status.phase.value if status.phase is not None else "",
        percent=status.percent,
        installs=status.installs,
        ordered=due.kind.value if due is not None else "",
        message=status.message,
        diagnosis=diagnose(status, events, now=time.time()) if goes_on and events else "",
    )
