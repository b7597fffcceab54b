"""The mirror is the host's own."""

from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline import apt_sources
from pipeline.apt_sources import Mirror, host_mirror, parse_index_targets
from pipeline.errors import ExitCode, PrerequisiteError
from pipeline.mmdebstrap import PackageSet, mmdebstrap_arguments


def test_debian_entries_are_found_among_others() -> None:
    lines = [
        "Node|nodistro|http://other.invalid/node",
        "Debian|bookworm-updates|http://mirror.invalid/debian/",
        "Debian|bookworm|http://mirror.invalid/debian/",
        "Debian|bookworm-security|http://mirror.invalid/security/",
    ]
    assert parse_index_targets(lines) == Mirror("http://mirror.invalid/debian", "http://mirror.invalid/security")


def test_no_debian_entry_is_none() -> None:
    assert parse_index_targets(["Ubuntu|noble|http://mirror.invalid/ubuntu/"]) is None


def test_without_apt_and_without_the_variable_the_person_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PVMLAB_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr(apt_sources, "find_program", lambda name: None)
    with pytest.raises(PrerequisiteError) as caught:
        host_mirror()
    assert caught.value.exit_code is ExitCode.PREREQUISITE
    assert "PVMLAB_DEBIAN_MIRROR" in caught.value.resolution


def test_the_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_DEBIAN_MIRROR", "http://mine.invalid/debian")
    monkeypatch.setattr(apt_sources, "find_program", lambda name: None)
    assert host_mirror() == Mirror("http://mine.invalid/debian", None)


def test_the_whole_mmdebstrap_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(apt_sources, "_KEYRING", Path("/nonexistent"))
    mirror = Mirror(
        "http://m.invalid/debian", "http://m.invalid/security", ('Acquire::http::Proxy "http://p.invalid:1"',)
    )
    wanted = PackageSet(suite="trixie", arch=Arch.AARCH64, packages=("a", "b"), exclude=("/x/*",), customize="rm x")
    assert mmdebstrap_arguments(wanted, mirror) == [
        "mmdebstrap", "--mode=unshare", "--format=tar", "--variant=minbase", "--architectures=arm64", "--include=a,b",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/info/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/lintian/*", "--dpkgopt=path-exclude=/x/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::http::Proxy "http://p.invalid:1"', "--customize-hook=rm x", "trixie", "-",
        "deb http://m.invalid/debian trixie main", "deb http://m.invalid/debian trixie-updates main",
        "deb http://m.invalid/security trixie-security main",
    ]  # fmt: skip
