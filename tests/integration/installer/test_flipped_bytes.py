"""A real root filesystem through a real proxy that changes one bit of it on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from contracts.install import PayloadSource
from installer.download import download
from installer.errors import InstallError
from tests.integration.installer.conftest import Server

BODY = random.Random(3).randbytes(300_000)


@dataclasses.dataclass
class Proxy:
    """:ivar flip: which byte of the next answer's body is changed, None for none. :ivar bit: which bit of it."""

    port: int
    flip: int | None = None
    bit: int = 0


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy in front of *server*: it hands on one connection after the other."""
    upstream = int(server.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        state = Proxy(listener.getsockname()[1])
        thread = threading.Thread(target=hand_on, args=(listener, upstream, state))
        thread.start()
        yield state
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def hand_on(listener: socket.socket, upstream: int, state: Proxy) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", upstream), timeout=10) as there:
                client.settimeout(10)
                there.sendall(client.recv(65536))
                answer = bytearray()
                while piece := there.recv(65536):
                    answer += piece
                if state.flip is not None:
                    answer[answer.index(b"\r\n\r\n") + 4 + state.flip] ^= 1 << state.bit
                client.sendall(answer)


def test_one_changed_bit_anywhere_is_refused(server: Server, proxy: Proxy) -> None:
    server.bodies["/rootfs"] = BODY
    source = PayloadSource(
        url=f"http://127.0.0.1:{proxy.port}/rootfs", sha256=hashlib.sha256(BODY).hexdigest(), size=len(BODY)
    )
    taken = bytearray()
    download(source, what="the root filesystem", write=taken.extend, on_progress=lambda _: None)
    assert taken == BODY
    chance = random.Random(4)
    for flip in (0, len(BODY) - 1, *(chance.randrange(len(BODY)) for _ in range(48))):
        proxy.flip, proxy.bit = flip, chance.randrange(8)
        with pytest.raises(InstallError, match="the root filesystem is not the one promised") as caught:
            download(source, what="the root filesystem", write=lambda _: None, on_progress=lambda _: None)
        assert caught.value.lines[0] == f"expected sha256 {source.sha256}"
