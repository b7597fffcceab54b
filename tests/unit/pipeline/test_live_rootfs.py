"""The recipe of root filesystems from live-server discs."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.arch import Arch
from distros.family import Family
from distros.release import Medium, MediumKind, Release, Sources
from pipeline.recipes.live_rootfs import live_rootfs
from pipeline.workspace import Cache


@pytest.fixture
def release() -> Release:
    medium = Medium(kind=MediumKind.ISO, mirrors=("https://example.org/",), file="x-*.iso")
    sources = {Arch.X86_64: Sources(media={MediumKind.ISO: medium}, rootfs=MediumKind.ISO)}
    return Release(name="ubuntu-99.04", title="Ubuntu 99.04", family=Family.UBUNTU, sources=sources)


def test_it_is_made_of_the_iso_where_all_others_look_for_it(release: Release, tmp_path: Path) -> None:
    artifact = live_rootfs(release, Arch.X86_64, Cache(tmp_path))
    assert artifact.name == "rootfs:ubuntu-99.04:x86_64"
    assert artifact.inputs == (tmp_path / "media/ubuntu-99.04/x86_64/installer.iso",)
    assert artifact.targets == (tmp_path / "images/ubuntu-99.04/x86_64/rootfs.tar.zst",)
    assert artifact.options == {"source": None}


def test_another_source_of_the_disc_is_another_artifact(release: Release, tmp_path: Path) -> None:
    artifact = live_rootfs(release, Arch.X86_64, Cache(tmp_path), source="ubuntu-server-minimal")
    assert artifact.options == {"source": "ubuntu-server-minimal"}
