"""The mirror is the host's own."""

from pathlib import Path

import pytest

from pipeline.debian import apt_sources
from pipeline.debian.apt_sources import Mirror, host_mirror, parse_index_targets, parse_release_addresses
from pipeline.errors import ExitCode, PrerequisiteError


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


def test_a_security_archive_is_found_that_apt_has_no_list_of() -> None:
    addresses = """\
'http://mirror.invalid/debian/dists/bookworm/InRelease' mirror.invalid_debian_dists_bookworm_InRelease 0
'http://mirror.invalid/ubuntu/dists/noble-security/InRelease' mirror.invalid_ubuntu_dists_noble-security_InRelease 0
'http://mirror.invalid/security/dists/bookworm-security/InRelease' mirror.invalid_bookworm-security_InRelease 0
"""
    assert parse_release_addresses(addresses, ["bookworm"]) == "http://mirror.invalid/security"
    assert parse_release_addresses(addresses, ["trixie"]) is None


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


def test_the_sources_of_a_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_sources, "_KEYRING", Path("/nonexistent"))
    assert Mirror("http://m.invalid/debian", "http://m.invalid/security").source_lines("trixie") == [
        "deb http://m.invalid/debian trixie main", "deb http://m.invalid/debian trixie-updates main",
        "deb http://m.invalid/security trixie-security main",
    ]  # fmt: skip
