"""Set-up on a fake host: apt-get, sudo and systemctl are scripts that write down how they were called."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cli import setup as cli_setup
from cli.host_packages import Manager, Need
from cli.setup import setup
from pipeline.errors import CommandError, PrerequisiteError
from pipeline.workspace import REPOSITORY

INSTALL = "apt-get --option=DPkg::Lock::Timeout=600 install --no-install-recommends --yes"
UPDATE = "apt-get --option=DPkg::Lock::Timeout=600 update"
TOOL = Need(name="tool", why="does it", programs=("pvmlab-tool",), packages={Manager.APT: "pvmlab-tool"})
SERVICE = Need(
    name="service", why="serves", programs=("pvmlab-served",), packages={Manager.APT: "pvmlab-served"},
    services=("served.service", "not-in-this-release.service"),
)  # fmt: skip


class Host:
    """A fake host.

    :ivar policy: where it would have its policy-rc.d.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin = folder / "bin"
        self.policy = folder / "policy-rc.d"
        self._monkeypatch = monkeypatch
        shutil.copytree(REPOSITORY / "tests/fakes/host", self.bin)
        (folder / "units").mkdir()
        (folder / "units/served.service").touch()
        (folder / "lists").mkdir()
        (folder / "lists/debian_InRelease").touch()
        monkeypatch.setenv("PATH", f"{self.bin}:{os.environ['PATH']}")
        monkeypatch.setattr(cli_setup, "_POLICY", self.policy)
        monkeypatch.setattr(cli_setup, "_UNITS", folder / "units")
        monkeypatch.setattr(cli_setup, "_LISTS", folder / "lists")
        monkeypatch.setattr(cli_setup, "find_manager", lambda: Manager.APT)
        self.be_user(0)

    def needs(self, *needs: Need) -> None:
        """Let these be all that is needed."""
        self._monkeypatch.setattr(cli_setup, "needs_here", lambda **_: list(needs))

    def be_user(self, uid: int) -> None:
        """Let us be another user, as far as set-up knows."""
        self._monkeypatch.setattr(os, "geteuid", lambda: uid)

    def calls(self) -> list[str]:
        """Return what was called."""
        path = self.bin / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_nothing_missing_is_silent(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.needs(Need(name="sh", why="w", programs=("sh",), packages={}))
    setup(for_tests=False)
    assert host.calls() == []
    assert capsys.readouterr() == ("", "")


def test_root_installs_after_saying_what_and_why(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.needs(TOOL)
    setup(for_tests=False)
    assert host.calls() == [f"{INSTALL} pvmlab-tool"]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "missing on this host:",
        "  tool (does it): pvmlab-tool not installed",
        "installing: pvmlab-tool",
        "the host has all that is needed",
    ]
    setup(for_tests=False)
    assert host.calls() == [f"{INSTALL} pvmlab-tool"], "the second time there is nothing to do"


def test_a_host_without_lists_is_updated_first(host: Host) -> None:
    host.needs(TOOL)
    (host.bin / "no-lists").touch()
    setup(for_tests=False)
    assert host.calls() == [f"{INSTALL} pvmlab-tool", UPDATE, f"{INSTALL} pvmlab-tool"]


def test_lists_are_fetched_even_if_no_package_is_missing(host: Host, tmp_path: Path) -> None:
    host.needs()
    (tmp_path / "lists/debian_InRelease").unlink()
    setup(for_tests=False)
    assert host.calls() == [UPDATE]


def test_services_are_neither_started_nor_enabled(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.needs(SERVICE)
    apt = host.bin / "apt-get"  # writes down what a maintainer script would be told
    apt.write_text(
        apt.read_text().replace("install | -*", f'install | -*) sh {host.policy}; echo "$?" >>"$here/policy" ;; x')
    )
    setup(for_tests=True)
    assert (host.bin / "policy").read_text().split() == ["101"] * 4
    assert host.calls() == [f"{INSTALL} pvmlab-served", "systemctl --quiet disable served.service"]
    assert not host.policy.exists(), "only there during the installation"
    assert "their services stay off" in capsys.readouterr().err


def test_an_administrators_policy_stays(host: Host) -> None:
    host.needs(SERVICE)
    host.policy.write_text("#!/bin/sh\nexit 0\n")
    setup(for_tests=True)
    assert host.policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_a_policy_left_by_a_killed_setup_goes(host: Host) -> None:
    host.needs(SERVICE)
    shutil.copy(REPOSITORY / "cli/policy-rc.d", host.policy)
    setup(for_tests=True)
    assert not host.policy.exists()


def test_a_failed_installation_leaves_no_policy(host: Host) -> None:
    host.needs(SERVICE)
    (host.bin / "apt-get").write_text("#!/bin/sh\necho E: broken >&2\nexit 100\n")
    with pytest.raises(CommandError) as caught:
        setup(for_tests=True)
    assert "E: broken" in caught.value.details
    assert not host.policy.exists()


def test_a_package_that_brings_nothing_is_noticed(host: Host) -> None:
    host.needs(Need(name="tool", why="does it", programs=("pvmlab-tool",), packages={Manager.APT: "broken-tool"}))
    with pytest.raises(PrerequisiteError, match="something is still missing"):
        setup(for_tests=False)


def test_an_ordinary_user_goes_through_sudo(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.needs(TOOL)
    host.be_user(1000)
    setup(for_tests=False)
    assert host.calls()[-2:] == [
        f"sudo --non-interactive env DEBIAN_FRONTEND=noninteractive {INSTALL} pvmlab-tool",
        f"{INSTALL} pvmlab-tool",
    ]
    assert "installing with sudo: pvmlab-tool" in capsys.readouterr().err


def test_without_a_password_and_a_terminal_the_command_is_named(host: Host) -> None:
    host.needs(TOOL)
    host.be_user(1000)
    (host.bin / "sudo-asks").touch()
    with pytest.raises(PrerequisiteError) as caught:
        setup(for_tests=False)
    assert caught.value.resolution == "as root: apt-get install --no-install-recommends --yes pvmlab-tool"
    assert not any(call.startswith("apt-get") for call in host.calls())


def test_another_system_is_told_its_own_command(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_setup, "find_manager", lambda: Manager.DNF)
    known = Need(name="k", why="w", programs=("pvmlab-k",), packages={Manager.DNF: "k-package"})
    host.needs(known, TOOL)
    with pytest.raises(PrerequisiteError) as caught:
        setup(for_tests=False)
    assert caught.value.resolution == (
        "dnf install --setopt=install_weak_deps=False --assumeyes k-package; dnf has no package for tool"
    )
    assert caught.value.exit_code == 5
    assert host.calls() == []


def test_an_unknown_system_is_told_what_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_setup, "find_manager", lambda: None)
    host.needs(TOOL)
    with pytest.raises(PrerequisiteError) as caught:
        setup(for_tests=False)
    assert "pvmlab-tool not installed" in caught.value.details
