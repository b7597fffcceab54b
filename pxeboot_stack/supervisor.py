"""The container's first process: starts the services, starts again what ends, ends all of them on SIGTERM.

A service is a program, or a function of ours that runs in a fork of this process: it begins with all that is
imported here, and an interpreter and its imports cost two seconds of a processor under emulation.

supervisord would do, but it waits a second before it starts anything and two before it has ended everything, and its
imports cost another second under emulation; what is needed of it is this page.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

_LOG = logging.getLogger(__name__)
Service = Sequence[str] | Callable[[], None]
_WATCHED = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
FIRST_PAUSE = 0.5  # seconds before a service that ended is started again; doubled each time
LONGEST_PAUSE = 8.0
STEADY = 10.0  # a service that ran this long begins with the first pause again
GRACE = 1.5  # seconds between SIGTERM and SIGKILL


@dataclasses.dataclass
class _Running:
    name: str
    service: Service
    pid: int | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float = 0.0


class Supervisor:
    """Runs services until it gets SIGTERM or SIGINT. Their output is the container's: nothing is copied.

    :param services: by name, argument lists (the program is looked up in PATH) and functions. Each runs in a process
        group of its own. There must be no threads when functions are among them.
    """

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = [_Running(name, service) for name, service in services.items()]

    def run(self) -> None:
        """Start everything, keep it running, and return when all has ended after a SIGTERM or SIGINT."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            while True:
                self._start_due()
                arrived = signal.sigtimedwait(_WATCHED, self._pause())
                if arrived is not None and arrived.si_signo != signal.SIGCHLD:
                    return
                self._reap()
        finally:
            self._stop()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _start_due(self) -> None:
        now = time.monotonic()
        for service in self._services:
            if service.pid is None and service.due <= now:
                self._start(service)

    def _start(self, service: _Running) -> None:
        service.started = time.monotonic()
        try:
            service.pid = _fork(service.service) if callable(service.service) else _spawn(service.service)
        except OSError as error:
            self._plan_restart(service, f"cannot be started: {error.strerror}")
        else:
            _LOG.info("%s started as process %d", service.name, service.pid)

    def _pause(self) -> float:
        """Return the seconds until the next start is due; a minute if none is."""
        dues = [service.due for service in self._services if service.pid is None]
        return max(0.0, min(dues) - time.monotonic()) if dues else 60.0

    def _reap(self) -> None:
        """Collect every child that ended: services, and as first process also orphans of theirs."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in self._services:
                if service.pid == pid:
                    _signal_group(pid, signal.SIGKILL)  # a worker that outlived its master holds the port
                    service.pid = None
                    self._plan_restart(service, f"ended with status {os.waitstatus_to_exitcode(status)}")

    def _plan_restart(self, service: _Running, reason: str) -> None:
        now = time.monotonic()
        if now - service.started >= STEADY:
            service.pause = FIRST_PAUSE
        service.due = now + service.pause
        _LOG.error("%s %s; it is started again in %g s", service.name, reason, service.pause)
        service.pause = min(2 * service.pause, LONGEST_PAUSE)

    def _stop(self) -> None:
        running = {service.pid for service in self._services if service.pid is not None}
        for pid in running:
            _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while running and (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            running -= _ended()
        for pid in running:
            _LOG.warning("process %d did not end within %g s: killed", pid, GRACE)
            _signal_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _spawn(argv: Sequence[str]) -> int:
    return os.posix_spawnp(argv[0], list(argv), os.environ, setpgroup=0, setsigmask=(), setsigdef=_WATCHED)


def _fork(function: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        _become(function)
    return pid


def _become(function: Callable[[], None]) -> NoReturn:
    """Run *function* as a process of its own; whatever happens, never return into the supervisor's code."""
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        function()
        status = 0
    except BaseException:  # noqa: BLE001 (logged, and told by the exit status)
        _LOG.exception("%s failed", function.__qualname__)
    finally:
        os._exit(status)


def _ended() -> set[int]:
    ended = set()
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.add(pid)
    return ended


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
