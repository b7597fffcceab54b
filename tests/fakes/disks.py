"""Raw disks with nothing but a partition table, made by hand."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence

LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def mbr_disk(size: int, entries: Sequence[tuple[int, int, int]] = ((0x83, 2048, 1024),)) -> bytes:
    """Return a disk with an MBR. :param entries: type, first sector and sectors of each partition."""
    table = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries).ljust(64, b"\0")
    return (bytes(446) + table + b"\x55\xaa").ljust(size, b"\0")


def gpt_disk(size: int, partitions: Sequence[tuple[str, int, int]], *, count: int = 128, entry: int = 128) -> bytes:
    """Return a disk with a GPT and a protective MBR. :param partitions: name, first and last sector of each."""
    entries = b"".join(
        struct.pack(
            "<16s16sQQQ72s", LINUX.bytes_le, uuid.UUID(int=n + 1).bytes_le, first, last, 0, name.encode("utf-16-le")
        )
        for n, (name, first, last) in enumerate(partitions)
    ).ljust(count * entry, b"\0")
    last_usable = size // 512 - 34
    header = struct.pack(
        "<8sIIII4Q16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, size // 512 - 1, 34, last_usable, bytes(16), 2, count,
        entry, zlib.crc32(entries),
    )  # fmt: skip
    header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
    return (mbr_disk(512, [(0xEE, 1, 0xFFFFFFFF)]) + header.ljust(512, b"\0") + entries).ljust(size, b"\0")
