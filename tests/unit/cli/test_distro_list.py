"""What is told of the shipped distributions where nothing is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.distro_list import list_distros, show_distro
from distros import registry


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_table_has_a_line_for_each_release_and_architecture(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_distros(output="table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "TITLE", "ARCH", "SOURCES", "STATE", "SIZE", "MISSING"]
    assert len(lines) == 1 + sum(len(release.arches) for release in registry.releases().values())
    (debian,) = [line for line in lines if line.startswith("debian-12")]
    assert debian.split() == ["debian-12", "Debian", "12", "(bookworm)", "x86_64", "packages", "not", "built"]
    (alpine, _) = [line for line in lines if line.startswith("alpine-3.24")]
    assert alpine.endswith("not fetched        cloud_image: no digest known")


def test_json_says_where_everything_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    list_distros(output="json")
    views = {view["name"]: view for view in json.loads(capsys.readouterr().out)["distributions"]}
    fedora = views["fedora-44"]["arches"][0]
    assert (fedora["rootfs"], fedora["installer"]) == ("cloud_image", "iso")
    iso = fedora["sources"][0]
    assert iso["state"] == "not fetched"
    assert iso["verified_by"] == (
        "Fedora-Everything-44-1.7-x86_64-CHECKSUM, signed by 36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6"
    )
    assert all(url.startswith("https://") for url in iso["urls"])
    assert views["opensuse-leap-16.0"]["arches"][0]["installer"] == ""


def test_what_is_shown_of_a_release_made_of_packages(capsys: pytest.CaptureFixture[str]) -> None:
    show_distro("debian-12", output="table")
    shown = capsys.readouterr().out
    assert "debian-12.yaml (shipped with pvmlab)" in shown
    assert "own installer    debian-installer-12-netboot-amd64" in shown
    assert "packages         fetched as they are needed" in shown
    assert "rootfs           not built" in shown


def test_looking_makes_nothing(cache: Path) -> None:
    list_distros(output="json")
    assert not cache.exists() or {path.name.removesuffix("-wal").removesuffix("-shm") for path in cache.iterdir()} <= {
        ".state.db"
    }
