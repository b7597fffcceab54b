"""``vm.create``: from words to what is asked of the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli import machine_verbs
from cli.machine_options import HardwareWords
from contracts.machine import AnswerFile, Installer
from lab import target
from lab.lab import Lab
from lab.store import MachineRequest
from pipeline.errors import NotFoundError, UsageError
from tests.fakes.lab_files import make_machine

DEFAULTS: dict[str, Any] = {
    "distro": "debian-13", "arch": "x86_64", "hardware": HardwareWords(),
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[MachineRequest]:
    """The list gets what is asked for."""
    requests: list[MachineRequest] = []

    def create(_lab: Lab, request: MachineRequest, *, check: object) -> object:
        assert callable(check)
        requests.append(request)
        return make_machine()

    monkeypatch.setattr(target, "create", create)
    monkeypatch.setattr(Lab, "from_environment", classmethod(lambda _: None))
    return requests


def test_by_default_pvmlab_installs(asked: list[MachineRequest]) -> None:
    machine_verbs.create("web1", **DEFAULTS)
    machine_verbs.create("web1", **DEFAULTS, installer="pvmlab")
    assert [(request.installer, request.answers) for request in asked] == [(Installer.PVMLAB, None)] * 2


def test_native_is_the_familys(asked: list[MachineRequest]) -> None:
    machine_verbs.create("web1", **DEFAULTS, installer="native")
    assert (asked[0].installer, asked[0].answers) == (Installer.PRESEED, None)


@pytest.mark.parametrize("installer", ["", "native"])
def test_an_answer_file_means_native(asked: list[MachineRequest], tmp_path: Path, installer: str) -> None:
    (tmp_path / "my.cfg.j2").write_text("d-i a/b string {{ machine.name }}\n")
    machine_verbs.create("web1", **DEFAULTS, installer=installer, answer_file=str(tmp_path / "my.cfg.j2"))
    assert asked[0].installer is Installer.PRESEED
    assert asked[0].answers is not None
    assert asked[0].answers.kind is AnswerFile.TEMPLATE


def test_an_answer_file_for_pvmlabs_installer_is_refused(asked: list[MachineRequest], tmp_path: Path) -> None:
    (tmp_path / "my.cfg").write_text("d-i a/b string c\n")
    with pytest.raises(UsageError, match="--answer-file is for a distribution's own installer"):
        machine_verbs.create("web1", **DEFAULTS, installer="pvmlab", answer_file=str(tmp_path / "my.cfg"))
    assert not asked


def test_an_unknown_installer_is_refused(asked: list[MachineRequest]) -> None:
    with pytest.raises(UsageError, match="--installer 'preseed' is unknown"):
        machine_verbs.create("web1", **DEFAULTS, installer="preseed")


def test_an_answer_file_that_is_not_there_is_said(asked: list[MachineRequest], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="cannot be read"):
        machine_verbs.create("web1", **DEFAULTS, answer_file=str(tmp_path / "nothing"))


@pytest.mark.parametrize(("text", "warned"), [("#cloud-config\nautoinstall: {}\n", True), ("# report.sh\n", False)])
def test_an_autoinstall_file_that_tells_no_end_is_warned_of(
    asked: list[MachineRequest], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, warned: bool
) -> None:
    (tmp_path / "user-data").write_text(text)
    values = DEFAULTS | {"distro": "ubuntu-24.04"}
    machine_verbs.create("web1", **values, answer_file=str(tmp_path / "user-data"))
    told = capsys.readouterr()
    assert ("does not seem to report its end" in told.out + told.err) is warned
