"""The real services on a private network made of two network namespaces, or on loopback where that is not permitted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from contracts import document
from contracts.lan import Lan
from pipeline.run import Popen, spawn
from pipeline.workspace import REPOSITORY
from pxeboot_stack import services
from pxeboot_stack.boot_handler.app import create_app
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import HostShares, RunFiles
from tests.fakes.lab_files import make_settings, write_artifacts
from tests.fakes.namespaces import Inside, joined_namespaces
from tests.fakes.supervisor_log import find_last_pid
from tests.fakes.web_client import PATIENCE, Reply, end, find_free_port, request, wait_for


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
    settings = make_settings(shares.root, lan, files)
    write_artifacts(settings)
    with contextlib.ExitStack() as stack:
        handler = stack.enter_context(_uvicorn(settings))
        address = f"127.0.0.1:{find_free_port()}"
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
    port = find_free_port()
    config = uvicorn.Config(
        create_app(settings),
        host="127.0.0.1",
        port=port,
        lifespan="on",
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


SERVICES = ("dnsmasq", "nginx", "boot_handler", "watcher", "health")


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
    start: Callable[[], Popen[bytes]]

    @property
    def text(self) -> str:
        return self.log.read_text()

    def find_pid(self, service: str) -> int:
        """Return the process id of a service, as the supervisor logged it last."""
        return find_last_pid(self.text, service)

    def restart_after_crash(self) -> Stack:
        """End all processes at once, as the end of the machine that they run on does, and start them afresh."""
        services = [self.find_pid(name) for name in SERVICES]
        os.kill(self.process.pid, signal.SIGKILL)
        for pid in services:
            os.killpg(pid, signal.SIGKILL)  # nginx's worker outlives its master
        self.process.wait(timeout=5)
        shutil.rmtree(self.files.root)  # it is in the memory of that machine
        self.log.write_bytes(b"")  # it is opened for appending
        again = dataclasses.replace(self, process=self.start())
        _wait_for_services(again)
        return again


@pytest.fixture
def network() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable: ``lan0`` with .1 here, ``cli0`` with .11 and .12 there."""
    with joined_namespaces() as names:
        yield names


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

        def start() -> Popen[bytes]:
            process = spawn(argv, env=env, stdout=sink, stderr=sink)
            undo.callback(end, process)
            return process

        made = Stack(start(), settings, files, client, log, start)
        _wait_for_services(made)
        yield made


def _wait_for_services(stack: Stack) -> None:
    wait_for("the services answer", lambda: stack.client.ask("/healthz").status == 200)
    wait_for("dnsmasq runs", stack.files.dnsmasq_pid.exists)
