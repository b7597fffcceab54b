"""The container's first process: starts the services, starts again what ends, ends all of them on SIGTERM.

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
from collections.abc import Mapping, Sequence

_LOG = logging.getLogger(__name__)
_WATCHED = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
FIRST_PAUSE = 0.5  # seconds before a service that ended is started again; doubled each time
LONGEST_PAUSE = 8.0
STEADY = 10.0  # a service that ran this long begins with the first pause again
GRACE = 1.5  # seconds between SIGTERM and SIGKILL


@dataclasses.dataclass
class _Service:
    name: str
    argv: Sequence[str]
    pid: int | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float = 0.0


class Supervisor:
    """Runs services until it gets SIGTERM or SIGINT. Their output is the container's: nothing is copied.

    :param services: argument lists by name. A program is looked up in PATH and runs in a process group of its own.
    """

    def __init__(self, services: Mapping[str, Sequence[str]]) -> None:
        self._services = [_Service(name, argv) for name, argv in services.items()]

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

    def _start(self, service: _Service) -> None:
        service.started = time.monotonic()
        try:
            service.pid = os.posix_spawnp(
                service.argv[0], list(service.argv), os.environ, setpgroup=0, setsigmask=(), setsigdef=_WATCHED
            )
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

    def _plan_restart(self, service: _Service, reason: str) -> None:
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


def _ended() -> set[int]:
    ended = set()
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.add(pid)
    return ended


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
