"""``vm.set``: what is said and refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cli.machine_changes import change
from contracts.machine import Label
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.errors import UsageError
from tests.fakes.lab_files import make_machine


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The lab that the verbs find, with the machine web1."""
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path_factory.mktemp("home")))
    lab = Lab.from_environment()
    lab.ensure_folders()
    DefinitionStore(lab).write(make_machine())
    return lab


def test_what_the_machine_has_then_is_said(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    change("web1", cpus="3", memory="2G", labels=["role=db", "a="])
    assert capsys.readouterr().err == "web1: 3 cpus, 2048 MiB of memory, labels a= role=db\n"
    assert DefinitionStore(lab).load("web1").labels == (Label(key="a", value=""), Label(key="role", value="db"))


@pytest.mark.parametrize(("words", "waits"), [({"cpus": "3"}, True), ({"labels": ["a=b"]}, False)])
def test_a_machine_that_runs_gets_its_hardware_later(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: dict[str, str], waits: bool
) -> None:
    monkeypatch.setattr("lab.machine.Machine.is_running", lambda _: True)
    values: dict[str, object] = {"cpus": "", "memory": "", "labels": [], **words}
    call: Callable[..., None] = change
    call("web1", **values)
    assert ("web1 runs: it has them after its next start" in capsys.readouterr().err) is waits


@pytest.mark.parametrize(
    ("cpus", "memory", "message"),
    [
        ("", "", "nothing of web1 is to be changed"),
        ("0", "", "cpus is 0"),
        ("-1", "", "--cpus '-1' is not a number"),
        ("\u0663", "", "is not a number"),
        ("", "some", "--memory 'some' is not a size"),
        ("", "1K", "is not a whole number of MiB"),
    ],
)
def test_what_makes_no_sense_is_refused(lab: Lab, cpus: str, memory: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        change("web1", cpus=cpus, memory=memory, labels=[])
