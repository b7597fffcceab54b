"""The verbs of living with machines, as far as they go without starting anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli import machine_life_verbs, machine_verbs
from lab import screenshots
from lab.lab import Lab
from lab.machine import Machine, MachineState
from lab.provisioner_record import ProvisionerMode
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, NotFoundError
from tests.fakes.lab_files import make_machine


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with the adopted machine web1."""
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    lab = Lab.from_environment()
    lab.ensure_folders()
    DefinitionStore(lab).write(make_machine(name="web1", managed=False))
    return lab


@pytest.mark.parametrize(
    "verb",
    [
        lambda name: machine_verbs.stop(name, timeout=1, force=False),
        lambda name: machine_life_verbs.restart(name, force=False, wait=False, stop_timeout=1, timeout=None),
        machine_life_verbs.sit_at_console,
        lambda name: machine_life_verbs.take_screenshot(name, file="", output="table"),
    ],
)
def test_nothing_is_said_of_the_power_of_an_adopted_machine(lab: Lab, verb: Callable[[str], None]) -> None:
    with pytest.raises(ConflictError, match="web1 was adopted"):
        verb("web1")
    with pytest.raises(NotFoundError, match="there is no machine 'web2'"):
        verb("web2")


def test_an_adopted_machine_is_entered_as_soon_as_the_provisioner_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConflictError, match="provisioner is off"):
        machine_verbs.shell("web1", "true")
    states = {"provisioner": MachineState.RUNNING}  # of an adopted machine, nobody asks
    monkeypatch.setattr("lab.watch.look", lambda machine: states[machine.name])
    monkeypatch.setattr("lab.ssh.shell", lambda _lab, name, command: 7 if (name, command) == ("web1", "true") else 1)
    assert machine_verbs.shell("web1", "true") == 7


def test_a_machine_with_a_broken_definition_can_be_stopped(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    DefinitionStore(lab).path("web1").write_text("{")
    machine_verbs.stop("web1", timeout=0, force=True)
    assert "web1: already off" in capsys.readouterr().err


def test_host_mode_has_no_screen(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.lab.find_mode", lambda _home: ProvisionerMode.HOST)
    with pytest.raises(ConflictError, match="is no machine: its services run on this host"):
        machine_life_verbs.take_screenshot("provisioner", file="", output="table")


def test_a_picture_for_somebody_unknown_is_a_file_of_that_name(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    DefinitionStore(lab).write(make_machine(name="web1"))
    written: list[Path] = []

    def take(_machine: Machine, path: Path) -> tuple[int, int]:
        written.append(path)
        return 1, 1

    monkeypatch.setattr(screenshots, "take_screenshot", take)
    machine_life_verbs.take_screenshot("web1", file="~no-such-user/x.png", output="table")
    assert written == [Path("~no-such-user/x.png")]
