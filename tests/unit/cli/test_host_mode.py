from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cli import machine_verbs
from cli.builds import DoitArtifacts
from cli.lab_views import show_status
from contracts.arch import Arch
from contracts.machine import Installer
from lab import provisioner
from lab.lab import Lab
from lab.provisioner_record import ProvisionerMode, ProvisionerRecord, write_record
from pipeline.errors import UsageError
from pipeline.recipes import build


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what would be built."""
    tasks: list[str] = []

    def ensure(wanted: Sequence[str]) -> None:
        tasks.extend(wanted)

    monkeypatch.setattr(build, "ensure", ensure)
    return tasks


def test_host_mode_needs_boot_programs_and_no_machine(built: list[str]) -> None:
    DoitArtifacts(ProvisionerMode.HOST).ensure_for("debian-12", Arch.X86_64, Installer.PVMLAB)
    assert not [task for task in built if task.startswith(("provisioner:", "container:"))]
    assert {"ipxe:x86_64", "rootfs:debian-12:x86_64", "initrd:x86_64"} <= set(built)


def test_a_lab_in_host_mode_builds_accordingly(built: list[str]) -> None:
    lab = Lab.from_environment()
    write_record(lab.home, ProvisionerRecord(uuid="u", mode=ProvisionerMode.HOST))
    DoitArtifacts().ensure_provisioner()
    assert built
    assert all(task.startswith("ipxe:") for task in built)


def test_the_usual_mode_builds_the_machine(built: list[str]) -> None:
    DoitArtifacts().ensure_provisioner()
    assert built == ["provisioner:x86_64"]


def test_create_says_the_mode(
    built: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[ProvisionerMode | None] = []

    def create(lab: Lab, mode: ProvisionerMode | None, **_: object) -> bool:
        asked.append(mode)
        write_record(lab.home, ProvisionerRecord(uuid="u", mode=ProvisionerMode.HOST))
        return len(asked) == 1

    monkeypatch.setattr(provisioner, "create", create)
    machine_verbs.create_provisioner("host")
    machine_verbs.create_provisioner()
    assert asked == [ProvisionerMode.HOST, None]
    said = capsys.readouterr()
    assert "created the provisioner (host mode); ./pvmlab provisioner.start" in said.out + said.err
    assert "the provisioner (host mode) is there already" in said.out + said.err


def test_another_mode_is_refused(built: list[str]) -> None:
    with pytest.raises(UsageError, match="--mode 'cloud' is unknown"):
        machine_verbs.create_provisioner("cloud")
    assert built == []


def test_status_says_the_mode(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab.from_environment()
    write_record(lab.home, ProvisionerRecord(uuid="u", mode=ProvisionerMode.HOST))
    monkeypatch.setattr("cli.lab_views.artifact_states", dict)
    monkeypatch.setattr("lab.status._accelerator", lambda lab: "none")
    show_status(lab, output="table")
    assert "no services, 192.168.100.1, host mode" in capsys.readouterr().out
