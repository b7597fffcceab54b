"""A small client of the QEMU Machine Protocol. Every call is bounded; QEMU serves one client at a time."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PvmlabError, WaitTimeoutError

_LONGEST_MESSAGE = 1 << 20  # bytes; QEMU's answers to what we ask are far below
_RETRY = 0.05  # seconds between attempts to connect
_numbers = itertools.count(secrets.randbelow(1 << 40))  # of commands; another process begins elsewhere


class QmpError(PvmlabError):
    """QEMU refused a command, or ended the conversation."""


class QmpTimeoutError(WaitTimeoutError):
    """QEMU did not answer in time (it is stopped, or serves another client)."""

    def __init__(self, what: str, timeout: float) -> None:
        super().__init__(
            f"QEMU did not answer {what} within {timeout:g} s",
            resolution="./pvmlab vm.stop NAME --force ends the machine",
        )


class QmpClient:
    """A conversation with one QEMU.

    :ivar events: what QEMU told on its own so far, oldest first.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.events: list[dict[str, Any]] = []

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 4.0) -> Any:
        """Run *command* and return its result.

        :param timeout: seconds for the answer.
        :raises QmpError: if QEMU refuses or hangs up. :raises QmpTimeoutError: if it does not answer.
        """
        deadline = time.monotonic() + timeout
        number = next(_numbers)
        request = {"execute": command, "id": number, **({"arguments": arguments} if arguments else {})}
        try:
            self._connection.settimeout(timeout)
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            while True:
                message = self._receive(deadline)
                # QEMU 7.2 may give us the answer to a client before us, who was killed while it waited for that
                if message.get("id", number) != number:
                    continue
                if "return" in message:
                    return message["return"]
                if "error" in message:
                    raise QmpError(f"QEMU refused {command}", details=str(message["error"].get("desc", "")))
                if "event" in message:
                    self.events.append(message)
        except TimeoutError:
            raise QmpTimeoutError(command, timeout) from None
        except (OSError, ValueError, TypeError) as error:
            raise QmpError(f"the conversation with QEMU ended during {command}", details=str(error)) from None

    def greet(self, deadline: float) -> None:
        """Read QEMU's greeting and enter command mode."""
        message = self._receive(deadline)
        if "QMP" not in message:
            raise ValueError("this is not QEMU's greeting")
        self.execute("qmp_capabilities", timeout=max(deadline - time.monotonic(), 0.01))

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            if not (data := self._connection.recv(65536)):
                raise ConnectionResetError("QEMU hung up")
            self._buffer += data
            if len(self._buffer) > _LONGEST_MESSAGE:
                raise ValueError("QEMU's message is too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise TypeError("QEMU's message is not a JSON object")
        return message


@contextlib.contextmanager
def connect(path: Path, *, timeout: float = 4.0) -> Iterator[QmpClient]:
    """Yield a client of the QEMU that listens at *path*, in command mode.

    :param timeout: seconds to connect and be greeted; a socket that is not there yet is waited for.
    :raises QmpError: if nothing usable listens there. :raises QmpTimeoutError: if QEMU does not greet us.
    """
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        client = QmpClient(connection)
        while True:
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection.connect(str(path))
                client.greet(deadline)
                break
            except TimeoutError:
                raise QmpTimeoutError("at its monitor", timeout) from None
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:  # BlockingIOError: queue full
                if time.monotonic() + _RETRY >= deadline:
                    raise QmpError(f"nothing answers at QEMU's monitor {path}", details=str(error)) from None
                time.sleep(_RETRY)
            except (OSError, ValueError, TypeError) as error:
                raise QmpError(f"the conversation with QEMU at {path} broke", details=str(error)) from None
        yield client
