"""Unit tests start no process and open no connection: an audit hook (PEP 578) refuses, whatever door is taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_PROCESS_EVENTS = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn"}
)
_SOCKET_EVENTS = frozenset(
    {"socket.bind", "socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}
)


class _Guard:
    """The hook. It cannot be removed again (PEP 578), so it has a switch."""

    active = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in _PROCESS_EVENTS:
            pytest.fail(f"a unit test may not start a process ({event}: {arguments[:1]}): tests/integration may")
        # an AF_UNIX address is a path, an AF_INET one a tuple
        if event in _SOCKET_EVENTS and not isinstance(arguments[-1], (str, bytes)):
            pytest.fail(f"a unit test may not use the network ({event}: {arguments[-1:]}): tests/integration may")


_guard = _Guard()
sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def _no_processes_and_no_network() -> Iterator[None]:
    _guard.active = True
    yield
    _guard.active = False
