"""The lab's private network: something with a socket that machines plug their LAN card into."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from lab import logs, processes
from lab.processes import ProcessRecord
from lab.sockets import ensure_private, listens, socket_path
from pipeline.errors import PvmlabError
from pipeline.workspace import REPOSITORY

_START_TIMEOUT = 15.0  # seconds; usually 0.1


class Network(Protocol):
    """A private layer 2 network that outlives the machines on it."""

    def ensure_started(self) -> Path:
        """Return the socket machines connect to; start the network if it does not run."""

    def stop(self) -> None:
        """End the network; do nothing if it does not run."""

    def is_running(self) -> bool:
        """Say whether it runs."""


class SwitchNetwork:
    """The rootless network: :mod:`lab.switch` in a process of its own, one per lab."""

    # an underscore is in no machine's name: these names are never a machine's
    def __init__(self, run_dir: Path) -> None:
        """:param run_dir: the lab's folder for process records."""
        self._folder = run_dir
        self._record = run_dir / "_switch.json"
        self._log = run_dir / "_switch.log"

    @property
    def socket(self) -> Path:
        """Where the switch listens."""
        return socket_path(self._folder, "_switch.lan")

    def ensure_started(self) -> Path:
        """Return the socket, once the switch listens on it. Any number of commands may do this at once.

        :raises PvmlabError: if the switch does not start.
        """
        ensure_private(self._folder)
        with self._lock():
            if not self.is_running():
                self._start()
            elif not listens(self.socket):
                raise PvmlabError(
                    f"the lab's switch runs, but its socket {self.socket} is gone",
                    details="machines that run keep their network, new ones cannot join it",
                    resolution="./pvmlab down, then ./pvmlab up",
                )
        return self.socket

    def stop(self) -> None:
        """End the switch and remove its socket. Machines that still run lose their network for good."""
        if not self._folder.exists():
            return
        with self._lock():
            if (record := processes.find_record(self._record)) is not None and not processes.end_process(record):
                raise PvmlabError(f"the lab's switch, process {record.pid}, does not end")
            self._forget()

    def is_running(self) -> bool:
        """Say whether the switch's process runs."""
        record = processes.find_record(self._record)
        return record is not None and processes.is_alive(record)

    def _start(self) -> None:
        self._forget()
        logs.rotate(self._log)
        argv = [sys.executable, "-m", "lab.switch", str(self.socket)]
        with self._log.open("ab") as log:
            record = processes.spawn_recorded(
                self._record, ProcessRecord(token=str(self.socket)), argv, cwd=REPOSITORY, log=log
            )
        try:
            self._wait_until_itlistens(record)
        except BaseException:
            processes.end_process(record)
            self._forget()
            raise

    def _wait_until_itlistens(self, record: ProcessRecord) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not listens(self.socket):
            if not processes.is_alive(record) or time.monotonic() > deadline:
                raise PvmlabError(
                    "the lab's switch did not start",
                    details="\n".join(logs.tail(self._log, 10)) or f"no socket after {_START_TIMEOUT:g} s",
                    resolution="./pvmlab doctor checks this host",
                )
            time.sleep(0.01)

    def _forget(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def _lock(self) -> AbstractContextManager[None]:
        return processes.hold_lock(
            self._folder / "_switch.lock",
            timeout=_START_TIMEOUT + 15,
            busy="the lab's switch is being started or stopped by another command",
        )
