"""Reading and writing a few blocks of a disk image as its guest sees it: ``qemu-nbd``.

The Network Block Device protocol, https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md: the fixed
newstyle handshake without options, then simple replies. libnbd is no dependency: it has no package for Python's
installers, and what is needed of it is this page.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.wait import Deadline, wait_for
from pipeline.errors import PvmlabError
from pipeline.run import PIPE, Popen, find_program, spawn

_TIMEOUT = 20.0  # seconds for an answer of the server and for its end; each takes milliseconds
# Nothing but its client's good-bye ends the server; who is killed says none. So the kernel ends it with us (prctl(2),
# PR_SET_PDEATHSIG), unless we were dead before that was set: then the parent is another. Without setpriv, on macOS, a
# server stays behind if we are killed within the first milliseconds.
_TIED = ("setpriv", "--pdeathsig=KILL", "--")
# It gets a socket on which its client waits already, as sd_listen_fds(3) says: nobody has to look for its own.
_ACTIVATED = '[ $PPID = $0 ] || exit; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 0</dev/null'
_GREETING = struct.Struct(">8sQH")
_MAGIC, _OPTION_MAGIC = b"NBDMAGIC", 0x49484156454F5054
_NO_ZEROES = 0b10
_FLAGS = struct.Struct(">I")
_OPTION = struct.Struct(">QII")
_EXPORT_NAME = 1
_EXPORT = struct.Struct(">QH")
_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC, _READ, _WRITE, _END = 0x25609513, 0, 1, 2
_REPLY = struct.Struct(">IIQ")
_REPLY_MAGIC = 0x67446698


class BlockDevice:
    """A disk as its guest sees it. :ivar size: in bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        magic, option_magic, flags = _GREETING.unpack(self._receive(_GREETING.size))
        if magic != _MAGIC or option_magic != _OPTION_MAGIC or not flags & 1:
            raise PvmlabError("qemu-nbd does not speak NBD as we know it")
        connection.sendall(_FLAGS.pack(flags & 0b11) + _OPTION.pack(_OPTION_MAGIC, _EXPORT_NAME, 0))
        self.size, _ = _EXPORT.unpack(self._receive(_EXPORT.size))
        if not flags & _NO_ZEROES:
            self._receive(124)

    def read(self, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*. :raises PvmlabError: if they cannot be read."""
        self._ask(_READ, offset, length)
        return self._receive(length)

    def write(self, offset: int, data: bytes) -> None:
        """Write *data* at *offset*. :raises PvmlabError: if that fails."""
        self._ask(_WRITE, offset, len(data), data)

    def close(self) -> None:
        """Say good-bye: the server flushes what was written, and ends."""
        self._connection.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _END, 0, 0, 0))

    def _ask(self, kind: int, offset: int, length: int, data: bytes = b"") -> None:
        if not 0 <= offset <= offset + length <= self.size:
            raise PvmlabError(f"block {offset} is beyond the end of the disk: its file system is damaged")
        self._connection.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, kind, 0, offset, length) + data)
        magic, error, _ = _REPLY.unpack(self._receive(_REPLY.size))
        if magic != _REPLY_MAGIC or error:
            raise PvmlabError(f"the disk cannot be {'written' if kind == _WRITE else 'read'}: error {error}")

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self._connection.recv(length - len(data))
            if not part:
                raise PvmlabError("qemu-nbd hung up")
            data += part
        return bytes(data)


@contextlib.contextmanager
def open_image(image: Path) -> Iterator[BlockDevice]:
    """Yield the disk in the qcow2 file *image*, to be read and written; nobody else may use it meanwhile.

    What was written is in the file when the block has ended.

    :raises PvmlabError: if it cannot be opened: it is in use, say, or no qcow2.
    """
    listener, connection = _connected()
    with connection:
        # one client, after which it ends; unsafe: the caller publishes the file, and flushes it before that
        argv: list[str | Path] = ["qemu-nbd", "--format=qcow2", "--cache=unsafe", image]
        with listener:
            tied = _TIED if find_program(_TIED[0]) else ()
            server = spawn(
                [*tied, "sh", "-c", _ACTIVATED, str(os.getpid()), *argv], stdin=listener.fileno(), stderr=PIPE
            )
        try:
            device = _open(connection, server, image)
            yield device
            device.close()
            _await_end(server)
        except OSError as error:
            raise PvmlabError(f"the conversation with qemu-nbd about {image.name} ended", details=str(error)) from None
        finally:
            server.kill()
            server.wait()
            if server.stderr is not None:
                server.stderr.close()


def _connected() -> tuple[socket.socket, socket.socket]:
    """Return a listening socket that has no name any more, and the one client that it will ever have."""
    listener, connection = (socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2))
    with tempfile.TemporaryDirectory(prefix="pvmlab-nbd-") as folder:
        listener.bind(f"{folder}/socket")
        listener.listen(1)
        connection.settimeout(_TIMEOUT)
        connection.connect(f"{folder}/socket")
    return listener, connection


def _open(connection: socket.socket, server: Popen[bytes], image: Path) -> BlockDevice:
    """Return what *server* serves. :raises PvmlabError: if it ended instead; with what it said."""
    try:
        return BlockDevice(connection)
    except (OSError, PvmlabError):
        _await_end(server)
        said = server.stderr.read().decode(errors="replace").strip() if server.stderr else ""
        raise PvmlabError(f"{image.name} cannot be opened", details=said) from None


def _await_end(server: Popen[bytes]) -> None:
    """Return when *server* has ended. :raises WaitTimeoutError: if it does not."""
    wait_for("qemu-nbd to end", lambda: server.poll() is not None or None, deadline=Deadline(_TIMEOUT), interval=0.005)
