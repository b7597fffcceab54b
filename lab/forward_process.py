"""The process that keeps the forwarded ports of a machine open: started, found, ended. See :mod:`lab.forwarder`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lab import logs, processes
from lab.processes import ProcessRecord
from lab.sockets import ensure_private
from pipeline.errors import ConflictError
from pipeline.workspace import REPOSITORY, Home

_END = 5.0  # seconds for it to end its ssh processes


def ensure_started(home: Home, name: str, *, cache: Path) -> None:
    """Have the forwarder of the machine *name* run. Twice at once is fine.

    :raises ConflictError: if another command is at it for long.
    """
    ensure_private(home.run)
    record = _record_path(home, name)
    busy = f"another command starts the forwards of {name}"
    with processes.hold_lock(record.with_suffix(".lock"), timeout=10.0, busy=busy):
        if is_running(home, name):
            return  # it looks at the definition by itself
        argv = [sys.executable, "-m", "lab.forwarder", name, str(_state_path(home, name))]
        log = home.logs / f"{name}.forwards.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        logs.rotate(log)
        with log.open("ab") as stream:
            processes.spawn_recorded(
                record, ProcessRecord(token=argv[-1]), argv, cwd=REPOSITORY, log=stream,
                env={"PVMLAB_HOME": str(home.root), "PVMLAB_CACHE": str(cache)},
            )  # fmt: skip


def is_running(home: Home, name: str) -> bool:
    """Say whether there is one."""
    try:
        record = processes.find_record(_record_path(home, name))
    except ConflictError:  # a damaged record: it is none of ours
        return False
    return record is not None and processes.is_alive(record)


def read_states(home: Home, name: str) -> dict[str, str]:
    """Return what it says of each port of this host; nothing if there is none, or it has not said anything yet."""
    if not is_running(home, name):
        return {}
    try:
        states: dict[str, str] = json.loads(_state_path(home, name).read_text())
    except (OSError, ValueError):
        return {}
    return states


def end(home: Home, name: str) -> None:
    """End the forwarder of the machine *name*, whose QEMU has ended; do nothing if it has none."""
    path = _record_path(home, name)
    if (record := processes.find_record(path)) is not None:
        processes.end_process(record, grace=_END)
        path.unlink(missing_ok=True)
    _state_path(home, name).unlink(missing_ok=True)


def _record_path(home: Home, name: str) -> Path:
    return home.run / f"_forwards-{name}.json"  # an underscore is in no machine's name


def _state_path(home: Home, name: str) -> Path:
    return home.run / f"_forwards-{name}.state"
