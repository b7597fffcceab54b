"""The life of the services in host mode: start, state, stop, as :class:`lab.machine.Machine` has it of a machine.

They are one process for us, the ``unshare`` that made their namespaces: whatever ends it, or the first process in
there, ends all of them, and with the last one the namespaces, their network and their mounts are gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from contracts.names import PROVISIONER_NAME
from lab import host_mode_door, logs, processes
from lab.machine import Machine, MachineLogs, StopOutcome
from lab.processes import ProcessRecord
from lab.sockets import ensure_private, listens, socket_path
from lab.wait import Deadline, wait_for
from pipeline.errors import ConflictError, PvmlabError, WaitTimeoutError
from pipeline.workspace import REPOSITORY, Home

_START_TIMEOUT = 30.0  # seconds until the door opens; usually 0.3
_LOCK_TIMEOUT = _START_TIMEOUT + 15  # seconds; a start that fails at its very end still gives the lock back
_RUNG_TIMEOUT = 5.0  # seconds for each way to stop
_PROMPT = r"provisioner (host mode):\w\$ "
_PEER = struct.Struct("3i")  # struct ucred: process, user, group (unix(7), SO_PEERCRED)


class HostServices(Machine):
    """The provisioner of a lab in host mode. Its "monitor" is the door, see :mod:`lab.host_mode_door`."""

    runs = "first process (host mode)"

    def __init__(self, *, home: Home) -> None:
        super().__init__(PROVISIONER_NAME, home=home)

    @property
    def qmp_socket(self) -> Path:
        """Where the door is. It stays behind when the services die: so a crash is told from an end in good order."""
        return socket_path(self._home.run, f"{self.name}.door")

    @property
    def logs(self) -> MachineLogs:
        """Where its logs are; there is one of what the services say, and no other program's words."""
        said = super().logs
        return dataclasses.replace(said, qemu=said.serial)

    def start_services(self, argv: Sequence[str | Path]) -> None:
        """Start *argv*, which has the door's path as one of its words, and return once the door is open.

        :raises ConflictError: if it runs already. :raises PvmlabError: if it ends.
        :raises WaitTimeoutError: if it does not answer. Then it does not run.
        """
        ensure_private(self._home.run)
        self._home.logs.mkdir(parents=True, exist_ok=True)
        with self._lock(_LOCK_TIMEOUT):
            if self._alive() is not None:
                raise ConflictError(
                    "the provisioner is already running", resolution="./pvmlab provisioner.stop ends it"
                )
            self._forget()
            logs.rotate(self.logs.serial)
            with self.logs.serial.open("ab") as log:
                intent = ProcessRecord(token=str(self.qmp_socket))
                record = processes.spawn_recorded(self._record, intent, argv, cwd=REPOSITORY, log=log)
            try:
                self._wait_for_door(record)
            except BaseException:  # Ctrl-C too: it is either up and recorded, or gone
                processes.end_process(record, grace=0)
                self._forget()
                raise
        self._note(f"started as process {record.pid} in namespaces of this host")

    def stop(self, *, timeout: float, force: bool = False) -> StopOutcome:  # noqa: ARG002 (as of a machine)
        """Stop the services and say what it took: asked through the door they end themselves, else by SIGKILL.

        :param timeout: not used, nor is *force*: they have nothing to lose.
        :raises WaitTimeoutError: if even SIGKILL did not end it.
        """
        if (record := self._alive()) is None:
            self._clean(None)
            return StopOutcome.ALREADY_OFF
        with contextlib.suppress(OSError):
            host_mode_door.ask(self.qmp_socket, host_mode_door.STOP, timeout=_RUNG_TIMEOUT)
            if processes.wait_for_end(record, timeout=_RUNG_TIMEOUT):
                return self._ended(record, StopOutcome.TERMINATED)
        if self._signal(record, signal.SIGKILL):
            return self._ended(record, StopOutcome.KILLED)
        raise WaitTimeoutError(
            f"process {record.pid} does not end, not even by SIGKILL", resolution="look at the host's kernel log"
        )

    def answers(self, *, timeout: float) -> bool:  # noqa: ARG002 (as of a machine)
        """Say whether the door is open."""
        return listens(self.qmp_socket)

    def require_inner_pid(self) -> int:
        """Return the process id, as we see it, of the first process in the namespaces.

        :raises ConflictError: if they do not run.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(_RUNG_TIMEOUT)
            try:
                link.connect(str(self.qmp_socket))
                credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            except OSError as error:
                raise ConflictError(
                    "the provisioner is off", details=str(error), resolution="./pvmlab provisioner.start"
                ) from None
        pid: int = _PEER.unpack(credentials)[0]
        return pid

    def enter_arguments(self, command: str | None) -> list[str]:
        """Return the words that run *command* with sh in the namespaces; a shell if it is None.

        :raises ConflictError: if they do not run.
        """
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        shell = ["sh", "-c", command] if command is not None else ["env", f"PS1={_PROMPT}", "bash", "--norc"]
        return ["nsenter", f"--target={self.require_inner_pid()}", *user, "--mount", "--net", "--pid", "--", *shell]

    def _ended(self, record: ProcessRecord, outcome: StopOutcome) -> StopOutcome:
        self._clean(record)
        self._note(f"stopped: {outcome}")
        return outcome

    def _wait_for_door(self, record: ProcessRecord) -> None:
        def probe() -> bool | None:
            if not processes.is_alive(record):
                raise PvmlabError(
                    "the services of host mode ended while they started",
                    details="\n".join(self.serial_tail(10)) or "they said nothing",
                    resolution=f"the whole log is {self.logs.serial}",
                )
            return listens(self.qmp_socket) or None

        wait_for(
            "the services of host mode to open their door", probe, deadline=Deadline(_START_TIMEOUT), interval=0.02,
            resolution=f"see {self.logs.serial}; is the host very busy?",
        )  # fmt: skip


def connect_command(door: Path) -> tuple[str, ...]:
    """Return the words of a program that hands connections into the private network to ssh."""
    # -I: nothing of a person's own Python; -S: it needs no libraries
    return sys.executable, "-IS", str(Path(host_mode_door.__file__)), str(door)
