"""Which base images must stay, told by real disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.base_images import base_images
from lab.disks import create_empty_disk, create_overlay
from lab.lab import Lab
from pipeline.errors import ConflictError
from pipeline.workspace import Cache, Home, Workspace


@pytest.fixture
def place(tmp_path: Path) -> Lab:
    """A lab whose home is not there yet."""
    return Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))


def test_a_lab_without_disks_needs_none(place: Lab) -> None:
    assert base_images(place) == set()
    create_empty_disk(place.home.disks / "web1.qcow2", 1)
    assert base_images(place) == set()


def test_overlays_need_their_bases(place: Lab) -> None:
    base = place.cache.root / "images/base.qcow2"
    create_empty_disk(base, 1)
    create_overlay(place.home.disks / "provisioner.qcow2", base, None)
    assert base_images(place) == {base}
    base.unlink()
    assert base_images(place) == {base}


def test_a_disk_that_cannot_be_read_is_not_guessed_about(place: Lab) -> None:
    place.home.disks.mkdir(parents=True)
    (place.home.disks / "web1.qcow2").write_text("no disk at all")
    with pytest.raises(ConflictError, match=r"which base image the disk web1.qcow2 needs"):
        base_images(place)
