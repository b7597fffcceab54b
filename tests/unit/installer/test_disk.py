"""The layout of the disk, and the checks before anything is written."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from contracts.arch import Arch
from installer import disk
from installer.errors import InstallError

LAYOUT = disk.Layout(
    device="/dev/nvme0n1",
    arch=Arch.X86_64,
    disk_uuid="11111111-1111-4111-8111-111111111111",
    esp_partuuid="22222222-2222-4222-8222-222222222222",
    root_partuuid="33333333-3333-4333-8333-333333333333",
    root_uuid="44444444-4444-4444-8444-444444444444",
    volume_id="1a2b3c4d",
)


def test_the_partition_script() -> None:
    assert disk.render_partition_script(LAYOUT) == (
        "label: gpt\n"
        "label-id: 11111111-1111-4111-8111-111111111111\n"
        "size=256MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=22222222-2222-4222-8222-222222222222, name=ESP\n"
        "type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=33333333-3333-4333-8333-333333333333, name=root\n"
    )


@pytest.mark.parametrize(
    ("device", "esp", "root"),
    [("/dev/nvme0n1", "/dev/nvme0n1p1", "/dev/nvme0n1p2"), ("/dev/vda", "/dev/vda1", "/dev/vda2")],
)
def test_partitions_are_named_as_the_kernel_does(device: str, esp: str, root: str) -> None:
    layout = disk.plan(device, Arch.X86_64)
    assert (layout.esp, layout.root) == (esp, root)


def test_no_two_layouts_share_an_identifier() -> None:
    layouts = [disk.plan("/dev/vda", Arch.X86_64) for _ in range(2)]
    found = [
        str(uuid.UUID(value))
        for layout in layouts
        for value in (layout.disk_uuid, layout.esp_partuuid, layout.root_partuuid, layout.root_uuid)
    ]
    assert len(set(found)) == 8
    assert layouts[0].volume_id != layouts[1].volume_id


def test_the_volume_id_is_written_as_fstab_wants_it() -> None:
    assert LAYOUT.esp_uuid == "1A2B-3C4D"


def test_a_missing_disk_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"the disk .*/nvme0n1 did not appear within 0.1 s; there are: "):
        disk.wait_for_disk(tmp_path / "nvme0n1", within=0.1)


def test_a_file_is_no_disk(tmp_path: Path) -> None:
    (tmp_path / "vda").write_bytes(b"precious")
    with pytest.raises(InstallError, match="is not a disk"):
        disk.require(str(tmp_path / "vda"))
    assert (tmp_path / "vda").read_bytes() == b"precious"


def test_wiping_clears_both_ends_and_no_more(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(b"\xff" * (5 * disk.MIB))
    disk.wipe(image)
    data = image.read_bytes()
    assert len(data) == 5 * disk.MIB
    assert data[: disk.MIB] == data[-disk.MIB :] == bytes(disk.MIB)
    assert data[disk.MIB : -disk.MIB] == b"\xff" * (3 * disk.MIB)


def test_a_disk_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="cannot be written to: Is a directory"):
        disk.wipe(tmp_path)


def test_wiping_does_not_make_a_small_disk_longer(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(b"\xff" * 1000)
    disk.wipe(image)
    assert image.read_bytes() == bytes(1000)


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """What the kernel tells of a disk of each kind, and of one that has no number."""
    for name, attribute, text in (
        ("nvme1n1", "device/serial", "pvmlab-disk0        \n"),
        ("vda", "serial", "pvmlab-disk1"),
        ("sdb", "device/vpd_pg80", "\0\x80\0\x0cpvmlab-disk2"),
        ("loop0", "size", "0"),
    ):
        path = tmp_path / name / attribute
        path.parent.mkdir(parents=True)
        path.write_bytes(text.encode("latin-1"))
    return tmp_path


@pytest.mark.parametrize(
    ("serial", "device"), [("pvmlab-disk0", "nvme1n1"), ("pvmlab-disk1", "vda"), ("pvmlab-disk2", "sdb")]
)
def test_a_disk_is_found_by_its_serial_number(blocks: Path, serial: str, device: str) -> None:
    assert disk.find("/dev/nvme0n1", serial, blocks=blocks) == f"/dev/{device}"


def test_without_a_serial_number_the_name_counts(blocks: Path) -> None:
    assert disk.find("/dev/nvme0n1", "", blocks=blocks) == "/dev/nvme0n1"


def test_a_disk_that_does_not_appear_is_an_error_that_names_the_others(blocks: Path) -> None:
    with pytest.raises(InstallError, match=r"serial number x appeared within 0.1 s: .*nvme1n1 \(pvmlab-disk0\)"):
        disk.find("/dev/nvme0n1", "x", blocks=blocks, within=0.1)
