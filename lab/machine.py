"""The life of one QEMU machine: start, state, stop.

A machine is a process of its own that outlives the command that started it. What is known of it is its record
(``run/<name>.json``, see ``lab.processes``); whoever changes that holds the machine's lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from contracts.names import validate_machine_name
from lab import forward_process, guest_agent, logs, processes, qmp, tpm
from lab.processes import ProcessRecord
from lab.qemu import qemu_arguments
from lab.sockets import ensure_private, listens, socket_path
from lab.spec import MachineSpec
from pipeline.errors import ConflictError, PvmlabError, WaitTimeoutError
from pipeline.workspace import Home

_START_TIMEOUT = 30.0  # seconds until QEMU's monitor answers; usually 0.2
_LOCK_TIMEOUT = _START_TIMEOUT + 15  # seconds; a start that fails at its very end still gives the lock back
_RUNG_TIMEOUT = 5.0  # seconds for each way to stop but the first
_QMP_TIMEOUT = 2.0  # seconds; a stopped or stuck QEMU must not hold us up
_ASK_AGAIN = 5.0  # seconds; a guest that is still booting misses the power button
HOST_RESTARTED = "the host was restarted"


class MachineState(enum.StrEnum):
    """What a machine's process is doing."""

    OFF = "off"
    RUNNING = "running"
    STUCK = "stuck"  # its process is there and does not answer: :mod:`lab.watch` looks that deep
    CRASHED = "crashed"


class StopOutcome(enum.StrEnum):
    """What ended the machine, as the end of a sentence: the machine was ..."""

    ALREADY_OFF = "already off"
    SHUT_DOWN = "shut down by its guest"
    QUIT = "switched off through QEMU's monitor"
    TERMINATED = "ended by SIGTERM"
    KILLED = "ended by SIGKILL"

    @property
    def forced(self) -> bool:
        """Whether the guest had no chance to save what it was doing."""
        return self not in {StopOutcome.ALREADY_OFF, StopOutcome.SHUT_DOWN}


class QemuStartError(PvmlabError):
    """QEMU ended while it started. :ivar tail: its last words."""

    def __init__(self, name: str, tail: list[str], log: Path) -> None:
        self.tail = tail
        super().__init__(
            f"{name}: QEMU ended while it started",
            details="\n".join(tail) or "it said nothing",
            resolution=f"the whole log is {log}; ./pvmlab doctor checks this host",
        )


@dataclasses.dataclass(frozen=True)
class MachineLogs:
    """The three logs of a machine: what we did, what its serial console said, what QEMU said."""

    ours: Path
    serial: Path
    qemu: Path


class Machine:
    """The machine *name* of the lab at *home*, whether it exists or not.

    :cvar runs: what its process is, for people.
    """

    runs = "QEMU"

    def __init__(self, name: str, *, home: Home) -> None:
        """:raises ValueError: if *name* is not a machine name."""
        self.name = validate_machine_name(name)
        self._home = home
        self._record = home.run / f"{name}.json"

    @property
    def logs(self) -> MachineLogs:
        """Where its logs are, also when there are none yet."""
        folder = self._home.logs
        return MachineLogs(
            folder / f"{self.name}.log", folder / f"{self.name}.serial.log", folder / f"{self.name}.qemu.log"
        )

    @property
    def qmp_socket(self) -> Path:
        """Where QEMU's monitor listens: short enough for a socket, however long the path of the lab's home is."""
        return socket_path(self._home.run, f"{self.name}.qmp")

    @property
    def serial_socket(self) -> Path:
        """Where the serial console listens, see :attr:`lab.spec.MachineSpec.serial_socket`."""
        return self.qmp_socket.with_suffix(".serial")

    @property
    def guest_agent_socket(self) -> Path:
        """Where the channel to a guest agent listens, see :mod:`lab.guest_agent`."""
        return self.qmp_socket.with_suffix(".agent")

    @property
    def pid_file(self) -> Path:
        """The file that its QEMU keeps locked as long as it runs (``-pidfile``)."""
        return self._home.run / f"{self.name}.pid"

    @property
    def work_lock(self) -> Path:
        """The lock of whoever prepares the machine, starts it or works on its disks."""
        return self._home.run / f"_start-{self.name}.lock"  # an underscore is in no machine's name

    def answers(self, *, timeout: float) -> bool:
        """Say whether its QEMU answers within *timeout* seconds; a machine that is off does not."""
        try:
            with qmp.connect(self.qmp_socket, timeout=timeout) as client:
                client.execute("query-status", timeout=timeout)
        except (qmp.QmpError, qmp.QmpTimeoutError):
            return False
        return True

    def process(self) -> ProcessRecord | None:
        """Return the record of its process, if that runs."""
        return self._alive()

    def started(self) -> float:
        """Return when its process was started, in seconds since the epoch; 0 if it has none."""
        try:
            return self._record.stat().st_mtime  # nobody writes it again while the process runs
        except FileNotFoundError:
            return 0.0

    def crash_reason(self) -> str:
        """Return why it crashed, for people; empty if it did not, or nobody knows."""
        record = processes.find_record(self._record)
        return record.reason if record is not None and record.crashed else ""

    def start(self, spec: MachineSpec) -> None:
        """Start QEMU as *spec* says and return once its monitor answers.

        If two commands do this at once, one of them starts it and the other one is refused.

        :raises ConflictError: if it runs already, or something it needs is taken (a port, its disk).
        :raises PvmlabError: if the lab's network does not run.
        :raises QemuStartError: if QEMU ends. :raises WaitTimeoutError: if it does not answer. Then it does not run.
        :raises MissingProgramError: if there is no QEMU for its architecture.
        """
        if (spec.name, spec.serial_log, spec.qmp_socket) != (self.name, self.logs.serial, self.qmp_socket):
            raise ValueError(f"this specification was not made for {self.name}")
        if isinstance(spec.lan_socket, Path) and not listens(spec.lan_socket):  # QEMU would run all the same
            raise PvmlabError(
                f"{self.name}: the lab's network is not running",
                details=f"nobody listens on {spec.lan_socket}",
                resolution="./pvmlab up starts it",
            )
        ensure_private(self._home.run)
        self._home.logs.mkdir(parents=True, exist_ok=True)
        with self._lock(_LOCK_TIMEOUT):
            if self._alive() is not None:
                raise ConflictError(
                    f"{self.name} is already running", resolution=f"./pvmlab vm.stop {self.name} ends it"
                )
            self._forget()
            logs.rotate(self.logs.serial)
            logs.rotate(self.logs.qemu)
            self._run_qemu(spec)

    def state(self) -> MachineState:
        """Return what the machine is doing now. A crash stays visible until the next start or stop."""
        record = processes.find_record(self._record)
        if record is None:
            return MachineState.OFF
        if processes.is_alive(record):
            logs.trim(self.logs.serial)
            return MachineState.RUNNING
        try:
            with self._lock(0):
                return self._settle()
        except ConflictError:  # another command starts or stops it at this moment
            return MachineState.OFF

    def is_running(self) -> bool:
        """Say whether its QEMU runs."""
        return self.state() is MachineState.RUNNING

    def stop(self, *, timeout: float, force: bool = False) -> StopOutcome:
        """Stop the machine, as gently as it lets us, and say what it took.

        The ladder: ask the guest, tell QEMU to quit, SIGTERM, SIGKILL. Every rung is bounded.

        :param timeout: seconds for the guest to shut down. :param force: do not ask the guest.
        :raises WaitTimeoutError: if even SIGKILL did not end it.
        """
        ladder: list[tuple[StopOutcome, Callable[[ProcessRecord], bool]]] = [
            (StopOutcome.SHUT_DOWN, lambda record: not force and self._ask_guest(record, timeout)),
            (StopOutcome.QUIT, self._quit),
            (StopOutcome.TERMINATED, lambda record: self._signal(record, signal.SIGTERM)),
            (StopOutcome.KILLED, lambda record: self._signal(record, signal.SIGKILL)),
        ]
        if (record := self._alive()) is None:
            self._clean(None)
            return StopOutcome.ALREADY_OFF
        for outcome, ended_by in ladder:
            if ended_by(record):
                self._clean(record)
                self._note(f"stopped: {outcome}")
                return outcome
        raise WaitTimeoutError(
            f"{self.name}: process {record.pid} does not end, not even by SIGKILL",
            details="the kernel keeps it, probably for a disk or a network file system that does not answer",
            resolution="look at the host's kernel log",
        )

    def kill(self) -> None:
        """End the machine at once, by SIGKILL; do nothing if it is off."""
        if (record := self._alive()) is not None:
            self._signal(record, signal.SIGKILL)
            self._note("killed")
        self._clean(record)

    def serial_tail(self, lines: int) -> list[str]:
        """Return the last *lines* lines of the serial console that say something, without control sequences."""
        return logs.tail(self.logs.serial, lines)

    def _run_qemu(self, spec: MachineSpec) -> None:
        record = self._spawn(spec)
        try:
            self._wait_for_monitor(record)
        except BaseException:  # Ctrl-C too: a machine is either up and recorded, or gone
            processes.end_process(record, grace=_RUNG_TIMEOUT)
            self._forget()
            raise
        self._note(f"started as process {record.pid} on {spec.accelerator.kind}")

    def _spawn(self, spec: MachineSpec) -> ProcessRecord:
        """Start QEMU, and before it what it connects to."""
        try:
            if spec.tpm is not None:
                tpm.start(self._home, self.name, spec.uuid)
            with self.logs.qemu.open("ab") as log:
                intent = ProcessRecord(token=spec.uuid, lock_file=str(self.pid_file))
                argv: list[str | Path] = [*qemu_arguments(spec), "-pidfile", self.pid_file]
                return processes.spawn_recorded(self._record, intent, argv, cwd=self._home.run, log=log)
        except BaseException:
            tpm.end(self._home, self.name)
            raise

    def _wait_for_monitor(self, record: ProcessRecord) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        seen = "its monitor's socket did not appear"
        while (left := deadline - time.monotonic()) > 0:
            if not processes.is_alive(record):
                raise _start_error(self.name, logs.tail(self.logs.qemu, 10), self.logs.qemu)
            if self.qmp_socket.exists():
                try:
                    with qmp.connect(self.qmp_socket, timeout=min(left, _QMP_TIMEOUT)) as client:
                        client.execute("query-status", timeout=min(left, _QMP_TIMEOUT))
                        return
                except (qmp.QmpError, qmp.QmpTimeoutError) as error:
                    seen = f"{error.brief} {error.details}"
            time.sleep(0.02)
        raise WaitTimeoutError(
            f"{self.name}: QEMU's monitor did not answer within {_START_TIMEOUT:g} s",
            details=f"last seen: {seen}",
            resolution=f"see {self.logs.qemu}; is the host very busy?",
        )

    def _ask_guest(self, record: ProcessRecord, timeout: float) -> bool:
        """Tell its agent to shut it down, or press the power button, until it has; return whether it did."""
        deadline = time.monotonic() + timeout
        if timeout and guest_agent.shut_down(self.guest_agent_socket) and processes.wait_for_end(
            record, timeout=timeout
        ):  # fmt: skip
            return True
        while (left := deadline - time.monotonic()) > 0:
            if not self._tell("system_powerdown") and processes.is_alive(record):
                return False
            if processes.wait_for_end(record, timeout=min(left, _ASK_AGAIN)):
                return True
        return False

    def _quit(self, record: ProcessRecord) -> bool:
        return self._tell("quit") and processes.wait_for_end(record, timeout=_RUNG_TIMEOUT)

    def _signal(self, record: ProcessRecord, number: signal.Signals) -> bool:
        processes.send_signal(record, number)
        if number is signal.SIGTERM and processes.is_stopped(record):  # so that it can write what is in its caches
            processes.send_signal(record, signal.SIGCONT)
        return processes.wait_for_end(record, timeout=_RUNG_TIMEOUT)

    def _tell(self, command: str) -> bool:
        """Run a QMP command; return False if QEMU does not do it."""
        try:
            with qmp.connect(self.qmp_socket, timeout=_QMP_TIMEOUT) as client:
                client.execute(command, timeout=_QMP_TIMEOUT)
        except (qmp.QmpError, qmp.QmpTimeoutError) as error:
            self._note(f"{command} failed: {error.brief} {error.details}".rstrip())
            return False
        return True

    def _alive(self) -> ProcessRecord | None:
        record = processes.find_record(self._record)
        return record if record is not None and processes.is_alive(record) else None

    def _settle(self) -> MachineState:
        """Clean up after a machine that ended on its own; the caller holds the lock."""
        record = processes.find_record(self._record)
        if record is None:
            return MachineState.OFF
        if processes.is_alive(record):
            return MachineState.RUNNING
        # A QEMU that ends in good order, such as after its guest's power-off, removes its socket; one that dies cannot.
        crashed = record.crashed or (record.pid is not None and self.qmp_socket.exists())
        reason = record.reason or (HOST_RESTARTED if record.is_of_another_boot else "")
        if not record.crashed and record.is_of_another_boot:  # whatever became of its sockets: nobody switched it off
            crashed = True
        if not crashed:
            self._forget()
            self._note("its guest switched it off")
            return MachineState.OFF
        if not record.crashed:
            try:
                processes.write_record(self._record, dataclasses.replace(record, crashed=True, reason=reason))
            except OSError:  # a full disk: the next look finds the same
                return MachineState.CRASHED
            self._note(f"crashed: {reason or f'process {record.pid} is gone'}")
        self._forget_all_but_record()
        return MachineState.CRASHED

    def _clean(self, ended: ProcessRecord | None) -> None:
        """Remove what is left of a process that has ended, unless the machine was started again meanwhile."""
        if not self._record.exists():
            return
        with self._lock(_LOCK_TIMEOUT):
            current = self._alive()
            if current is None or (ended is not None and current.pid == ended.pid):
                self._forget()

    def _forget(self) -> None:
        self._forget_all_but_record()
        self._record.unlink(missing_ok=True)

    def _forget_all_but_record(self) -> None:
        tpm.end(self._home, self.name)
        forward_process.end(self._home, self.name)
        for path in (self.qmp_socket, self.serial_socket, self.guest_agent_socket, self.pid_file):
            path.unlink(missing_ok=True)

    def _lock(self, timeout: float) -> contextlib.AbstractContextManager[None]:
        return processes.hold_lock(
            self._home.run / f"{self.name}.lock",
            timeout=timeout,
            busy=f"{self.name} is being started or stopped by another command",
        )

    def _note(self, text: str) -> None:
        """Write a line to our own log, if that can be: what was done is done, whether the disk is full or not."""
        with contextlib.suppress(OSError):
            self.logs.ours.parent.mkdir(parents=True, exist_ok=True)
            logs.trim(self.logs.ours, limit=1 << 20)
            with self.logs.ours.open("a", encoding="utf-8") as log:
                log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self.name}: {text}\n")


def _start_error(name: str, tail: list[str], log: Path) -> PvmlabError:
    """Return the error for a QEMU that ended while it started: a known one if its words tell."""
    text = "\n".join(tail)
    if forward := re.search(r"host forwarding rule 'tcp:([0-9.]+):(\d+)-", text):
        address, port = forward.groups()
        return ConflictError(
            f"{name}: port {port} of {address} is taken by another program",
            details=text,
            resolution=f"ss -ltnp 'sport = :{port}' shows which; end it and try again",
        )
    if disk := re.search(r"^.*Failed to get .* lock.*$", text, re.MULTILINE):
        return ConflictError(
            f"{name}: its disk is in use by another process", details=disk[0], resolution="end the QEMU that uses it"
        )
    return QemuStartError(name, tail, log)
