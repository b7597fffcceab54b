"""A lab in a temporary home, in which machines can be made to seem running without starting anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts import document
from contracts.arch import Arch
from contracts.machine import SshHostKey, VmDefinition
from contracts.report import MachineStatus
from lab import processes
from lab.lab import Lab
from lab.processes import ProcessRecord
from lab.store import DefinitionStore
from pipeline.commit import publish_text
from pipeline.workspace import Cache, Home, Workspace

HOST_KEY = SshHostKey(
    private="-----BEGIN OPENSSH PRIVATE KEY-----\nfake\n-----END OPENSSH PRIVATE KEY-----\n",
    public="ssh-ed25519 AAAAhost comment",
)
USER_KEY = "ssh-ed25519 AAAAuser pvmlab"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty lab with its folders."""
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    lab.ensure_folders()
    return lab


@pytest.fixture
def host_key() -> SshHostKey:
    """A host key that only looks like one."""
    return HOST_KEY


@pytest.fixture
def make_definition(lab: Lab) -> Callable[..., VmDefinition]:
    """Write the definition of a machine and return it."""

    def make(
        name: str = "web1", *, ip: str = "192.168.100.2", mac: str = "52:54:00:00:00:01", **more: Any
    ) -> VmDefinition:
        definition = VmDefinition(
            name=name, arch=Arch.X86_64, distro="debian-12", mac=mac, ip=ip,
            uuid=f"00000000-0000-4000-8000-{mac.replace(':', '')}",
            ssh_authorized_keys=(USER_KEY,), ssh_host_key=HOST_KEY, **more,
        )  # fmt: skip
        DefinitionStore(lab).write(definition)
        return definition

    return make


@pytest.fixture
def mark_running(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a machine seem to run: its record names the process that runs the tests, and nobody asks its QEMU."""
    monkeypatch.setattr("lab.watch.answers", lambda _machine: True)

    def mark(name: str) -> None:
        pid = os.getpid()
        token = processes._arguments(pid)[0]
        start_time = processes._start_time(pid)
        processes.write_record(
            lab.home.run / f"{name}.json", ProcessRecord(token=token, pid=pid, start_time=start_time)
        )

    return mark


@pytest.fixture
def write_status(lab: Lab) -> Callable[[MachineStatus], None]:
    """Write an install status, as the boot handler does."""

    def write(status: MachineStatus) -> None:
        publish_text(lab.home.status / f"{status.name}.json", document.dumps(status))

    return write


@pytest.fixture
def announce(lab: Lab) -> Callable[..., None]:
    """Announce a state of the provisioner, as it does itself."""

    def write(state: str, *, boot_id: str = "abcd1234", message: str = "") -> None:
        publish_text(lab.home.config / "boot_id", "abcd1234\n")
        text = f'{{"boot_id": "{boot_id}", "state": "{state}", "message": "{message}", "time": 1}}'
        publish_text(lab.home.status / "provisioner.json", text)

    return write


class RecordingReporter:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[tuple[str, int | None]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, text: str, percent: int | None = None) -> None:
        self.shown.append((text, percent))


@pytest.fixture
def reporter() -> RecordingReporter:
    """A reporter that keeps what it was told."""
    return RecordingReporter()
