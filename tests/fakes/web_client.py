"""A client of web servers that sends what it is told to, as it is; and how tests wait for servers and end them."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.run import Popen
from pxeboot_stack.boot_handler.write_behind import JOURNAL

PATIENCE = 20.0  # seconds for what takes a fraction of one on an idle machine


@dataclasses.dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    text: str
    headers: dict[str, str]


def request(
    server: str,
    path: str,
    *,
    method: str = "GET",
    source: str | None = None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """Ask *server* (``host:port``) from the address *source*. The path is sent as it is."""
    connection = http.client.HTTPConnection(server, timeout=10, source_address=(source, 0) if source else None)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, answer.read().decode(), {name.lower(): text for name, text in answer.getheaders()})


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Wait until *condition* holds; fail with what it last said."""
    deadline = time.monotonic() + PATIENCE
    last: object = None
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except OSError as error:
            last = error
        time.sleep(0.05)
    pytest.fail(f"{what}: not within {PATIENCE:g} s, last: {last}")


def wait_until_in_place(status: Path) -> None:
    """Wait until what the boot handler keeps in the directory *status* is in its files: a moment after its answer."""
    wait_for("what is kept is in place", lambda: not any(status.glob(f"{JOURNAL}*")))


def end(process: Popen[bytes], *, patience: float = 5) -> None:
    """End a process, politely and after *patience* seconds by force."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(Exception):
            process.wait(timeout=patience)
    if process.poll() is None:
        process.kill()
        process.wait(timeout=5)


def find_free_port() -> int:
    """Return a TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
