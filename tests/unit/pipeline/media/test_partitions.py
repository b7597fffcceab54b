"""Partition tables: what is in honest ones, and that those that contradict themselves are refused."""

from __future__ import annotations

import random
import struct

import pytest

from pipeline.media.partitions import DamagedTableError, Partition, PartitionTable, TableKind, parse_partitions
from tests.fakes.disks import LINUX, gpt_disk, mbr_disk

SIZE = 4 << 20


def parse(disk: bytes) -> PartitionTable:
    return parse_partitions(disk, disk_size=SIZE)


def test_a_gpt_is_read() -> None:
    table = parse(gpt_disk(SIZE, [("boot", 2048, 4095), ("Wurzel ✓", 4096, 8000)]))
    assert table.kind is TableKind.GPT
    assert table.partitions == (
        Partition(number=1, start=1 << 20, size=1 << 20, type=str(LINUX), name="boot"),
        Partition(number=2, start=2 << 20, size=3905 * 512, type=str(LINUX), name="Wurzel ✓"),
    )
    assert table.facts()["partitions"][0]["number"] == 1


def test_an_mbr_is_read() -> None:
    table = parse(mbr_disk(SIZE, [(0x83, 2048, 1024), (0, 0, 0), (0xEF, 4096, 100)]))
    assert table.kind is TableKind.MBR
    assert [(each.number, each.start, each.size, each.type) for each in table.partitions] == [
        (1, 1 << 20, 512 << 10, "83"), (3, 2 << 20, 51200, "ef"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "disk",
    [bytes(SIZE), b"", b"\xeb\x3c\x90mkfs.fat".ljust(446, b"x") + b"text" * 16 + b"\x55\xaa", mbr_disk(SIZE, [])],
    ids=["zeros", "nothing", "boot sector of a file system", "no entries"],
)
def test_no_table_is_none(disk: bytes) -> None:
    assert parse(disk) == PartitionTable(TableKind.NONE)


GOOD = gpt_disk(SIZE, [("root", 2048, 4095)])


@pytest.mark.parametrize(
    ("disk", "reason"),
    [
        (mbr_disk(SIZE, [(0xEE, 1, 100)]), "there is none"),
        (mbr_disk(SIZE, [(0x83, 2048, 1 << 30)]), "partition 1 ends beyond"),
        (mbr_disk(SIZE, [(0x83, 0, 100)]), "begins at its table"),
        (GOOD[:600], "cut off"),
        (GOOD[:1024], "checksum of the GPT's entries"),
        (GOOD[:520] + b"\1" + GOOD[521:], "checksum of the GPT's header"),
        (GOOD[:524] + struct.pack("<I", 4096) + GOOD[528:], "4096 bytes"),
        (GOOD[:1025] + b"\1" + GOOD[1026:], "checksum of the GPT's entries"),
        (gpt_disk(SIZE, [("root", 2048, 4095)], count=2000), "2000 entries"),
        (gpt_disk(SIZE, [("root", 2048, 4095)], entry=8192), "8192 bytes"),
        (gpt_disk(SIZE * 2, [("root", 2048, 4095)]), "larger disk"),
        (gpt_disk(SIZE, [("root", 1, 4095)]), "partition 1 lies outside"),
        (gpt_disk(SIZE, [("root", 4095, 2048)]), "partition 1 lies outside"),
        (gpt_disk(SIZE, [("a", 2048, 4095), ("root", 2048, 1 << 40)]), "partition 2 lies outside"),
    ],
)
def test_a_contradiction_is_refused(disk: bytes, reason: str) -> None:
    with pytest.raises(DamagedTableError) as caught:
        parse(disk)
    assert reason in caught.value.reason


def test_noise_is_never_a_traceback() -> None:
    noise = random.Random(3)
    for _ in range(300):
        disk = bytearray(GOOD[:20_000])
        for _ in range(4):
            disk[noise.randrange(440, 1200)] = noise.randrange(256)
        try:
            parse(bytes(disk))
        except DamagedTableError:
            continue
