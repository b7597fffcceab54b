"""A real HTTP server that misbehaves on demand."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclasses.dataclass
class Server:
    """Bodies by path, and the faults to show.

    :ivar cut_after: bytes after which each answer is cut off, None to send it whole.
    :ivar failures: how many requests are first answered with 503. :ivar failures_after_cut: the same, after the first.
    :ivar ranges: whether Range is understood. :ivar lie: bytes added to the size an answer claims.
    :ivar requests: what was asked for: path and the offset of a Range. :ivar posts: path and body of each POST.
    """

    url: str = ""
    bodies: dict[str, bytes] = dataclasses.field(default_factory=dict)
    cut_after: int | None = None
    failures: int = 0
    failures_after_cut: int = 0
    ranges: bool = True
    lie: int = 0
    requests: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    posts: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one GET."""
        offset = int(request.headers.get("Range", "bytes=0-")[6:-1])
        self.requests.append((request.path, offset))
        if self.failures > 0:
            self.failures -= 1
            return _send_error(request, 503, "the boot handler is starting")
        if request.path not in self.bodies:
            return _send_error(request, 404, "unknown machine")
        body = self.bodies[request.path]
        if not self.ranges:
            offset = 0
        rest = body[offset:]
        request.send_response(206 if offset else 200)
        if offset:
            request.send_header("Content-Range", f"bytes {offset}-{len(body) - 1}/{len(body) + self.lie}")
        request.send_header("Content-Length", str(len(rest) + self.lie))
        request.end_headers()
        request.wfile.write(rest[: self.cut_after])
        self.failures, self.failures_after_cut = self.failures_after_cut, 0
        return None


def _send_error(request: BaseHTTPRequestHandler, status: int, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on the loopback address."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def do_POST(self) -> None:
            state.posts.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()
