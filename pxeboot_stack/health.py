"""Asks the services whether they still answer, and ends one that does not: the supervisor starts it again.

The supervisor sees a process that ended or was stopped. This sees one that hangs. It is a service itself, and tells by
the age of a file that all answer: a health check then costs a shell, not an interpreter.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pxeboot_stack.publish import publish_text

_LOG = logging.getLogger(__name__)
INTERVAL = 3.0  # seconds between two rounds
PATIENCE = 10.0  # seconds a service has for an answer
FAILURES = 3  # in a row, before it is ended
FIRST_ANSWER = 120.0  # seconds a service has to answer at all after its start; emulated, ten are usual
FRESH = 30.0  # seconds: the file says "all well" so long
Ask = Callable[[], None]


@dataclasses.dataclass
class _Known:
    """What is known of one start of a service. Times are monotonic seconds."""

    pid: int
    seen: float
    answered: bool = False
    failures: int = 0


class Health:
    """Asks each service in rounds.

    :param questions: by service, what raises :class:`OSError` if it does not answer.
    :param record: what the supervisor says of its services. :param healthy: touched when all have answered.
    """

    def __init__(
        self, questions: Mapping[str, Ask], *, record: Path, healthy: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._questions = questions
        self._record = record
        self._healthy = healthy
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def look(self) -> list[str]:
        """Ask each service once; return the names of those that do not answer.

        :raises OSError: if the files cannot be read or written.
        """
        silent = []
        for name, ask in self._questions.items():
            known = self._find(name)
            if known is None or not self._answers(name, ask, known):
                silent.append(name)
        if not silent:
            publish_text(self._healthy, f"{int(time.time())}\n")
        return silent

    def _find(self, name: str) -> _Known | None:
        """Return what is known of the process that the service *name* is now; None if there is none."""
        try:
            pid = json.loads(self._record.read_bytes())[name]["pid"]
        except (FileNotFoundError, KeyError, ValueError):
            return None
        if not isinstance(pid, int):
            return None
        known = self._known.get(name)
        if known is None or known.pid != pid:
            known = self._known[name] = _Known(pid, self._clock())
        return known

    def _answers(self, name: str, ask: Ask, known: _Known) -> bool:
        try:
            ask()
        except OSError as error:
            known.failures += 1
            if known.answered or self._clock() - known.seen > FIRST_ANSWER:
                _LOG.warning("%s does not answer: %s", name, error)
                if known.failures >= FAILURES:
                    self._end(name, known)
            return False
        known.answered, known.failures = True, 0
        return True

    def _end(self, name: str, known: _Known) -> None:
        now = self._find(name)
        if now is not known:  # it ended by itself meanwhile
            return
        _LOG.error("%s has not answered %d times: ended", name, known.failures)
        try:
            os.killpg(known.pid, signal.SIGKILL)
        except OSError as error:
            _LOG.error("%s cannot be ended: %s", name, error)


def ask_http(host: str, port: int, path: str) -> None:
    """Ask for *path*. Any answer will do: what it says is for those who read it.

    :raises OSError: if none comes.
    """
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n".encode())
        status = connection.recv(64)
    if not status.startswith(b"HTTP/1."):
        raise ConnectionError(f"no HTTP answer: {status!r}")


def ask_dns(host: str, name: str, port: int = 53) -> None:
    """Ask the name server at *host* for the IPv4 address of *name*; any answer will do.

    :raises OSError: if none comes.
    """
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    number = os.urandom(2)
    query = number + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"  # RFC 1035, section 4.1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(PATIENCE)
        asking.connect((host, port))
        asking.send(query)
        while not asking.recv(4096).startswith(number):
            pass


def run(health: Health) -> None:
    """Look for ever."""
    while True:
        try:
            health.look()
        except OSError as error:
            _LOG.error("health: %s", error)
        time.sleep(INTERVAL)
