"""A mirror of media on the loopback that can cut, lie, stall, redirect and count, to the byte.

It writes its answers itself, header and all: a library would not let it break the protocol. What it does is data
(:class:`Manner`): a list of manners for each path, one for each request; the last one stays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

_PATIENCE = 20.0  # seconds after which a connection that nobody reads is given up
_PIECE = 1 << 16
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>No such file, but do look around.</body></html>\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manner:
    """How one request is answered. As it is: an honest server with ranges.

    :ivar data: the file. :ivar etag: None for none. :ivar status: another one is sent with a short text.
    :ivar ranges: ``honour``; ``ignore`` (200); 206 that is wrong: ``shifted`` (begins one byte late), ``longer``
        (another total), ``mute`` (no Content-Range), ``other`` (another ETag), ``unchecked`` (whatever If-Range says);
        ``416`` (the file is of another length), ``416-done`` (that was all); ``unasked`` (206 to a request for all).
    :ivar length: bytes that Content-Length adds to the truth; None for no such header.
    :ivar cut: bytes of the body after which the connection is closed; ``reset`` it is then.
    :ivar pace: seconds between two pieces of 64 KiB.
    :ivar stall: bytes of the body after which nothing comes any more.
    :ivar trickle: seconds between two bytes: of the header with *trickles_header*, else of the body.
    :ivar endless: go on with zeros after the end, without a length.
    :ivar chunked: with Transfer-Encoding: chunked. :ivar encoding: gzip the body, asked or not.
    :ivar location: with a status of 3xx. :ivar headers: others, which win. :ivar hang: never answer.
    """

    data: bytes = b""
    etag: str | None = '"1"'
    status: int = 200
    ranges: str = "honour"
    length: int | None = 0
    cut: int | None = None
    reset: bool = False
    stall: int | None = None
    pace: float = 0.0
    trickle: float = 0.0
    trickles_header: bool = False
    endless: bool = False
    chunked: bool = False
    encoding: bool = False
    location: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hang: bool = False


@dataclasses.dataclass
class Request:
    """What was asked. :ivar headers: names in lower case. :ivar sent: bytes of body that went out."""

    path: str
    headers: Mapping[str, str]
    sent: int = 0


class MediaServer:
    """The server; a context manager.

    :ivar requests: all there were, in their order. :ivar connections: how many were made, also without a request.
    """

    def __init__(
        self,
        manners: Mapping[str, Manner | Sequence[Manner]] | None = None,
        *,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        """:param certificate: the files of a certificate and its key, to speak TLS."""
        self._tls = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self.requests: list[Request] = []
        self.connections = 0
        self._manners: dict[str, Iterator[Manner]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        for path, manner in (manners or {}).items():
            self.answer(path, manner)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in [self._acceptor, *self._threads]:
            thread.join(_PATIENCE)
            assert not thread.is_alive()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def sent(self) -> int:
        """The bytes of all bodies that went out."""
        return sum(request.sent for request in self.requests)

    def url(self, path: str = "/") -> str:
        """Return the address of *path*."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, manners: Manner | Sequence[Manner]) -> None:
        """Have requests for *path* answered so from now on."""
        several = [manners] if isinstance(manners, Manner) else list(manners)
        self._manners[path] = itertools.chain(several, itertools.repeat(several[-1]))

    def count(self, path: str) -> int:
        """Return how many requests for *path* there were."""
        return sum(1 for request in self.requests if request.path == path)

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(line,), daemon=True)
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            line = stack.enter_context(raw)
            line.settimeout(_PATIENCE)
            if self._tls is not None:
                line = stack.enter_context(self._tls.wrap_socket(line, server_side=True))
            request = _read(line)
            if request is None:
                return
            path = re.sub(r"^http://[^/]*", "", request.path)  # as a proxy is asked
            with self._lock:
                self.requests.append(request)
                manner = next(self._manners[path]) if path in self._manners else Manner(status=404)
            if manner.hang:
                self._over.wait(_PATIENCE)
            _Reply(line, manner, request, self._over.wait).send()


def _read(line: socket.socket) -> Request | None:
    text = b""
    while b"\r\n\r\n" not in text:
        piece = line.recv(_PIECE)
        if not piece:
            return None
        text += piece
    first, *rest = text.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
    return Request(first.split(" ")[1], headers)


class _Reply:
    """One answer on its way."""

    def __init__(self, line: socket.socket, manner: Manner, request: Request, wait: Callable[[float], bool]) -> None:
        self._line, self._manner, self._request, self._wait = line, manner, request, wait

    def send(self) -> None:
        manner = self._manner
        status, headers, body = self._compose()
        merged = {**headers, **manner.headers}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in merged.items()), "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        if manner.trickles_header:
            self._trickle(head)
        else:
            self._line.sendall(head)
        self._send_body(body)

    def _compose(self) -> tuple[int, dict[str, str], bytes]:
        manner = self._manner
        headers = {"Connection": "close", **({"ETag": manner.etag} if manner.etag is not None else {})}
        if manner.location is not None:
            headers["Location"] = manner.location
        if manner.status != 200:
            text = b"" if manner.status in {204, 304} else f"status {manner.status}\n".encode()
            return manner.status, {**headers, "Content-Length": str(len(text))}, text
        status, more, body = self._ranged(manner.data)
        if manner.encoding:
            body, headers["Content-Encoding"] = gzip.compress(body, mtime=0), "gzip"
        if manner.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif manner.length is not None and not manner.endless:
            headers["Content-Length"] = str(len(body) + manner.length)
        return status, {**headers, **more}, body

    def _ranged(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        manner, asked = self._manner, re.fullmatch(r"bytes=(\d+)-", self._request.headers.get("range", ""))
        total = len(data)
        if manner.ranges == "unasked":
            return 206, {"Content-Range": f"bytes 0-{total - 1}/{total}"}, data
        if asked is None or manner.ranges == "ignore":
            return 200, {}, data
        start, condition = int(asked[1]), self._request.headers.get("if-range")
        if manner.ranges.startswith("416"):
            return 416, {"Content-Range": f"bytes */{start if manner.ranges == '416-done' else total + 1}"}, b""
        if condition is not None and condition != manner.etag and manner.ranges not in {"unchecked", "other"}:
            return 200, {}, data
        if start >= total:
            return 416, {"Content-Range": f"bytes */{total}"}, b""
        shift = 1 if manner.ranges == "shifted" else 0
        more = {"Content-Range": f"bytes {start + shift}-{total - 1}/{total + (manner.ranges == 'longer')}"}
        if manner.ranges == "mute":
            more = {}
        if manner.ranges == "other":
            more["ETag"] = '"another"'
        return 206, more, data[start + shift :]

    def _send_body(self, body: bytes) -> None:
        manner = self._manner
        stop = min(each for each in (manner.cut, manner.stall, len(body)) if each is not None)
        if manner.trickle and not manner.trickles_header:
            self._trickle(body[:stop])
        elif manner.chunked:
            self._send_chunks(body[:stop], is_whole=stop == len(body))
        else:
            for start in range(0, stop, _PIECE):
                self._put(body[start : min(start + _PIECE, stop)])
                if manner.pace and self._wait(manner.pace):
                    return
        while manner.endless and not self._wait(0):
            self._put(bytes(_PIECE))
        if manner.stall is not None:
            self._wait_for_the_other()
        if manner.reset:
            self._line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _send_chunks(self, body: bytes, *, is_whole: bool) -> None:
        for start in range(0, len(body), _PIECE):
            piece = body[start : start + _PIECE]
            self._line.sendall(f"{len(piece):x}\r\n".encode())
            self._put(piece)
            self._line.sendall(b"\r\n")
        if is_whole:
            self._line.sendall(b"0\r\n\r\n")

    def _put(self, data: bytes) -> None:
        self._line.sendall(data)
        self._request.sent += len(data)

    def _trickle(self, data: bytes) -> None:
        for number in range(len(data)):
            self._line.sendall(data[number : number + 1])
            if self._wait(self._manner.trickle):
                return

    def _wait_for_the_other(self) -> None:
        """Wait until the other side closes, or the server."""
        self._line.settimeout(0.05)
        while not self._wait(0):
            with contextlib.suppress(TimeoutError):
                if not self._line.recv(1):
                    return
