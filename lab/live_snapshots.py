"""Snapshots of machines that run, by QMP.

The machine is held still while its disks get overlays, all of them at one moment (``transaction``), and its memory is
written by a ``snapshot-save`` job into a qcow2 file of its own: so the disks' snapshots are layers like those of a
machine that is off, and a clone can stand on them. QEMU writes no memory of a machine with a device that it cannot move
(NVMe, up to QEMU 7.2 at least).
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab import guest_agent, qmp
from lab.disks import create_empty_disk
from lab.machine import Machine
from lab.qmp import QmpClient
from pipeline.errors import ConflictError, PvmlabError, WaitTimeoutError

_NODE = "pvmlab-memory"  # the name of the file with the memory inside QEMU
_TAG = "memory"  # of the snapshot in that file
_CONNECT = 4.0  # seconds
_COMMAND = 30.0  # seconds for a command that waits for the disks
_AGENT = 10.0  # seconds for the guest's file systems to be written out
_JOB_LIMIT = 600.0  # seconds for a machine's memory; a gigabyte takes about two
_POLL = 0.05
_MEMORY_GIB = 1  # virtual size of the file: none of it is used, what a job saves is kept beside it
_jobs = itertools.count(1)


class MachineMemoryError(PvmlabError):
    """QEMU could not save or load a machine's memory."""


@contextlib.contextmanager
def held_still(client: QmpClient) -> Iterator[None]:
    """Have the machine do nothing while the block runs; one that was paused stays so."""
    was_running = client.execute("query-status", timeout=_CONNECT)["running"]
    if was_running:
        client.execute("stop", timeout=_COMMAND)
    try:
        yield
    finally:
        if was_running:
            client.execute("cont", timeout=_COMMAND)


@contextlib.contextmanager
def frozen_file_systems(machine: Machine) -> Iterator[bool]:
    """Have the guest's agent keep its file systems in order while the block runs; yield whether there is one."""
    with contextlib.ExitStack() as stack:
        try:
            agent = stack.enter_context(guest_agent.connect(machine.guest_agent_socket))
        except guest_agent.AgentError:
            yield False
            return
        try:
            yield _freeze(agent)
        finally:
            with contextlib.suppress(guest_agent.AgentError):
                agent.execute("guest-fsfreeze-thaw", timeout=_AGENT)


def _freeze(agent: guest_agent.GuestAgent) -> bool:
    """Return whether the file systems are in order now; one that takes longer may be so later, and is thawed too."""
    try:
        agent.execute("guest-fsfreeze-freeze", timeout=_AGENT)
    except guest_agent.AgentError:
        return False
    return True


def require_movable(client: QmpClient, name: str) -> None:
    """Check that QEMU can save the machine's memory, before anything is done to it.

    :raises ConflictError: if a device stands in the way.
    """
    reasons = client.execute("query-migrate", timeout=_CONNECT).get("blocked-reasons", [])
    if reasons:
        raise ConflictError(
            f"the memory of {name} cannot be saved",
            details="QEMU says: " + "; ".join(reasons),
            resolution=f"./pvmlab vm.snapshot {name} SNAPSHOT --disk-only takes its disks alone; or stop the machine "
            "first. Machines made with --disk-bus=virtio (or sata) have no such device",
        )


def switch_disks(client: QmpClient, overlays: Sequence[Path]) -> None:
    """Have the machine write into *overlays*, made for its disks in their order, from now on: all or none.

    :raises QmpError: if QEMU refuses.
    """
    actions = [
        {
            "type": "blockdev-snapshot-sync",
            "data": {"device": f"disk{number}", "snapshot-file": str(path), "format": "qcow2", "mode": "existing"},
        }
        for number, path in enumerate(overlays)
    ]
    client.execute("transaction", {"actions": actions}, timeout=_COMMAND)


def save_memory(client: QmpClient, path: Path) -> None:
    """Write the memory and the devices' state of a machine that is held still to *path*, which must not exist.

    :raises MachineMemoryError: if QEMU cannot. :raises WaitTimeoutError: if it takes too long.
    """
    create_empty_disk(path, _MEMORY_GIB)
    with _memory_file(client, path):
        _run_job(client, "snapshot-save", "saved")


def load_memory(client: QmpClient, path: Path) -> None:
    """Put the memory in *path* into a machine that has not run yet; it does not run afterwards either.

    :raises MachineMemoryError: if QEMU cannot: it is another machine's, say.
    :raises WaitTimeoutError: if it takes too long.
    """
    with _memory_file(client, path):
        _run_job(client, "snapshot-load", "loaded")


def let_go(machine: Machine) -> bool:
    """Let a machine go on that a killed command held still, and clean up after that in its QEMU.

    :return: whether that is done; also if there is nothing left to do it to.
    """
    if machine.process() is None:
        return True
    try:
        with qmp.connect(machine.qmp_socket, timeout=_CONNECT) as client:
            _end_jobs(client)
            with contextlib.suppress(qmp.QmpError):  # it is not there
                client.execute("blockdev-del", {"node-name": _NODE}, timeout=_COMMAND)
            if client.execute("query-status", timeout=_COMMAND)["status"] == "paused":
                client.execute("cont", timeout=_COMMAND)
    except (qmp.QmpError, qmp.QmpTimeoutError):
        return machine.process() is None
    with contextlib.suppress(guest_agent.AgentError), guest_agent.connect(machine.guest_agent_socket) as agent:
        agent.execute("guest-fsfreeze-thaw", timeout=_AGENT)
    return True


def _end_jobs(client: QmpClient) -> None:
    """Wait for the jobs of a killed command, which QEMU carries on, and forget them."""
    deadline = time.monotonic() + _JOB_LIMIT
    while time.monotonic() < deadline:
        # QEMU answers nothing while it writes a machine's memory
        jobs = client.execute("query-jobs", timeout=_JOB_LIMIT)
        for job in jobs:
            if job["status"] == "concluded":
                with contextlib.suppress(qmp.QmpError):  # gone since
                    client.execute("job-dismiss", {"id": job["id"]}, timeout=_COMMAND)
        if not jobs:
            return
        time.sleep(_POLL)


@contextlib.contextmanager
def connect(machine: Machine) -> Iterator[QmpClient]:
    """Yield a conversation with the machine's QEMU. :raises PvmlabError: if it does not answer."""
    with qmp.connect(machine.qmp_socket, timeout=_CONNECT) as client:
        yield client


@contextlib.contextmanager
def _memory_file(client: QmpClient, path: Path) -> Iterator[None]:
    file = {"driver": "file", "filename": str(path)}
    client.execute("blockdev-add", {"driver": "qcow2", "node-name": _NODE, "file": file}, timeout=_COMMAND)
    try:
        yield
    finally:
        with contextlib.suppress(qmp.QmpError, qmp.QmpTimeoutError):
            client.execute("blockdev-del", {"node-name": _NODE}, timeout=_COMMAND)


def _run_job(client: QmpClient, command: str, done: str) -> None:
    name, deadline = f"{_NODE}-{next(_jobs)}", time.monotonic() + _JOB_LIMIT
    arguments = {"job-id": name, "tag": _TAG, "vmstate": _NODE, "devices": [_NODE]}
    client.execute(command, arguments, timeout=_COMMAND)
    while True:
        # QEMU answers nothing while it writes
        (job,) = (job for job in client.execute("query-jobs", timeout=_JOB_LIMIT) if job["id"] == name)
        if job["status"] == "concluded":
            break
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"the machine's memory was not {done} within {_JOB_LIMIT:g} s")
        time.sleep(_POLL)
    client.execute("job-dismiss", {"id": name}, timeout=_COMMAND)
    if "error" in job:
        raise MachineMemoryError(f"QEMU could not have the machine's memory {done}", details=str(job["error"]))
