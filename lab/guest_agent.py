"""Asking the QEMU guest agent of a machine, where its system has one: a channel to ``qemu-ga``, JSON both ways.

https://qemu.readthedocs.io/en/v7.2.0/interop/qemu-ga-ref.html. A system without an agent says nothing at all, so every
question begins with a short one that only an agent answers; until it did, nothing is asked that changes anything.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_ANSWER = 1.0  # seconds for an agent to say that it is there; it needs milliseconds
_DELIMITER = b"\xff"  # begins the answer to guest-sync-delimited: what came before it was for somebody else
_LONGEST = 1 << 20  # bytes


class AgentError(Exception):
    """There is no agent, or it refuses."""


class GuestAgent:
    """A conversation with an agent that has answered."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 5.0) -> Any:
        """Run *command* and return its result.

        :param timeout: seconds. :raises AgentError: if it refuses or does not answer.
        """
        self.send(command, arguments)
        message = self._receive(time.monotonic() + timeout)
        if "error" in message:
            raise AgentError(str(message["error"].get("desc", "refused")))
        return message.get("return")

    def send(self, command: str, arguments: Mapping[str, object] | None = None) -> None:
        """Give *command*, without waiting for an answer. :raises AgentError: if nobody takes it."""
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            self._connection.settimeout(_ANSWER)
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise AgentError(f"the agent does not take {command}: {error}") from None

    def refuses(self) -> bool:
        """Say whether the agent answers what was sent with an error, which it does at once."""
        try:
            return "error" in self._receive(time.monotonic() + _ANSWER)
        except AgentError:  # it is silent, or ends: it is at it
            return False

    def greet(self) -> None:
        """Find out whether an agent is there. :raises AgentError: if not."""
        number = secrets.randbelow(1 << 31)
        # the byte in front ends a half-written command of somebody before us
        self._connection.settimeout(_ANSWER)
        try:
            self._connection.sendall(_DELIMITER)
        except OSError as error:
            raise AgentError(f"the channel is closed: {error}") from None
        self.send("guest-sync-delimited", {"id": number})
        deadline = time.monotonic() + _ANSWER
        while self._receive(deadline).get("return") != number:  # answers to those before us
            pass

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._connection.recv(65536)
            except OSError as error:
                raise AgentError(f"the agent does not answer: {error}") from None
            self._buffer += data
            if not data or len(self._buffer) > _LONGEST:
                raise AgentError("the agent hung up" if not data else "the agent's answer is too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line.rpartition(_DELIMITER)[2])
        except ValueError:
            return {}
        return message if isinstance(message, dict) else {}


@contextlib.contextmanager
def connect(path: Path) -> Iterator[GuestAgent]:
    """Yield the agent behind the channel at *path*.

    :raises AgentError: within about a second, if there is none.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise AgentError(f"there is no channel to an agent: {error}") from None
        agent = GuestAgent(connection)
        agent.greet()
        yield agent


def shut_down(path: Path) -> bool:
    """Have the agent behind *path* shut its system down; return whether there is one that does it."""
    try:
        with connect(path) as agent:
            agent.send("guest-shutdown", {"mode": "powerdown"})  # it answers only if it cannot, or may not
            return not agent.refuses()
    except AgentError:
        return False
