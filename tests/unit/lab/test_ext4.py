"""What of ext4 can be told without a file system: tests/integration/lab/test_clones.py has e2fsprogs check the rest."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest

from lab.ext4 import Ext4, Ext4Error, crc32c


class Memory:
    """A device in memory. :ivar was_read: so many bytes."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.was_read = 0

    def read(self, offset: int, length: int) -> bytes:
        self.was_read += length
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283  # its check value in every catalogue


def test_no_file_system_is_told() -> None:
    with pytest.raises(Ext4Error, match="there is no ext4 file system"):
        Ext4(Memory(4096), 0)


@pytest.mark.parametrize("features", [0, 0x40 | 0x8000, 0x40 | 0x10000])
def test_features_that_are_not_known_are_refused(features: int) -> None:
    device = Memory(4096)
    device.write(1024 + 0x38, (0xEF53).to_bytes(2, "little"))
    device.write(1024 + 0x60, features.to_bytes(4, "little"))
    with pytest.raises(Ext4Error, match="features that are not known here"):
        Ext4(device, 0)


SUPER = 1024
SANE = {0x38: (0xEF53, 2), 0x18: (0, 4), 0x14: (1, 4), 0x28: (8192, 4), 0x58: (256, 2), 0x60: (0x40, 4)}


def file_system(changes: dict[int, tuple[int, int]]) -> Memory:
    """Return a device with a superblock: values and their sizes in bytes, by place."""
    device = Memory(1 << 16)
    for place, (value, size) in (SANE | changes).items():
        device.write(SUPER + place, value.to_bytes(size, "little"))
    return device


def write_root(device: Memory, node: bytes, *, size: int = 1024) -> None:
    """Write the root directory's inode, with *node* as the top of its list of blocks."""
    device.write(2 * 1024 + 8, (4).to_bytes(4, "little"))  # the inodes begin in block 4
    inode = bytearray(256)
    inode[0:2] = (0o40755).to_bytes(2, "little")
    inode[4:8] = size.to_bytes(4, "little")
    inode[0x20:0x24] = (0x80000).to_bytes(4, "little")
    inode[0x28 : 0x28 + len(node)] = node
    device.write(4 * 1024 + 256, bytes(inode))


@pytest.mark.parametrize(
    "changes",
    [{0x18: (7, 4)}, {0x18: (0xFFFFFFFF, 4)}, {0x28: (0, 4)}, {0x58: (0, 2)}, {0x58: (4096, 2)},
     {0x60: (0x40 | 0x80, 4), 0xFE: (0, 2)}, {0x60: (0x40 | 0x80, 4), 0xFE: (0xFFFF, 2)}],
)  # fmt: skip
def test_what_a_hostile_guest_wrote_into_the_superblock_is_measured_first(changes: dict[int, tuple[int, int]]) -> None:
    with pytest.raises(Ext4Error, match="is damaged"):
        Ext4(file_system(changes), 0)


def test_a_list_of_blocks_that_leads_to_itself_has_an_end() -> None:
    node = struct.pack("<HHHHI", 0xF30A, 1, 4, 5, 0) + struct.pack("<IIHH", 0, 9, 0, 0)  # below it is block 9
    device = file_system({})
    device.write(9 * 1024, struct.pack("<HHHHI", 0xF30A, 84, 84, 5, 0) + struct.pack("<IIHH", 0, 9, 0, 0) * 84)
    write_root(device, node)
    with pytest.raises(Ext4Error, match="list of blocks is damaged"):
        Ext4(device, 0).find("etc/hostname")


def test_no_more_of_a_file_is_read_than_its_size() -> None:
    device = file_system({})
    write_root(device, struct.pack("<HHHHI", 0xF30A, 1, 4, 0, 0) + struct.pack("<IHHI", 0, 32768, 0, 20), size=1024)
    file = Ext4(device, 0)
    device.was_read = 0
    with pytest.raises(Ext4Error, match="a directory is damaged"):
        file.find("etc/hostname")
    assert device.was_read < 4096


def test_a_size_that_is_too_large_is_told_before_anything_is_made_of_it() -> None:
    device = file_system({})
    write_root(device, b"", size=0xFFFFFFFF)
    with pytest.raises(Ext4Error, match="more than is read here"):
        Ext4(device, 0).replace_text(2, "x")


def test_no_garbage_is_more_than_refused() -> None:
    chance = random.Random(5)
    for _ in range(300):
        device = file_system({})
        write_root(device, struct.pack("<HHHHI", 0xF30A, 1, 4, 0, 0) + struct.pack("<IHHI", 0, 1, 0, 20))
        for _ in range(chance.randrange(1, 40)):
            device.data[chance.choice((SUPER, 2048, 4096 + 256, 20 * 1024)) + chance.randrange(256)] = chance.randrange(
                256
            )
        with contextlib.suppress(Ext4Error):
            Ext4(device, 0).find("etc/hostname")
