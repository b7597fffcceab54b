"""A lab whose provisioner and target are two real SSH servers of this host, on loopback addresses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts import document
from contracts.arch import Arch
from contracts.machine import VmDefinition
from lab import processes, provisioner, ssh
from lab.addresses import choose_port
from lab.keys import KeyPair, ensure_key_pair, make_key
from lab.lab import Lab
from lab.processes import ProcessRecord
from lab.provisioner_record import ProvisionerRecord
from lab.ssh_config import ProvisionerAccess
from lab.store import DefinitionStore
from pipeline.run import Popen, require_program, spawn
from pipeline.workspace import Cache, Home, Workspace

TARGET_IP = "127.77.0.2"  # all of 127/8 is this host
MUTE_IP = "127.77.0.3"

StartServer = Callable[..., None]
MarkRunning = Callable[[str], None]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab with keys and one target, in a home whose path is full of traps."""
    if os.geteuid() != 0:
        pytest.skip("only root may listen on port 22 and log in as root")
    home = tmp_path / 'a home\'s "100%h" $HOME'
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(home)))
    lab.ensure_folders()
    key = ssh.lab_key(lab)
    ensure_key_pair(home / "config/ssh_host_ed25519_key", comment="provisioner")
    DefinitionStore(lab).write(
        VmDefinition(
            name="web1", arch=Arch.X86_64, distro="debian-12", mac="52:54:00:00:00:01", ip=TARGET_IP, user="root",
            uuid="00000000-0000-4000-8000-000000000001", ssh_authorized_keys=(key.read_public(),),
            ssh_host_key=make_key("web1", scratch=home / "ssh"),
        )
    )  # fmt: skip
    record = ProvisionerRecord(uuid="00000000-0000-4000-8000-000000000002", ssh_port=choose_port(None))
    (home / "disks/provisioner.json").write_text(document.dumps(record))
    ssh.write_files(lab, provisioner.find_access(lab))
    return lab


@pytest.fixture
def start_server(lab: Lab, tmp_path: Path) -> Iterator[StartServer]:
    """Start an SSH server with a host key (its own text) that lets the lab's key in."""
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's, usually made by its service
    servers: list[Popen[bytes]] = []

    def start(ip: str, port: int, host_key: str) -> None:
        folder = tmp_path / f"sshd-{ip}-{port}"
        folder.mkdir()
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text(host_key)
        (folder / "authorized_keys").write_text(ssh.lab_key(lab).read_public() + "\n")
        (folder / "config").write_text(
            f"ListenAddress {ip}:{port}\nHostKey {folder}/key\nAuthorizedKeysFile {folder}/authorized_keys\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "Subsystem sftp internal-sftp\n"
        )
        argv: list[str | Path] = [require_program("sshd"), "-D", "-e", "-f", folder / "config"]
        with (folder / "log").open("wb") as log:
            servers.append(spawn(argv, stderr=log))
        _wait_until_it_listens(ip, port, folder / "log")

    yield start
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=10)


@pytest.fixture
def mark_running(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> MarkRunning:
    """Have a machine count as running: its record names the process that runs the tests, and nobody asks its QEMU."""
    monkeypatch.setattr("lab.watch.answers", lambda _machine: True)

    def mark(name: str) -> None:
        pid = os.getpid()
        record = ProcessRecord(token=processes._arguments(pid)[0], pid=pid, start_time=processes._start_time(pid))
        processes.write_record(lab.home.run / f"{name}.json", record)

    return mark


@pytest.fixture
def provisioner_port(lab: Lab) -> int:
    """Where the lab believes its provisioner's SSH server is."""
    access = provisioner.find_access(lab)
    assert isinstance(access, ProvisionerAccess)
    return access.port


@pytest.fixture
def provisioner_key(lab: Lab) -> str:
    """The private host key of the lab's provisioner."""
    return KeyPair(lab.home.config / "ssh_host_ed25519_key").private.read_text()


def _wait_until_it_listens(ip: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((ip, port), timeout=1):
            return
        time.sleep(0.02)
    pytest.fail(f"sshd does not listen on {ip}:{port}: {log.read_text()}")
