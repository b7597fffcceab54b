"""The partition table of a disk, read from its first bytes: GPT (UEFI specification 2.10, section 5.3) or MBR.

Sectors have 512 bytes, as those of every cloud image have. Logical partitions in an extended one are not listed.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
import uuid
import zlib
from typing import Any

from pipeline.errors import PvmlabError

SECTOR = 512
HEAD_SIZE = 1 << 20  # bytes; enough for any table that a tool makes

_MBR_SIGNATURE, _MBR_ENTRIES, _PROTECTIVE = b"\x55\xaa", 446, 0xEE
_MBR_ENTRY = struct.Struct("<B3xB3xII")
_GPT_SIGNATURE = b"EFI PART"
_GPT_HEADER = struct.Struct("<8sIIII4Q16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_MOST_ENTRIES = 1024  # tools make 128


class TableKind(enum.StrEnum):
    """Which kind of table a disk has."""

    GPT = "gpt"
    MBR = "mbr"
    NONE = "none"


class DamagedTableError(PvmlabError):
    """A partition table contradicts itself or the disk. :ivar reason: how."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            "the partition table of the disk image is damaged",
            details=reason,
            resolution="fetch the image again; if its digest is right, it was published like this: report it",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition.

    :ivar number: as in ``/dev/vda1``. :ivar start: bytes from the disk's begin. :ivar size: bytes.
    :ivar type: GUID of its type (GPT), or two hex digits (MBR). :ivar name: its label in the table, of GPT only.
    """

    number: int
    start: int
    size: int
    type: str
    name: str = ""


@dataclasses.dataclass(frozen=True)
class PartitionTable:
    """What a disk is divided into."""

    kind: TableKind
    partitions: tuple[Partition, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what a sidecar says of it."""
        return {"table": self.kind.value, "partitions": [dataclasses.asdict(each) for each in self.partitions]}


def parse_partitions(head: bytes, *, disk_size: int) -> PartitionTable:
    """Return the partition table of a disk.

    :param head: its first bytes, :data:`HEAD_SIZE` or all there are. :param disk_size: bytes of the whole disk.
    :raises DamagedTableError: if the table contradicts itself, or names sectors that the disk has not.
    """
    if head[SECTOR : SECTOR + len(_GPT_SIGNATURE)] == _GPT_SIGNATURE:
        return PartitionTable(TableKind.GPT, _parse_gpt(head, disk_size))
    if head[SECTOR - 2 : SECTOR] != _MBR_SIGNATURE:
        return PartitionTable(TableKind.NONE)
    entries = [_MBR_ENTRY.unpack_from(head, _MBR_ENTRIES + number * _MBR_ENTRY.size) for number in range(4)]
    if any(kind == _PROTECTIVE for _, kind, _, _ in entries):
        raise DamagedTableError("the MBR says that there is a GPT, but there is none")
    # A boot sector of a file system has the same signature: then what would be entries is code or text.
    if any(status not in {0, 0x80} for status, _, _, _ in entries) or not any(kind for _, kind, _, _ in entries):
        return PartitionTable(TableKind.NONE)
    return PartitionTable(TableKind.MBR, tuple(_parse_mbr(entries, disk_size)))


def _parse_mbr(entries: list[tuple[int, int, int, int]], disk_size: int) -> list[Partition]:
    found = []
    for number, (_, kind, start, count) in enumerate(entries, start=1):
        if not kind or not count:
            continue
        if not start or (start + count) * SECTOR > disk_size:
            raise DamagedTableError(f"partition {number} ends beyond the disk's end, or begins at its table")
        found.append(Partition(number=number, start=start * SECTOR, size=count * SECTOR, type=f"{kind:02x}"))
    return found


def _parse_gpt(head: bytes, disk_size: int) -> tuple[Partition, ...]:
    if len(head) < SECTOR + _GPT_HEADER.size:
        raise DamagedTableError("the GPT is cut off")
    (_, _, header_size, checksum, _, _, _, first, last, _, entries_at, count, size, entries_checksum) = (
        _GPT_HEADER.unpack_from(head, SECTOR)
    )  # fmt: skip
    if not _GPT_HEADER.size <= header_size <= SECTOR:
        raise DamagedTableError(f"the GPT's header says that it has {header_size} bytes")
    header = bytearray(head[SECTOR : SECTOR + header_size])
    header[16:20] = bytes(4)
    if zlib.crc32(header) != checksum:
        raise DamagedTableError("the checksum of the GPT's header is wrong")
    if count > _MOST_ENTRIES or size < _GPT_ENTRY.size or size % 8 or size > SECTOR * 8:
        raise DamagedTableError(f"the GPT says that it has {count} entries of {size} bytes")
    start = entries_at * SECTOR
    table = head[start : start + count * size]
    if len(table) != count * size or zlib.crc32(table) != entries_checksum:
        raise DamagedTableError("the checksum of the GPT's entries is wrong")
    if (last + 1) * SECTOR > disk_size or first > last:
        raise DamagedTableError("the GPT is of a larger disk: the image may be cut off")
    return tuple(_gpt_partitions(table, count, size, first=first, last=last))


def _gpt_partitions(table: bytes, count: int, size: int, *, first: int, last: int) -> list[Partition]:
    found = []
    for number in range(count):
        kind, _, start, end, _, name = _GPT_ENTRY.unpack_from(table, number * size)
        if not any(kind):
            continue
        if not first <= start <= end <= last:
            raise DamagedTableError(f"partition {number + 1} lies outside of what the GPT divides")
        found.append(
            Partition(
                number=number + 1,
                start=start * SECTOR,
                size=(end - start + 1) * SECTOR,
                type=str(uuid.UUID(bytes_le=kind)),
                name=name.decode("utf-16-le", errors="replace").partition("\0")[0],
            )
        )
    return found
