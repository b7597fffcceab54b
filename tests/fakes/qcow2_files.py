"""qcow2 images made by hand, byte for byte: honest ones, and ones that no tool makes."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Mapping, Sequence

import zstandard

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
_L1_AT, _REFCOUNTS_AT, _L2_AT, _FIRST_DATA = 1, 2, 4, 5  # clusters; the header's is number 0
_COPIED, _COMPRESSED = 1 << 63, 1 << 62


@dataclasses.dataclass(frozen=True)
class Packed:
    """A cluster that is stored compressed. :ivar raw: stored as it is, for damage."""

    data: bytes
    raw: bytes | None = None


@dataclasses.dataclass
class Qcow2:
    """A disk of up to 512 MiB. Fields of the header may be lied about by :meth:`patched`.

    :ivar clusters: number to content; others are not allocated. :ivar zeros: clusters marked as zero.
    """

    size: int
    clusters: Mapping[int, bytes | Packed] = dataclasses.field(default_factory=dict)
    zeros: Sequence[int] = ()
    version: int = 3
    incompatible: int = 0
    zstd: bool = False
    extensions: Sequence[tuple[int, bytes]] = ()
    snapshots: int = 0
    crypt: int = 0
    backing: tuple[int, int] = (0, 0)

    def build(self) -> bytes:
        """Return the file."""
        table, body = self._clusters()
        needed = max(-(-self.size // CLUSTER // (CLUSTER // 8)), 1)
        l1 = struct.pack(">Q", _COPIED | _L2_AT * CLUSTER) + bytes(8 * (needed - 1))
        parts = {0: self._header(needed), _L1_AT: l1, _L2_AT: table}
        front = b"".join(parts.get(number, b"").ljust(CLUSTER, b"\0") for number in range(_FIRST_DATA))
        return front + body

    def _header(self, l1_size: int) -> bytes:
        fixed = struct.pack(
            ">4sIQIIQIIQQIIQ", b"QFI\xfb", self.version, *self.backing, CLUSTER_BITS, self.size, self.crypt, l1_size,
            _L1_AT * CLUSTER, _REFCOUNTS_AT * CLUSTER, 1, self.snapshots, 0,
        )  # fmt: skip
        if self.version > 2:
            incompatible = self.incompatible | (1 << 3 if self.zstd else 0)
            fixed += struct.pack(">QQQIIB7x", incompatible, 0, 0, 4, 112, int(self.zstd))
        for kind, data in self.extensions:
            fixed += struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
        return fixed + bytes(8)

    def _clusters(self) -> tuple[bytes, bytes]:
        entries, body = dict.fromkeys(self.zeros, 1), bytearray()
        for number, content in sorted(self.clusters.items()):
            at = _FIRST_DATA * CLUSTER + len(body)
            if isinstance(content, Packed):
                data = content.raw if content.raw is not None else self._pack(content.data)
                sectors = (at % 512 + len(data) + 511) // 512 - 1
                entries[number] = _COMPRESSED | sectors << (62 - (CLUSTER_BITS - 8)) | at
                body += data
            else:
                body += bytes(-len(body) % CLUSTER)
                at = _FIRST_DATA * CLUSTER + len(body)
                entries[number] = _COPIED | at
                body += content
        table = b"".join(struct.pack(">Q", entries.get(number, 0)) for number in range(CLUSTER // 8))
        return table, bytes(body)

    def _pack(self, data: bytes) -> bytes:
        if self.zstd:
            return zstandard.ZstdCompressor().compress(data)
        packer = zlib.compressobj(wbits=-12)
        return packer.compress(data) + packer.flush()

    def disk(self) -> bytes:
        """Return the disk in it."""
        empty = bytes(CLUSTER)
        parts = []
        for number in range(-(-self.size // CLUSTER)):
            content = self.clusters.get(number, empty)
            parts.append((content.data if isinstance(content, Packed) else content).ljust(CLUSTER, b"\0"))
        return b"".join(parts)[: self.size]


def patched(image: bytes, offset: int, layout: str, *values: int) -> bytes:
    """Return *image* with numbers overwritten. :param layout: as struct has it, without the byte order."""
    packed = struct.pack(f">{layout}", *values)
    return image[:offset] + packed + image[offset + len(packed) :]
