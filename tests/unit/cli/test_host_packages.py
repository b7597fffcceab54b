"""What the host must have, and what each package manager calls it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.host_packages import NEEDS, Manager, Need, find_manager, needs_here, unmet

NOTHING = {Manager.APT: "x"}


@pytest.mark.parametrize(
    ("os_release", "manager"),
    [
        ('ID=debian\nVERSION_ID="12"\n', Manager.APT),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", Manager.APT),
        ("ID=fedora\n", Manager.DNF),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', Manager.DNF),
        ("ID=arch\n", Manager.PACMAN),
        ("ID=manjaro\nID_LIKE=arch\n", Manager.PACMAN),
    ],
)
def test_the_manager_follows_os_release(os_release: str, manager: Manager) -> None:
    assert find_manager(os_release) is manager


def test_an_unknown_system_is_known_by_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.host_packages.find_program", lambda name: "/x/brew" if name == "brew" else None)
    assert find_manager("") is Manager.BREW
    monkeypatch.setattr("cli.host_packages.find_program", lambda name: None)
    assert find_manager("ID=other") is None


def test_each_manager_is_told_what_it_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Manager.APT.advice(["a", "b"]) == "sudo apt-get install --no-install-recommends --yes a b"
    assert Manager.DNF.advice(["a"]) == "sudo dnf install --setopt=install_weak_deps=False --assumeyes a"
    assert Manager.PACMAN.advice(["a"]) == "sudo pacman --sync --needed a"
    assert Manager.BREW.advice(["a"]) == "brew install a"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Manager.DNF.advice(["a"]).startswith("dnf install")


def test_a_missing_program_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    need = Need(name="n", why="w", programs=("pvmlab-no-such-program", "sh"), packages=NOTHING)
    assert need.problem() == "pvmlab-no-such-program not installed"
    assert unmet([need]) == [(need, "pvmlab-no-such-program not installed")]
    (tmp_path / "pvmlab-no-such-program").touch(mode=0o755)
    assert need.problem() is None


def test_one_of_several_files_is_enough(tmp_path: Path) -> None:
    need = Need(name="n", why="w", files=(str(tmp_path / "a"), str(tmp_path / "b")), packages=NOTHING)
    assert need.problem() == f"no file {tmp_path}/a or {tmp_path}/b"
    (tmp_path / "b").touch()
    assert need.problem() is None


@pytest.mark.parametrize(
    ("found", "problem"), [((5, 2), "sh is version 5.2, 7.2 is needed"), ((10, 0), None), (None, None)]
)
def test_a_program_that_is_too_old_is_noticed(
    monkeypatch: pytest.MonkeyPatch, found: tuple[int, int] | None, problem: str | None
) -> None:
    monkeypatch.setattr("cli.host_packages.program_version", lambda program: found)
    assert Need(name="n", why="w", programs=("sh",), oldest=(7, 2), packages=NOTHING).problem() == problem


def test_needs_of_tests_and_of_ordinary_users_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    names = {need.name for need in needs_here(for_tests=False)}
    assert "qemu" in names
    assert "uidmap" not in names
    assert "nginx" not in names
    assert {"nginx", "uidmap"} <= {need.name for need in needs_here(for_tests=True)}
    host_mode = {need.name for need in needs_here(for_tests=False, for_host_mode=True)}
    assert host_mode - names == {"dnsmasq", "nginx", "iproute2"}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "uidmap" in {need.name for need in needs_here(for_tests=False)}


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.name)
def test_every_need_can_be_met_on_debian(need: Need) -> None:
    assert Manager.APT in need.packages
    assert need.programs or need.files, "nothing to look for"
