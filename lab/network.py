"""The lab's private network: what machines plug their LAN cards into, and the switch, which is the usual one.

The others are :mod:`lab.bridge` and :mod:`lab.vmnet`; :mod:`lab.network_settings` says which one a lab has.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import socket
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from lab import logs, processes
from lab.processes import ProcessRecord
from lab.sockets import ensure_private, listens, socket_path
from lab.spec import LanTaps
from lab.switch import ASK_SUFFIX
from pipeline.errors import PvmlabError
from pipeline.workspace import REPOSITORY

_START_TIMEOUT = 15.0  # seconds; usually 0.1
_ANSWER_TIMEOUT = 2.0  # seconds; a stopped switch must not hold us up


class NetworkKind(enum.StrEnum):
    """What carries the frames of a lab's network."""

    SWITCH = "switch"  # a process of ours, without any privilege
    BRIDGE = "bridge"  # of the Linux kernel, with a tap for each card
    VMNET = "vmnet"  # macOS: socket_vmnet


@dataclasses.dataclass(frozen=True, kw_only=True)
class PortView:
    """One who is on the network.

    :ivar machine: its name; empty if it cannot be told. :ivar name: of the port: a tap; empty for the switch's.
    :ivar pid: the process at it, or None if that cannot be told. :ivar connected: somebody is at the port.
    :ivar addresses: MAC addresses seen behind it. :ivar received: bytes that came in by it, since it was plugged in.
    :ivar sent: bytes that went out. :ivar dropped: bytes lost since it was slow to take them (a tap's are packets).
    """

    machine: str = ""
    name: str = ""
    pid: int | None = None
    connected: bool = True
    addresses: tuple[str, ...] = ()
    received: int = 0
    sent: int = 0
    dropped: int = 0


class Network(Protocol):
    """A private layer 2 network that outlives the machines on it."""

    @property
    def kind(self) -> NetworkKind:
        """What it is made of."""

    def attach(self, machine: str, cards: int) -> Path | LanTaps:
        """Return what the LAN cards of *machine* are plugged into; start the network if it does not run.

        :param cards: how many cards it has.
        :raises PvmlabError: if it cannot run here.
        """

    def stop(self) -> None:
        """End the network; do nothing if it does not run."""

    def is_running(self) -> bool:
        """Say whether it runs."""

    def ports(self) -> list[PortView]:
        """Return who is on it, with counters; nobody if it does not run, or cannot tell."""

    def leftovers(self) -> list[str]:
        """Return what it has on this host though it does not run and no machine uses it, for people."""


class SwitchNetwork:
    """The rootless network: :mod:`lab.switch` in a process of its own, one per lab."""

    # an underscore is in no machine's name: these names are never a machine's
    def __init__(self, run_dir: Path) -> None:
        """:param run_dir: the lab's folder for process records."""
        self._folder = run_dir
        self._record = run_dir / "_switch.json"
        self._log = run_dir / "_switch.log"

    @property
    def kind(self) -> NetworkKind:
        """A switch."""
        return NetworkKind.SWITCH

    @property
    def socket(self) -> Path:
        """Where the switch listens."""
        return socket_path(self._folder, "_switch.lan")

    def attach(self, machine: str, cards: int) -> Path:  # noqa: ARG002 (all plug into the same socket)
        """Return the socket, once the switch listens on it. :raises PvmlabError: if the switch does not start."""
        return self.ensure_started()

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
                    resolution="./pvmlab down, then start the machines again",
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

    def ports(self) -> list[PortView]:
        """Return who is on the switch, as it tells itself; nobody if it does not answer."""
        try:
            told = json.loads(_ask(self.socket.with_suffix(ASK_SUFFIX)))
        except (OSError, ValueError):
            return []
        return [PortView(**port | {"addresses": tuple(port["addresses"])}) for port in told["ports"]]

    def leftovers(self) -> list[str]:
        """Return the sockets that a killed switch left."""
        if self.is_running():
            return []
        return [str(path) for path in (self.socket, self.socket.with_suffix(ASK_SUFFIX)) if path.exists()]

    def _start(self) -> None:
        self._forget()
        logs.rotate(self._log)
        argv = [sys.executable, "-m", "lab.switch", str(self.socket)]
        with self._log.open("ab") as log:
            record = processes.spawn_recorded(
                self._record, ProcessRecord(token=str(self.socket)), argv, cwd=REPOSITORY, log=log
            )
        try:
            self._wait_until_it_listens(record)
        except BaseException:
            processes.end_process(record)
            self._forget()
            raise

    def _wait_until_it_listens(self, record: ProcessRecord) -> None:
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
        self.socket.with_suffix(ASK_SUFFIX).unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def _lock(self) -> AbstractContextManager[None]:
        return processes.hold_lock(
            self._folder / "_switch.lock",
            timeout=_START_TIMEOUT + 15,
            busy="the lab's switch is being started or stopped by another command",
        )


def _ask(path: Path) -> bytes:
    """Return what the switch says at *path*. :raises OSError: if nobody is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(_ANSWER_TIMEOUT)
        link.connect(str(path))
        said = b""
        while data := link.recv(1 << 16):
            said += data
    return said
