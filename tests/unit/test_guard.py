"""The guard of the unit tests refuses what it is there to refuse."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess  # noqa: TID251 (to see it refused)
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


async def _start_asyncio_process() -> None:
    await asyncio.create_subprocess_exec("true")


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run(["true"], check=True),
        lambda: os.system("true"),  # noqa: S605, TID251
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
        os.fork,
        lambda: asyncio.run(_start_asyncio_process()),
    ],
    ids=["subprocess", "system", "posix_spawn", "exec", "fork", "asyncio"],
)
def test_processes_are_refused(start: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="may not start a process"):
        start()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_connections_are_refused(family: socket.AddressFamily) -> None:
    address = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.socket(family) as client, pytest.raises(pytest.fail.Exception, match="may not use the network"):
        client.connect((address, 9))
    with socket.socket(family) as server, pytest.raises(pytest.fail.Exception, match="may not use the network"):
        server.bind((address, 0))


def test_names_are_not_looked_up() -> None:
    with pytest.raises(pytest.fail.Exception, match="may not use the network"):
        socket.getaddrinfo("localhost", 80)


@pytest.mark.skipif(sys.platform != "linux", reason="short paths only")
def test_unix_sockets_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("s")
        server.listen()
        client.connect("s")
