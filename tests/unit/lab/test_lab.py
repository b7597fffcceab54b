from __future__ import annotations

from pathlib import Path

import pytest

from contracts.lan import Lan
from lab.addresses import derive_ipv6_subnet
from lab.lab import Lab
from pipeline.errors import ConflictError
from pipeline.workspace import Cache, Home, Workspace


def test_folders_with_secrets_are_closed_to_others(lab: Lab) -> None:
    for folder in (lab.home.run, lab.home.ssh, lab.home.config, lab.home.disks):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_identity_stays(lab: Lab) -> None:
    assert lab.identity() == lab.identity()
    assert len(lab.identity()) == 32


def test_network_is_the_default_until_it_is_set(lab: Lab) -> None:
    assert lab.lan == Lan(ipv6_subnet=derive_ipv6_subnet(lab.identity()))


def test_looking_at_the_network_of_a_lab_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    other = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "none")))
    assert other.lan == Lan()
    assert not (tmp_path / "none").exists()


def test_network_of_older_settings_stays_without_ipv6(lab: Lab) -> None:
    (lab.home.config / "lab.json").write_text('{"subnet": "192.168.100.0/24", "domain": "pvmlab.local"}')
    assert lab.lan == Lan()


def test_network_of_the_settings_is_used(lab: Lab) -> None:
    (lab.home.config / "lab.json").write_text('{"subnet": "10.9.0.0/24", "domain": "lab.test"}')
    assert lab.lan == Lan(subnet="10.9.0.0/24", domain="lab.test")


def test_broken_network_settings_are_told(lab: Lab) -> None:
    (lab.home.config / "lab.json").write_text('{"subnet": "10.9.0.1/24"}')
    with pytest.raises(ConflictError, match=r"network settings .*lab\.json are broken") as caught:
        _ = lab.lan
    assert "host bits set" in caught.value.details


def test_changing_definitions_is_for_one_at_a_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.lab._DEFINITIONS_TIMEOUT", 0.0)
    with (
        lab.changing_definitions(),
        pytest.raises(ConflictError, match=r"creating or deleting machines"),
        lab.changing_definitions(),
    ):
        pass
