"""The real services on a private network made of two network namespaces, or on loopback where that is not permitted."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import http.client
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn

from contracts import document
from contracts.lan import Lan
from pipeline.errors import PvmlabError
from pipeline.run import Popen, run, spawn
from pipeline.workspace import REPOSITORY
from pxeboot_stack import services
from pxeboot_stack.boot_handler.app import create_app
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import HostShares, RunFiles
from tests.fakes.lab_files import make_settings, write_artifacts

T = TypeVar("T")
CLIENT = "cli0"
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


@dataclasses.dataclass(frozen=True)
class Front:
    """nginx and the boot handler on loopback. :ivar address: nginx's ``host:port``."""

    address: str
    settings: Settings

    def ask(self, path: str, **more: Any) -> Reply:
        return request(self.address, path, **more)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """The real application in uvicorn, behind a real nginx with our configuration."""
    lan = Lan(subnet="127.0.0.0/24")  # all of it is this machine: clients can have addresses of their own
    shares, files = HostShares(tmp_path / "host"), RunFiles(tmp_path / "run")
    settings = make_settings(shares.root, lan)
    write_artifacts(settings)
    with contextlib.ExitStack() as stack:
        handler = stack.enter_context(_uvicorn(settings))
        address = f"127.0.0.1:{_free_port()}"
        files.nginx.mkdir(parents=True)
        user = "root" if os.geteuid() == 0 else "www-data"  # the temporary directory is ours only
        files.nginx_conf.write_text(services.render_nginx(shares, files, listen=address, handler=handler, user=user))
        log = stack.enter_context((tmp_path / "nginx.log").open("wb"))
        nginx = spawn(services.nginx_command(files), stdout=log, stderr=log)
        stack.callback(end, nginx)
        wait_for("nginx answers", lambda: request(address, "/boot.ipxe").status == 200)
        yield Front(address, settings)


@contextlib.contextmanager
def _uvicorn(settings: Settings) -> Iterator[str]:
    port = _free_port()
    config = uvicorn.Config(
        create_app(settings),
        host="127.0.0.1",
        port=port,
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for("uvicorn answers", lambda: server.started)
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=PATIENCE)


class Inside:
    """Calls functions inside a network namespace, in a thread that stays there."""

    def __init__(self, namespace: str) -> None:
        self._pool = ThreadPoolExecutor(1, initializer=_enter, initargs=(namespace,))

    def call(self, function: Callable[..., T], *arguments: Any, **more: Any) -> T:
        return self._pool.submit(function, *arguments, **more).result(timeout=PATIENCE)

    def ask(self, path: str, **more: Any) -> Reply:
        return self.call(request, "192.168.100.1:80", path, **more)

    def close(self) -> None:
        self._pool.shutdown()


def _enter(namespace: str) -> None:
    with Path(f"/run/netns/{namespace}").open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


@dataclasses.dataclass(frozen=True)
class Stack:
    """All services as in the container, on a network of their own.

    :ivar client: the other end of the network, with the addresses .11 and .12.
    """

    process: Popen[bytes]
    settings: Settings
    files: RunFiles
    client: Inside
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    def find_pid(self, service: str) -> int:
        """Return the process id of a service, as the supervisor logged it last."""
        words = [line.split() for line in self.text.splitlines() if f" {service} started as process " in line]
        return int(words[-1][-1])


@pytest.fixture
def network() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable: ``lan0`` with .1 here, ``cli0`` with .11 and .12 there."""
    here, there = (f"pvmlab-{secrets.token_hex(3)}-{end}" for end in ("lan", "cli"))
    with contextlib.ExitStack() as stack:
        try:
            for name in (here, there):
                run(["ip", "netns", "add", name], timeout=10)
                stack.callback(run, ["ip", "netns", "delete", name], timeout=10)
            run(["ip", "link", "add", "lan0", "netns", here, "type", "veth",
                 "peer", "name", CLIENT, "netns", there], timeout=10)  # fmt: skip
        except PvmlabError as error:
            pytest.skip(f"no network namespaces here: {error.brief}: {error.details.splitlines()[-1:]}")
        for name, interface, last in ((here, "lan0", 1), (there, CLIENT, 11), (there, CLIENT, 12)):
            run(["ip", "-n", name, "address", "add", f"192.168.100.{last}/24", "dev", interface], timeout=10)
            run(["ip", "-n", name, "link", "set", interface, "up"], timeout=10)
            run(["ip", "-n", name, "link", "set", "lo", "up"], timeout=10)
        yield here, there


@pytest.fixture
def stack(network: tuple[str, str]) -> Iterator[Stack]:
    """The container's entry point with all services running."""
    # Not below pytest's directory: every pytest that starts makes that 0700, and dnsmasq and nginx give up root.
    with tempfile.TemporaryDirectory(prefix="pvmlab-stack-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        with _running_stack(root, network) as made:
            yield made


@contextlib.contextmanager
def _running_stack(root: Path, network: tuple[str, str]) -> Iterator[Stack]:
    shares, files, ipxe = HostShares(root / "host"), RunFiles(root / "run"), root / "ipxe"
    settings = make_settings(shares.root)
    write_artifacts(settings)
    for path in (shares.lab.parent, ipxe):
        path.mkdir()
    shares.lab.write_text(document.dumps(settings.lan))
    shares.boot_id.write_text("0123456789abcdef\n")
    (ipxe / "ipxe-x86_64.efi").write_bytes(bytes(range(256)) * 4096)  # 1 MiB
    env = {"PYTHONPATH": str(REPOSITORY), "PVMLAB_HOST_DIR": str(shares.root), "PVMLAB_RUN_DIR": str(files.root),
           "PVMLAB_IPXE_DIR": str(ipxe)}  # fmt: skip
    log = root / "stack.log"
    client = Inside(network[1])
    with contextlib.ExitStack() as undo, log.open("ab") as sink:
        undo.callback(client.close)
        argv = ["ip", "netns", "exec", network[0], sys.executable, "-m", "pxeboot_stack"]
        process = spawn(argv, env=env, stdout=sink, stderr=sink)
        undo.callback(end, process)
        made = Stack(process, settings, files, client, log)
        wait_for("the services answer", lambda: client.ask("/healthz").status == 200)
        wait_for("dnsmasq runs", files.dnsmasq_pid.exists)
        yield made


def end(process: Popen[bytes]) -> None:
    """End a process, politely and then by force."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(Exception):
            process.wait(timeout=5)
    if process.poll() is None:
        process.kill()
        process.wait(timeout=5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
