"""The container's first process: starts the services, starts again what ends, ends all of them on SIGTERM.

A service is a program, or a function of ours that runs in a fork of this process: it begins with all that is
imported here, and an interpreter and its imports cost two seconds of a processor under emulation.

A service that ends, or is stopped by a signal, is started again after a pause that doubles from :data:`FIRST_PAUSE` to
:data:`LONGEST_PAUSE` seconds. One that needs it :data:`FLAPPING_DEATHS` times within :data:`FLAPPING_WINDOW` seconds
will not be mended so: the whole container fails, and whoever runs it decides.

supervisord would do, but it waits a second before it starts anything and two before it has ended everything, its
imports cost another second under emulation, and it does not fail when a service flaps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pxeboot_stack.publish import publish_text
from pxeboot_stack.service_logs import Receiver, ServicePipe

_LOG = logging.getLogger(__name__)
Service = Sequence[str] | Callable[[], None]
_WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
FIRST_PAUSE = 0.5  # seconds before a service that ended is started again; doubled each time
LONGEST_PAUSE = 8.0
STEADY = 10.0  # a service that ran this long begins with the first pause again
FLAPPING_DEATHS = 5
FLAPPING_WINDOW = 60.0  # seconds
GRACE = 1.5  # seconds between the first SIGTERM and SIGKILL
TURN = 0.3  # seconds a service has to end before the next one is asked to
_RETRY = 0.05  # seconds until lines that nobody took are offered again


class FlappingError(Exception):
    """A service died again and again. :ivar name: which one."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} ended {FLAPPING_DEATHS} times within {FLAPPING_WINDOW:g} s")
        self.name = name


@dataclasses.dataclass
class _Running:
    """A service. Times are monotonic seconds, but for :attr:`since`, which is told to people (Unix time)."""

    name: str
    service: Service
    receiver: Receiver | None
    pid: int | None = None
    pipe: ServicePipe | None = None
    started: float = 0.0
    since: int = 0
    pause: float = FIRST_PAUSE
    due: float = 0.0
    restarts: int = 0
    last: str = ""
    deaths: list[float] = dataclasses.field(default_factory=list)


class Supervisor:
    """Runs services until it gets SIGTERM or SIGINT. What they say goes to standard error, with their names.

    :param services: by name, in the order of their start, argument lists (the program is looked up in PATH) and
        functions. Each runs in a process group of its own. There must be no threads when functions are among them.
    :param record: a file that is kept up to date: JSON, by service ``pid``, ``since`` (Unix time), ``restarts`` and
        ``last`` (why it was started again).
    :param receivers: by service, a Unix datagram socket that gets its lines, too.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        *,
        record: Path | None = None,
        receivers: Mapping[str, Path] | None = None,
    ) -> None:
        sinks = {name: Receiver(path) for name, path in (receivers or {}).items()}
        self._services = [_Running(name, service, sinks.get(name)) for name, service in services.items()]
        self._sinks = list(sinks.values())
        self._record = record
        self._pipes: dict[int, ServicePipe] = {}
        self._asked_to_end = False
        self._poll = select.poll()

    def run(self) -> None:
        """Start everything, keep it running, and return when all has ended after a SIGTERM or SIGINT.

        :raises FlappingError: if a service flaps; all has ended then, too.
        """
        wake, bell = os.pipe()
        for descriptor in (wake, bell):
            os.set_blocking(descriptor, False)
        before = {number: signal.signal(number, self._take_signal) for number in _WATCHED}
        bell_before = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        self._poll.register(wake, select.POLLIN)
        try:
            while not self._asked_to_end:
                self._start_due()
                self._wait(self._pause(), wake)
                self._reap()
        finally:
            self._stop(wake)
            signal.set_wakeup_fd(bell_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._poll.unregister(wake)
            os.close(wake)
            os.close(bell)

    def _take_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._asked_to_end = True

    def _wait(self, seconds: float, wake: int) -> None:
        """Pass on what services say until a signal comes, at most for *seconds*."""
        waiting = [sink for sink in self._sinks if sink.flush()]
        timeout = min(seconds, _RETRY) if waiting else seconds
        for descriptor, _ in self._poll.poll(timeout * 1000):
            if descriptor == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            elif not self._pipes[descriptor].take():
                self._drop(self._pipes[descriptor])

    def _start_due(self) -> None:
        now = time.monotonic()
        due = [service for service in self._services if service.pid is None and service.due <= now]
        for service in due:
            self._start(service)
        if due:
            self._write_record()

    def _start(self, service: _Running) -> None:
        service.started, service.since = time.monotonic(), int(time.time())
        pipe = ServicePipe(service.name, service.receiver)
        self._pipes[pipe.reader] = service.pipe = pipe
        self._poll.register(pipe.reader, select.POLLIN)
        try:
            what, output = service.service, pipe.writer
            service.pid = _fork(what, output) if callable(what) else _spawn(what, output)
        except OSError as error:
            self._plan_restart(service, f"cannot be started: {error.strerror}")
        else:
            _LOG.info("%s started as process %d", service.name, service.pid)
        finally:
            pipe.close_writer()

    def _pause(self) -> float:
        """Return the seconds until the next start is due; a minute if none is."""
        dues = [service.due for service in self._services if service.pid is None]
        return max(0.0, min(dues) - time.monotonic()) if dues else 60.0

    def _reap(self) -> None:
        """Collect every child that ended: services, and as first process also orphans of theirs."""
        for pid, status in _changed_children():
            for service in self._services:
                if service.pid == pid:
                    self._note_end(service, status)

    def _note_end(self, service: _Running, status: int) -> None:
        assert service.pid is not None  # noqa: S101 (for the type checker)
        _signal_group(service.pid, signal.SIGKILL)  # a worker that outlived its master holds the port
        if os.WIFSTOPPED(status):
            # It would never answer again by itself. Its end comes as another change.
            _LOG.error("%s was stopped by signal %d: killed", service.name, os.WSTOPSIG(status))
            return
        service.pid = None
        self._plan_restart(service, f"ended with status {os.waitstatus_to_exitcode(status)}")
        self._write_record()

    def _plan_restart(self, service: _Running, reason: str) -> None:
        now = time.monotonic()
        if now - service.started >= STEADY:
            service.pause = FIRST_PAUSE
        service.deaths = [*(at for at in service.deaths if now - at < FLAPPING_WINDOW), now]
        service.last = reason
        if len(service.deaths) >= FLAPPING_DEATHS:
            _LOG.error("%s %s, the %dth time within %g s: giving up", service.name, reason, FLAPPING_DEATHS,
                       FLAPPING_WINDOW)  # fmt: skip
            raise FlappingError(service.name)
        service.due = now + service.pause
        service.restarts += 1
        _LOG.error("%s %s; it is started again in %g s", service.name, reason, service.pause)
        service.pause = min(2 * service.pause, LONGEST_PAUSE)

    def _write_record(self) -> None:
        if self._record is None:
            return
        entries = {
            service.name: {
                "pid": service.pid,
                "since": service.since,
                "restarts": service.restarts,
                "last": service.last,
            }
            for service in self._services
        }
        try:
            publish_text(self._record, json.dumps(entries) + "\n")
        except OSError as error:
            _LOG.error("%s cannot be written: %s", self._record, error)

    def _drop(self, pipe: ServicePipe) -> None:
        self._poll.unregister(pipe.reader)
        del self._pipes[pipe.reader]
        pipe.close()

    def _stop(self, wake: int) -> None:
        """End the services in the reverse order of their start, each with a moment for itself, then by force."""
        deadline = time.monotonic() + GRACE
        running = [service.pid for service in reversed(self._services) if service.pid is not None]
        for pid in list(running):
            _signal_group(pid, signal.SIGTERM)
            _signal_group(pid, signal.SIGCONT)
            self._await_ends(running, lambda pid=pid: pid not in running, min(time.monotonic() + TURN, deadline), wake)  # type: ignore[misc]
        self._await_ends(running, lambda: not running, deadline, wake)
        for pid in running:
            _LOG.warning("process %d did not end within %g s: killed", pid, GRACE)
            _signal_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for pipe in list(self._pipes.values()):
            self._drop(pipe)

    def _await_ends(self, running: list[int], done: Callable[[], bool], deadline: float, wake: int) -> None:
        """Take those that ended out of *running* until *done*, or the deadline passes."""
        while not done() and (left := deadline - time.monotonic()) > 0:
            self._wait(left, wake)
            for pid, status in _changed_children():
                if pid in running and not os.WIFSTOPPED(status):
                    running.remove(pid)
                    _signal_group(pid, signal.SIGKILL)  # what is left of its group


def _spawn(argv: Sequence[str], output: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    return os.posix_spawnp(
        argv[0], list(argv), os.environ, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=_WATCHED
    )


def _fork(function: Callable[[], None], output: int) -> int:
    pid = os.fork()
    if pid == 0:
        _become(function, output)
    return pid


def _become(function: Callable[[], None], output: int) -> NoReturn:
    """Run *function* as a process of its own; whatever happens, never return into the supervisor's code."""
    status = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in _WATCHED:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        function()
        status = 0
    except BaseException:  # noqa: BLE001 (logged, and told by the exit status)
        _LOG.exception("%s failed", function.__qualname__)
    finally:
        os._exit(status)


def _changed_children() -> list[tuple[int, int]]:
    """Return process id and wait status of each child that ended or was stopped since the last call."""
    changed = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG | os.WUNTRACED))[0]:
            changed.append(found)
    return changed


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
