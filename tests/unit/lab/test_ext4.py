"""What of ext4 can be told without a file system: tests/integration/lab/test_clones.py has e2fsprogs check the rest."""

from __future__ import annotations

import pytest

from lab.ext4 import Ext4, Ext4Error, crc32c


class Memory:
    """A device in memory."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, offset: int, length: int) -> bytes:
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
