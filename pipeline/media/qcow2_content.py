"""The disk in a qcow2 image, from its begin to its end, as bytes and runs of zeros; threads unpack it."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import zstandard
from isal import isal_zlib

from pipeline.errors import PvmlabError
from pipeline.media.qcow2 import (
    COMPRESSED,
    ZERO,
    Compression,
    Qcow2Header,
    compressed_place,
    host_offset,
    read_table,
)

Piece = bytes | int
"""Bytes, or how many zeros."""

_THREADS = 2
_AHEAD = 2 * _THREADS  # batches that are unpacked before they are asked for
_LONGEST_RUN = 1 << 20  # bytes read at once
_BATCH = 16  # compressed clusters unpacked by one call
_DAMAGE = (cast("type[Exception]", isal_zlib.IsalError), zstandard.ZstdError)
_RAW_DEFLATE = -15  # zlib's wbits; QEMU writes with a window of 4 KiB, and any may be read


class DamagedImageError(PvmlabError):
    """A cluster of an image cannot be unpacked. :ivar path: which image. :ivar offset: where in the file."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        self.path, self.offset = path, offset
        super().__init__(
            f"the disk image {path.name} is damaged",
            details=f"the cluster at byte {offset} cannot be unpacked: {reason}",
            resolution="fetch it again; if its digest is right, it was published like this: report it",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """Clusters to be read together: *size* bytes of the disk from *offset* of the file; zeros if that is None."""

    offset: int | None
    size: int


def read_clusters(path: Path, header: Qcow2Header) -> Iterator[Piece]:
    """Yield the disk of the image *path*, whose tables were checked.

    :raises DamagedImageError: if a cluster is damaged. :raises OSError: if the file cannot be read.
    """
    with path.open("rb") as stream, ThreadPoolExecutor(_THREADS) as threads:
        unpacker = _Unpacker(path, stream.fileno(), header)
        waiting: deque[Future[list[Piece]]] = deque()
        left = header.virtual_size
        try:
            for batch in _batches(path, header):
                waiting.append(threads.submit(unpacker.unpack, batch))
                if len(waiting) > _AHEAD:
                    for piece in waiting.popleft().result():
                        yield (part := _cut(piece, left))
                        left -= _length(part)
            for future in waiting:
                for piece in future.result():
                    yield (part := _cut(piece, left))
                    left -= _length(part)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _length(piece: Piece) -> int:
    return piece if isinstance(piece, int) else len(piece)


def _cut(piece: Piece, left: int) -> Piece:
    """Return *piece* without what is beyond the disk's end: the last cluster may be only partly of it."""
    return min(piece, left) if isinstance(piece, int) else piece[:left]


class _Unpacker:
    def __init__(self, path: Path, descriptor: int, header: Qcow2Header) -> None:
        self._path, self._descriptor, self._header = path, descriptor, header

    def unpack(self, batch: list[_Run | int]) -> list[Piece]:
        """Return the bytes of each of *batch*: a run, or the table entry of a compressed cluster."""
        return [self._compressed(each) if isinstance(each, int) else self._run(each) for each in batch]

    def _run(self, run: _Run) -> Piece:
        if run.offset is None:
            return run.size
        data = os.pread(self._descriptor, run.size, run.offset)
        return data + bytes(run.size - len(data))

    def _compressed(self, entry: int) -> bytes:
        size = self._header.cluster_size
        offset, length = compressed_place(entry, self._header.cluster_bits)
        packed = os.pread(self._descriptor, length, offset)
        try:
            if self._header.compression is Compression.ZSTD:
                with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
                    data = reader.read(size)
            else:
                data = isal_zlib.decompressobj(_RAW_DEFLATE).decompress(packed, size)
        except _DAMAGE as error:
            raise DamagedImageError(self._path, offset, str(error)) from None
        if len(data) != size:
            raise DamagedImageError(self._path, offset, f"it has {len(data)} bytes, not {size}")
        return bytes(data)


def _batches(path: Path, header: Qcow2Header) -> Iterator[list[_Run | int]]:
    """Yield what to read, in portions that are worth a call in another thread."""
    runs = iter(_joined(_clusters(path, header)))
    while batch := list(itertools.islice(runs, _BATCH)):
        yield batch


def _joined(clusters: Iterable[_Run | int]) -> Iterator[_Run | int]:
    """Yield *clusters*, with neighbours that can be read at once as one."""
    last: _Run | None = None
    for each in clusters:
        if last is not None and isinstance(each, _Run) and _follows(last, each):
            last = _Run(last.offset, last.size + each.size)
            continue
        if last is not None:
            yield last
        last = each if isinstance(each, _Run) else None
        if isinstance(each, int):
            yield each
    if last is not None:
        yield last


def _follows(last: _Run, run: _Run) -> bool:
    if last.offset is None or run.offset is None:
        return last.offset is run.offset
    return last.offset + last.size == run.offset and last.size + run.size <= _LONGEST_RUN


def _clusters(path: Path, header: Qcow2Header) -> Iterator[_Run | int]:
    """Yield what each cluster of the disk is: the entry of a compressed one, or a run of this one alone."""
    size, left = header.cluster_size, header.clusters
    with path.open("rb") as stream:
        for l1_entry in read_table(stream, header.l1_offset, header.l1_size):
            count = min(left, header.l2_entries)
            left -= count
            if not count:
                return
            if not (offset := host_offset(l1_entry)):
                yield _Run(None, count * size)
                continue
            for entry in read_table(stream, offset, header.l2_entries)[:count]:
                if entry & COMPRESSED:
                    yield entry
                elif (entry & ZERO and header.version > 2) or not host_offset(entry):
                    yield _Run(None, size)
                else:
                    yield _Run(host_offset(entry), size)
