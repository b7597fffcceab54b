"""``vm.show`` for people: the whole text."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from cli import portrait_view
from cli.output import render_table
from contracts import document
from contracts.arch import Arch
from contracts.document import encode
from contracts.machine import Label, PortForward, SshHostKey, VmDefinition
from contracts.report import InstallState, MachineStatus, Phase
from contracts.timeline import Event
from lab import portrait, snapshot_store
from lab.lab import Lab
from lab.machine import MachineState
from lab.snapshot_store import Snapshot, SnapshotKind
from lab.store import DefinitionStore
from pipeline import commit
from pipeline.workspace import Cache, Home, Workspace

KEY = SshHostKey(
    private="-----BEGIN OPENSSH PRIVATE KEY-----\nTHE-SECRET\n-----END OPENSSH PRIVATE KEY-----\n",
    public="ssh-ed25519 AAAAhost comment",
)


@pytest.fixture
def lab(tmp_path: Any) -> Lab:
    """A lab with web1."""
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    lab.ensure_folders()
    definition = VmDefinition(
        name="web1", arch=Arch.X86_64, distro="debian-12", mac="52:54:00:00:00:01", ip="192.168.100.2",
        uuid="00000000-0000-4000-8000-000000000001", ssh_authorized_keys=("ssh-ed25519 AAAAuser lab",),
        ssh_host_key=KEY, labels=(Label(key="role", value="db"),), forwards=(PortForward(host=8080, guest=80),),
        tpm=True,
    )  # fmt: skip
    store = DefinitionStore(lab)
    store.write(definition)
    store.write_user_data("web1", "#cloud-config\n")
    commit.publish_text(
        lab.home.status / "web1.json",
        document.dumps(
            MachineStatus(
                name="web1", uuid=definition.uuid, state=InstallState.INSTALLING, phase=Phase.SYSTEM, percent=40,
                events=(Event(time=1000.0, text="system: unpacks"),),
            )
        ),
    )  # fmt: skip
    (lab.home.logs / "web1.log").touch()
    return lab


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have moments be told in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_utc")
def test_the_whole_page(lab: Lab) -> None:
    snapshot_store.write_record(
        lab.home,
        Snapshot(name="one", machine="web1", uuid="u", time=2000.0, kind=SnapshotKind.MEMORY, disks=(), comment="c"),
    )
    seen = portrait.portray(lab, "web1")
    assert render_table(portrait_view.render(seen, now=5000.0)) == (
        "WHAT          WEB1\n"
        "state         off\n"
        "system        debian-12, x86_64, from network, installer pvmlab\n"
        "hardware      2 cpus, 1024 MiB, uefi, TPM 2.0\n"
        "card 0        192.168.100.2; 52:54:00:00:00:01, virtio\n"
        "label         role=db\n"
        f"disk 0        {lab.home.disks}/web1.qcow2: its first start makes it\n"
        "snapshot one  1970-01-01 00:33:20, with memory; disks 0 B\n"
        "forward       127.0.0.1:8080 -> 80/tcp: off\n"
        "install       installing: system 40 %, 0 completed\n"
        "user-data     own, 14 bytes\n"
        "event         1970-01-01 00:16:40 system: unpacks\n"
        f"log           {lab.home.logs}/web1.log\n"
        "host key      ssh-ed25519 AAAAhost\n"
        "uuid          00000000-0000-4000-8000-000000000001\n"
        "log in        ./pvmlab vm.shell web1 (as lab)\n"
    )


def test_no_secret_is_in_it(lab: Lab) -> None:
    text = str(encode(portrait.portray(lab, "web1")))
    assert "THE-SECRET" not in text
    assert "AAAAuser" not in text
    assert "'cpus': 2" in text


@pytest.mark.usefixtures("in_utc")
def test_a_machine_that_runs_or_hangs(lab: Lab) -> None:
    seen = dataclasses.replace(
        portrait.portray(lab, "web1"),
        state=MachineState.STUCK,
        reason="its monitor did not answer",
        process=portrait.ProcessView(pid=7, started=1000.0, memory=3 << 29, qmp_socket="q", serial_socket="s"),
        disks=(portrait.DiskView(path="/d", bus="nvme", size=8 << 30, allocated=1 << 20, below=("/l/a", "/b")),),
        install=None,
    )
    rows = {what: text for what, text in portrait_view.render(seen, now=4661.0)}  # noqa: C416 (sequences of two)
    assert rows["state"] == "stuck: its monitor did not answer"
    assert rows["process"] == "7, since 1970-01-01 00:16:40 (1:01:01), 1.5 GiB of memory"
    assert rows["disk 0"] == "/d: 8.0 GiB, 1.0 MiB on this host, nvme, on a, b"
    assert "install" not in rows


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1 << 20, "1.0 MiB"), (300 << 20, "300 MiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert portrait_view.size(count) == text


def test_snapshots_are_described() -> None:
    describe: Callable[..., str] = lambda kind, memory: portrait_view.describe_snapshot(  # noqa: E731
        portrait.SnapshotView(name="a", time=0, kind=kind, disk_bytes=1 << 20, memory_bytes=memory, comment="")
    )
    assert describe("off", 0) == "of the machine off; disks 1.0 MiB"
    assert describe("memory", 1 << 30) == "with memory; disks 1.0 MiB, memory 1.0 GiB"
    assert describe("disk", 0) == "disks of the running machine; disks 1.0 MiB"
