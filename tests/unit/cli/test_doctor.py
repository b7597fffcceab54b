"""The doctor's findings: each is made to be bad once, and names its repair."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from cli import doctor
from cli.doctor import GIB, State
from cli.host_packages import Manager, Need
from pipeline.errors import ExitCode, MissingProgramError
from pipeline.workspace import Home


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    need = Need(name="n", why="does it", programs=("pvmlab-no-such-program",), packages={Manager.APT: "thing"})
    finding = doctor.examine_need(need, Manager.APT)
    assert finding.state is State.MISSING
    assert finding.found == "pvmlab-no-such-program not installed (does it)"
    assert finding.repair == "sudo apt-get install --no-install-recommends --yes thing"
    assert "by hand" in doctor.examine_need(need, Manager.BREW).repair


def test_what_only_tests_need_is_a_warning() -> None:
    need = Need(name="n", why="w", programs=("pvmlab-no-such-program",), packages={}, for_tests=True)
    assert doctor.examine_need(need, None).state is State.WARNING


def test_a_program_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.examine_need(Need(name="n", why="w", programs=("sh",), packages={}), None)
    assert (finding.state, finding.repair) == (State.OK, "")
    assert finding.found.endswith("/sh")


@pytest.mark.parametrize(
    "text",
    [None, "", "other:100000:65536\n", "me:100000:100\n", "rubbish\n", "me:100000:many\n"],
    ids=["no file", "empty", "other", "few", "bad", "no number"],
)
def test_subordinate_ids_that_do_not_suffice(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "subuid").write_text(text)
        (tmp_path / "subgid").write_text("me:100000:65536\n")
    finding = doctor.examine_subordinate_ids("me", folder=tmp_path)
    assert finding.state is State.MISSING
    assert finding.repair == "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 me"


def test_subordinate_ids_that_suffice(tmp_path: Path) -> None:
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("me:100000:65536\n")
    assert doctor.examine_subordinate_ids("me", folder=tmp_path).state is State.OK


def test_a_user_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that was started for any user id."""
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    finding = doctor.examine_account(12345)
    assert (finding.name, finding.state) == ("account", State.MISSING)
    assert "useradd --uid 12345" in finding.repair


def test_a_place_that_may_not_be_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed = tmp_path / "closed"

    def refuse(path: Path) -> bool:
        if closed in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return path in (closed, tmp_path)

    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(Path, "is_dir", lambda path: path == closed)
    monkeypatch.setattr(os, "access", lambda *_: False)
    finding = doctor.examine_place("home", closed / "of/another", 1, variable="PVMLAB_HOME")
    assert (finding.state, finding.found) == (State.MISSING, f"{closed} is not a folder you may write to")
    assert doctor.exposed_folders(Home(closed / "of/another")) == []


def test_a_place_without_room(tmp_path: Path) -> None:
    finding = doctor.examine_place("cache", tmp_path / "not/yet", 10**9 * GIB, variable="PVMLAB_CACHE")
    assert finding.state is State.WARNING
    assert "PVMLAB_CACHE" in finding.repair
    assert not (tmp_path / "not").exists(), "doctor changes nothing"


def test_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = doctor.examine_place("home", tmp_path / "file", 1, variable="PVMLAB_HOME")
    assert finding.state is State.MISSING
    assert "PVMLAB_HOME" in finding.repair


def test_a_place_with_room(tmp_path: Path) -> None:
    assert doctor.examine_place("home", tmp_path, 1, variable="PVMLAB_HOME").state is State.OK


@pytest.mark.parametrize(("kib", "state"), [(1024, State.WARNING), (8 * 1024**2, State.OK)])
def test_memory(tmp_path: Path, kib: int, state: State) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {kib} kB\n")
    assert doctor.examine_memory(tmp_path / "meminfo").state is state


def test_namespaces_cannot_be_tried_without_unshare(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(argv: list[str], **_: object) -> NoReturn:
        raise MissingProgramError(argv[0])

    monkeypatch.setattr(doctor, "run", refuse)
    finding = doctor.examine_user_namespace()
    assert (finding.state, finding.found) == (State.MISSING, "the program 'unshare' is not installed")


def test_loopback_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: object) -> NoReturn:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", refuse)
    finding = doctor.examine_loopback()
    assert finding.state is State.MISSING
    assert finding.repair == "sudo ip link set lo up"


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.OK, ExitCode.DONE), (State.WARNING, ExitCode.DONE), (State.MISSING, ExitCode.PREREQUISITE)],
)
def test_the_exit_code_says_whether_the_lab_can_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: State, code: ExitCode
) -> None:
    monkeypatch.setattr(
        doctor, "examine", lambda workspace: iter([doctor.Finding("thing", state, "found", "repair it")])
    )
    assert doctor.doctor(output="table") == code
    assert capsys.readouterr().out.splitlines()[1].split() == ["thing", state.value, "found", "repair", "it"]
