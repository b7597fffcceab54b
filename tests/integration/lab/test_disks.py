from __future__ import annotations

from pathlib import Path

import pytest

from lab.disks import create_empty_disk, create_overlay, disk_info
from pipeline.errors import CommandError, NotFoundError

GIB = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name means something else to careless QEMU options."""
    return tmp_path / "a, b=c:d"


def test_an_empty_disk_is_small_and_private(folder: Path) -> None:
    create_empty_disk(folder / "web1.qcow2", 8)
    info = disk_info(folder / "web1.qcow2")
    assert (info.virtual_size, info.backing_file) == (8 * GIB, None)
    assert info.actual_size < 1 << 20
    assert (folder / "web1.qcow2").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("size", "expected"), [(None, 2), (4, 4)])
def test_an_overlay_knows_its_base(folder: Path, size: int | None, expected: int) -> None:
    create_empty_disk(folder / "base.qcow2", 2)
    create_overlay(folder / "overlays" / "o.qcow2", folder / "base.qcow2", size)
    info = disk_info(folder / "overlays" / "o.qcow2")
    assert (info.virtual_size, info.backing_file) == (expected * GIB, folder / "base.qcow2")


def test_an_overlay_of_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(NotFoundError, match=r"base image .* does not exist"):
        create_overlay(folder / "o.qcow2", folder / "base.qcow2", None)
    assert not (folder / "o.qcow2").exists()


def test_a_base_that_is_no_image_leaves_nothing_and_keeps_what_was_there(folder: Path) -> None:
    create_empty_disk(folder / "o.qcow2", 1)
    (folder / "base.qcow2").write_text("not an image")
    with pytest.raises(CommandError, match="qemu-img failed"):
        create_overlay(folder / "o.qcow2", folder / "base.qcow2", None)
    assert {path.name for path in folder.iterdir()} == {"o.qcow2", "base.qcow2"}
    assert disk_info(folder / "o.qcow2").backing_file is None


def test_information_on_no_disk(folder: Path) -> None:
    with pytest.raises(NotFoundError):
        disk_info(folder / "none.qcow2")
