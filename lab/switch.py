"""A layer 2 switch in user space: every QEMU of a lab is a client of its one AF_UNIX socket.

``python -m lab.switch SOCKET`` runs it; whoever connects to ``SOCKET`` with the suffix ``.ask`` is told its ports and
counters, as one JSON document. QEMU's ``-netdev stream`` sends each Ethernet frame after its length (4 bytes,
big-endian); we speak the same to every port. Frames to an address we have seen go to its port, all others to every
port but their own. Nobody waits for a slow port: what does not fit into its buffer is lost, as on a wire.

It must outlive the machines: QEMU before 9.2 does not connect again.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST_FRAME = 4096 + 65536  # bytes: QEMU's NET_BUFSIZE, a whole offloaded packet
SHORTEST_FRAME = 14  # bytes: an Ethernet header
BUFFER_LIMIT = 4 << 20  # bytes kept for one port
TABLE_LIMIT = 4096  # addresses remembered; a guest that makes up more is flooded, not remembered
_READ_SIZE = 256 << 10
_HEADER = 4  # bytes of the length before each frame
_ADDRESSES_TOLD = 64  # of one port
_PEER = struct.Struct("3i")  # struct ucred: process, user, group (unix(7), SO_PEERCRED)
ASK_SUFFIX = ".ask"  # of the socket that tells the ports and counters


_ASKED = object()  # what the selector knows of the socket for questions


class Port:
    """One client: the bytes of a frame not yet whole, and those it has not taken yet. Counters are of bytes."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self.connection = connection
        self.incoming = b""
        self.outgoing = bytearray()
        self.received = 0  # in whole frames, with their lengths
        self.sent = 0  # or about to be
        self.dropped = 0  # lost because it was slow

    def find_pid(self) -> int | None:
        """Return the process at the other end, or None where the kernel does not tell (macOS)."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None or self.connection.family != socket.AF_UNIX:
            return None
        pid: int = _PEER.unpack(self.connection.getsockopt(socket.SOL_SOCKET, option, _PEER.size))[0]
        return pid


class MalformedFrameError(Exception):
    """A port sent a length that no frame has: from here on its stream makes no sense."""


class Switch:
    """The switch proper, for any connected stream sockets."""

    def __init__(self) -> None:
        self.ports: set[Port] = set()
        self.table: dict[bytes, Port] = {}
        self._selector = selectors.DefaultSelector()

    def close(self) -> None:
        """Close every port."""
        for port in tuple(self.ports):
            self.remove(port)
        self._selector.close()

    def listen(self, listener: socket.socket) -> None:
        """Take new ports from *listener*."""
        listener.settimeout(0)
        self._selector.register(listener, selectors.EVENT_READ)

    def answer(self, listener: socket.socket) -> None:
        """Tell how things stand whoever connects to *listener*."""
        listener.settimeout(0)
        self._selector.register(listener, selectors.EVENT_READ, _ASKED)

    def describe(self) -> dict[str, Any]:
        """Return the ports with their counters and the addresses seen behind them."""
        behind: dict[Port, list[str]] = {port: [] for port in self.ports}
        for address, port in self.table.items():
            behind[port].append(address.hex(":"))
        return {
            "ports": [
                {
                    "pid": port.find_pid(), "addresses": sorted(addresses)[:_ADDRESSES_TOLD],
                    "received": port.received, "sent": port.sent, "dropped": port.dropped,
                }
                for port, addresses in behind.items()
            ],
        }  # fmt: skip

    def add(self, connection: socket.socket) -> Port:
        """Plug in a client."""
        port = Port(connection)
        self.ports.add(port)
        self._selector.register(connection, selectors.EVENT_READ, port)
        return port

    def remove(self, port: Port) -> None:
        """Unplug a client and forget its addresses."""
        self.ports.discard(port)
        self.table = {address: other for address, other in self.table.items() if other is not port}
        self._selector.unregister(port.connection)
        port.connection.close()

    def run_once(self, timeout: float | None = None) -> None:
        """Wait for something to do, at most *timeout* seconds, and do it."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            if isinstance(listener := key.fileobj, socket.socket) and key.data is None:
                self._accept(listener)  # first: who connected before a frame was sent hears it
        for key, events in ready:
            if key.data is None:
                continue
            if key.data is _ASKED:
                self._tell(key.fileobj)
                continue
            port = key.data
            if events & selectors.EVENT_WRITE and port in self.ports:
                self._send(port)
            if events & selectors.EVENT_READ and port in self.ports:
                self._receive(port)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # nobody left to take, or no descriptor left for them
            while True:
                self.add(listener.accept()[0])

    def _tell(self, listener: Any) -> None:
        with contextlib.suppress(OSError):  # it went away, or does not take it all: nobody waits for who asks
            asking, _ = listener.accept()
            with asking:
                asking.settimeout(0)
                asking.sendall(json.dumps(self.describe()).encode() + b"\n")

    def _receive(self, port: Port) -> None:
        try:
            data = port.connection.recv(_READ_SIZE)
            if not data:
                raise ConnectionResetError
            for address, source, frames in self._split(port, data):
                port.received += len(frames)
                self._learn(source, port)
                self._forward(address, frames, port)
        except BlockingIOError:
            return
        except (OSError, MalformedFrameError):
            self.remove(port)

    def _split(self, port: Port, data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Cut *data* into runs of whole frames with the same two addresses, lengths included.

        A transfer is long runs between two machines: each goes out in one piece, which is where the speed is.

        :raises MalformedFrameError: at an impossible length; the run before it is lost too.
        """
        data = port.incoming + data
        position = start = 0
        run = b""  # destination and source of the run from start to position
        while (body := position + _HEADER) <= len(data):
            length = int.from_bytes(data[position:body], "big")
            if length > LONGEST_FRAME:
                raise MalformedFrameError
            if body + length > len(data):
                break
            addresses = data[body : body + 12] if length >= SHORTEST_FRAME else b""
            if addresses != run:
                if run:
                    yield run[:6], run[6:], data[start:position]
                start, run = position, addresses
            position = body + length
        if run:
            yield run[:6], run[6:], data[start:position]
        port.incoming = data[position:]

    def _learn(self, source: bytes, port: Port) -> None:
        if self.table.get(source) is port or source[0] & 1:
            return
        if source in self.table or len(self.table) < TABLE_LIMIT:
            self.table[source] = port

    def _forward(self, address: bytes, frames: bytes, origin: Port) -> None:
        known = None if address[0] & 1 else self.table.get(address)
        if known is origin:
            return
        for port in (known,) if known is not None else tuple(self.ports):
            if port is not origin:
                self._queue(port, frames)

    def _queue(self, port: Port, frames: bytes) -> None:
        if len(port.outgoing) + len(frames) > BUFFER_LIMIT:
            port.dropped += len(frames)
            return
        port.sent += len(frames)
        if port.outgoing:
            port.outgoing += frames
        else:
            self._send(port, frames)

    def _send(self, port: Port, frames: bytes = b"") -> None:
        """Send the port's buffer, or *frames* if that is empty. Ask to be told when it takes more, only if needed."""
        try:
            sent = port.connection.send(port.outgoing or frames)
        except BlockingIOError:
            sent = 0
        except OSError:  # it hung up; reading from it will say so too, and takes it out
            port.outgoing.clear()
            sent = len(frames)
        if port.outgoing:
            del port.outgoing[:sent]
        else:
            port.outgoing += frames[sent:]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.outgoing else 0)
        if self._selector.get_key(port.connection).events != wanted:
            self._selector.modify(port.connection, wanted, port)


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at *path*, for its owner only. When the path appears, it listens already."""
    early = path.with_suffix(".new")
    early.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(str(early))
    finally:
        os.umask(umask)
    listener.listen(64)
    early.replace(path)
    return listener


def main(arguments: list[str]) -> None:
    """Switch frames between the clients of the socket named by the one argument, until ended by a signal."""
    (path,) = arguments
    switch = Switch()
    switch.answer(listen(Path(path).with_suffix(ASK_SUFFIX)))
    switch.listen(listen(Path(path)))
    while True:
        switch.run_once()


if __name__ == "__main__":
    main(sys.argv[1:])
