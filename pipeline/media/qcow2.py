"""qcow2 disk images (QEMU's docs/interop/qcow2.rst): the header and the tables, read before any tool opens the file.

An image can name other files, which a tool would open as the user who runs it: a backing file, an external data file.
It can be encrypted, marked as damaged, or have tables that lead out of it. None of these is what a distribution
publishes; all are refused here, so that QEMU only ever opens what was looked through.
"""

from __future__ import annotations

import array
import dataclasses
import enum
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import PvmlabError

MAGIC = b"QFI\xfb"
MAX_VIRTUAL_SIZE = 64 << 30  # bytes; cloud images are published small, and grown where they are installed

_HEADER_2 = struct.Struct(">4sIQIIQIIQQIIQ")  # version 2, and the begin of version 3
_HEADER_3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_SMALLEST_HEADER_3 = _HEADER_2.size + _HEADER_3.size  # 104
_LONGEST_HEADER = 4096
_MAX_L1_SIZE = 32 << 20  # bytes; QEMU's own limit
_MAX_REFCOUNT_TABLE = 8 << 20  # bytes; QEMU's own limit
_COMPRESSION_TYPE_BIT = 3
# What no reader may pass over: bit to what it says.
_INCOMPATIBLE = {
    0: "it was not closed properly (dirty)",
    1: "it is marked as corrupt",
    2: "its content is in another file (external data file)",
    4: "it has extended L2 entries, which are not read here",
}
_BACKING_FORMAT, _DATA_FILE, _LUKS = 0xE2792ACA, 0x44415441, 0x0537BE77
_HARMFUL_EXTENSIONS = {
    _BACKING_FORMAT: "it names the format of a backing file",
    _DATA_FILE: "it names an external data file",
    _LUKS: "it is encrypted",
}
_OFFSET = 0x00FF_FFFF_FFFF_FE00  # bits 9 to 55 of a table entry
_COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1
_L1_RESERVED = ~(_OFFSET | _COPIED) & (1 << 64) - 1


class Compression(enum.IntEnum):
    """How compressed clusters are compressed."""

    DEFLATE = 0
    ZSTD = 1


class RefusedImageError(PvmlabError):
    """A disk image is not one to use. :ivar path: which. :ivar reason: why not."""

    def __init__(self, path: Path, reason: str, *, resolution: str = "") -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"the disk image {path.name} is refused: {reason}",
            details="No tool has opened it.",
            resolution=resolution or "take the distribution's own cloud image, whole and unchanged",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qcow2Header:
    """The header of an image that may be used.

    :ivar virtual_size: bytes of the disk. :ivar cluster_bits: a cluster has two to the power of it bytes.
    :ivar l1_offset: where the first table is. :ivar l1_size: its entries.
    """

    version: int
    virtual_size: int
    cluster_bits: int
    l1_offset: int
    l1_size: int
    compression: Compression

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        """Entries of a table of the second level, which is one cluster."""
        return self.cluster_size // 8

    @property
    def clusters(self) -> int:
        """Clusters of the disk."""
        return -(-self.virtual_size // self.cluster_size)


def read_header(path: Path, *, max_size: int = MAX_VIRTUAL_SIZE) -> Qcow2Header:
    """Return the header of the qcow2 image *path*, after a look at all its tables.

    :param max_size: bytes the disk may have at most.
    :raises RefusedImageError: if it is none to use: see the module. :raises OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        reader = _Reader(path, stream)
        header = reader.header(max_size)
        reader.check_tables(header)
    return header


def read_table(stream: BinaryIO, offset: int, entries: int) -> array.array[int]:
    """Return a table of 64-bit big-endian numbers, shorter if the file ends."""
    table = array.array("Q")
    stream.seek(offset)
    data = stream.read(entries * 8)
    table.frombytes(data[: len(data) // 8 * 8])
    if sys.byteorder == "little":
        table.byteswap()
    return table


def host_offset(entry: int) -> int:
    """Return the place in the file that a table entry names; 0 for none."""
    return entry & _OFFSET


def compressed_place(entry: int, cluster_bits: int) -> tuple[int, int]:
    """Return where the bytes of a compressed cluster are, and at most how many ("Compressed Clusters Descriptor")."""
    bits = 62 - (cluster_bits - 8)
    offset = entry & ((1 << bits) - 1)
    sectors = (entry & (COMPRESSED - 1)) >> bits
    return offset, (sectors + 1) * 512 - offset % 512


class _Reader:
    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._size = stream.seek(0, 2)

    def header(self, max_size: int) -> Qcow2Header:
        self._stream.seek(0)
        data = self._stream.read(_LONGEST_HEADER)
        if len(data) < _HEADER_2.size:
            raise self._refused("it is cut off in its header")
        (magic, version, backing, backing_size, bits, size, crypt, l1_size, l1_offset, refcounts, refcount_clusters,
         snapshots, _) = _HEADER_2.unpack_from(data)  # fmt: skip
        if magic != MAGIC:
            raise self._refused("it is no qcow2 image")
        if version not in {2, 3}:
            raise self._refused(f"it is of version {version} of the format; 2 and 3 are read")
        if backing or backing_size:
            raise self._refused("it is an overlay of another file (backing file)")
        if crypt:
            raise self._refused("it is encrypted")
        if not 9 <= bits <= 21:
            raise self._refused(f"its clusters have two to the power of {bits} bytes; 9 to 21 are possible")
        if snapshots:
            raise self._refused(f"it holds {snapshots} snapshots besides the disk")
        if not 0 < size <= max_size or size % 512:
            raise self._refused(f"its disk has {size} bytes; up to {max_size} in whole sectors are possible")
        compression = self._version_3(data) if version == 3 else Compression.DEFLATE
        header = Qcow2Header(version=version, virtual_size=size, cluster_bits=bits, l1_offset=l1_offset,
                             l1_size=l1_size, compression=compression)  # fmt: skip
        self._check_places(header, refcounts, refcount_clusters)
        self._extensions(data, self._header_length(data, version), header.cluster_size)
        return header

    def _version_3(self, data: bytes) -> Compression:
        """Check what version 3 adds; return how clusters are compressed."""
        if len(data) < _SMALLEST_HEADER_3:
            raise self._refused("it is cut off in its header")
        incompatible, _, _, refcount_order, length = _HEADER_3.unpack_from(data, _HEADER_2.size)
        for bit in range(64):
            if incompatible >> bit & 1 and bit != _COMPRESSION_TYPE_BIT:
                raise self._refused(_INCOMPATIBLE.get(bit, f"it needs a feature that is not known here (bit {bit})"))
        if refcount_order > 6:
            raise self._refused(f"its reference counts have two to the power of {refcount_order} bits; 64 are possible")
        if not _SMALLEST_HEADER_3 <= length <= _LONGEST_HEADER or length % 8:
            raise self._refused(f"its header says that it has {length} bytes")
        number = data[_SMALLEST_HEADER_3] if length > _SMALLEST_HEADER_3 and len(data) > _SMALLEST_HEADER_3 else 0
        is_marked = bool(incompatible >> _COMPRESSION_TYPE_BIT & 1)
        if number not in set(Compression) or is_marked != (number != Compression.DEFLATE):
            raise self._refused(f"its clusters are compressed in an unknown way ({number})")
        return Compression(number)

    @staticmethod
    def _header_length(data: bytes, version: int) -> int:
        return int(_HEADER_3.unpack_from(data, _HEADER_2.size)[4]) if version == 3 else _HEADER_2.size

    def _extensions(self, data: bytes, position: int, cluster_size: int) -> None:
        """Look through the header extensions, which end with a zero or the first cluster."""
        while position + _EXTENSION.size <= min(len(data), cluster_size):
            kind, length = _EXTENSION.unpack_from(data, position)
            if not kind:
                return
            if kind in _HARMFUL_EXTENSIONS:
                raise self._refused(_HARMFUL_EXTENSIONS[kind])
            position += _EXTENSION.size + length + -length % 8
            if position > min(cluster_size, self._size):
                break
        raise self._refused("its header extensions have no end")

    def _check_places(self, header: Qcow2Header, refcounts: int, refcount_clusters: int) -> None:
        needed = -(-header.clusters // header.l2_entries)
        if not needed <= header.l1_size <= _MAX_L1_SIZE // 8:
            raise self._refused(f"its first table has {header.l1_size} entries; the disk needs {needed}")
        if not 0 < refcount_clusters * header.cluster_size <= _MAX_REFCOUNT_TABLE:
            raise self._refused(f"its table of reference counts has {refcount_clusters} clusters")
        self._check_table("its first table", header.l1_offset, header.l1_size * 8, header)
        self._check_table("its table of reference counts", refcounts, refcount_clusters * header.cluster_size, header)

    def _check_table(self, what: str, offset: int, size: int, header: Qcow2Header) -> None:
        if offset % header.cluster_size or offset < header.cluster_size:
            raise self._refused(f"{what} is at an impossible place ({offset})")
        if offset + size > self._size:
            raise self._refused(f"{what} ends beyond the end of the file: it is cut off")

    def check_tables(self, header: Qcow2Header) -> None:
        """Look at every entry that belongs to the disk: what it names must be in the file."""
        # Beyond the disk's end there is nothing to read, so nothing to look at.
        needed = -(-header.clusters // header.l2_entries)
        known: set[int] = set()
        for entry in read_table(self._stream, header.l1_offset, header.l1_size)[:needed]:
            if entry & _L1_RESERVED:
                raise self._refused("an entry of its first table has bits that mean nothing")
            offset = host_offset(entry)
            if offset and offset not in known:
                known.add(offset)
                self._check_table("a table of its clusters", offset, header.cluster_size, header)
                self._check_clusters(read_table(self._stream, offset, header.l2_entries), header)

    def _check_clusters(self, table: array.array[int], header: Qcow2Header) -> None:
        for first, end in _places(table, header):
            if end > self._size:
                raise self._refused("clusters of the disk are beyond the end of the file: it is cut off")
            if first < header.cluster_size:
                raise self._refused("a cluster of the disk is where its header is")

    def _refused(self, reason: str) -> RefusedImageError:
        return RefusedImageError(self._path, reason)


def _places(table: array.array[int], header: Qcow2Header) -> Iterator[tuple[int, int]]:
    """Yield where each cluster of a table begins in the file, and how far the file must go at least."""
    mask = header.cluster_size - 1
    for entry in table:
        if entry & COMPRESSED:
            offset, size = compressed_place(entry, header.cluster_bits)
            yield offset, offset + size - 511  # sectors are counted whole, the file need not be
        elif offset := host_offset(entry):
            # The last cluster of a file may be shorter than others: what is missing reads as zeros. One that is not
            # where clusters are is refused like one that is nowhere.
            yield offset, offset + 1 if not offset & mask else 1 << 63
