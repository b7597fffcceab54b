"""What the services say: read through a pipe each, written line by line with the service's name before it.

dnsmasq's lines go to the boot handler as well, which makes events of them. dnsmasq cannot be told to write to a FIFO
or a socket of ours itself: to a file it writes blocking, so a reader that is slow or away would stop DHCP, and after a
broken pipe it never logs again (dnsmasq 2.91, log.c).
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
from pathlib import Path

LONGEST_LINE = 8192  # bytes; what is longer comes in pieces
_CHUNK = 65536
_QUEUE = 4096  # lines that wait for a reader: the boot handler starts seconds after dnsmasq


class Receiver:
    """Sends lines to a Unix datagram socket that somebody else binds; never blocks, and drops the oldest when full.

    :param path: the socket, which need not be there yet. Longer ones than the system's 107 bytes get nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._waiting: collections.deque[bytes] = collections.deque(maxlen=_QUEUE)

    def put(self, line: bytes) -> None:
        """Queue one line; :meth:`flush` sends it."""
        self._waiting.append(line)

    def flush(self) -> bool:
        """Send what waits; tell whether something still does, as nobody takes it now."""
        while self._waiting:
            try:
                self._socket.sendto(self._waiting[0], self._path)
            except OSError:
                return True
            self._waiting.popleft()
        return False


class ServicePipe:
    """The standard output and standard error of one start of a service.

    :ivar reader: the descriptor to wait on. :ivar writer: for the service; closed here when it has it.
    """

    def __init__(self, name: str, receiver: Receiver | None = None) -> None:
        self._name = name.encode()
        self._receiver = receiver
        self._rest = b""
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def close_writer(self) -> None:
        """Leave the writing end to the service."""
        os.close(self.writer)

    def take(self) -> bool:
        """Write out the whole lines that are there now; tell whether more may come."""
        while True:
            try:
                data = os.read(self.reader, _CHUNK)
            except BlockingIOError:
                return True
            if not data:
                self._write([self._rest] if self._rest else [])
                self._rest = b""
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > LONGEST_LINE:
                lines.append(self._rest)
                self._rest = b""
            self._write(lines)
            if len(data) < _CHUNK:
                return True

    def close(self) -> None:
        """Write out what is left, and give the descriptor back."""
        self.take()
        os.close(self.reader)

    def _write(self, lines: list[bytes]) -> None:
        text = b"".join(self._prefixed(line) + b"\n" for line in lines)
        with contextlib.suppress(OSError):  # the container's log is gone: nothing to tell it to
            while text:
                text = text[os.write(2, text) :]
        if self._receiver is not None:
            for line in lines:
                self._receiver.put(line[:LONGEST_LINE])

    def _prefixed(self, line: bytes) -> bytes:
        return line if line.startswith((self._name, b"{")) else self._name + b": " + line
