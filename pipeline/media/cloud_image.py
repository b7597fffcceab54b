"""Disk images that distributions publish: which format one is of, by its content, and the disk in it as a stream.

::

    file ──inspect_image──> DiskImage ──read_disk──> pieces: bytes, runs of zeros ──write_disk──> disk.img.zst

Only qcow2 and raw disks are taken. Formats are recognized, not guessed: a raw image must have a partition table, so
that nothing whose first bytes lead a tool elsewhere (a VMDK descriptor names files, too) passes as one.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterator
from pathlib import Path

import zstandard

from pipeline.media import qcow2
from pipeline.media.partitions import HEAD_SIZE, SECTOR, PartitionTable, TableKind, parse_partitions
from pipeline.media.qcow2 import MAX_VIRTUAL_SIZE, Qcow2Header, RefusedImageError
from pipeline.media.qcow2_content import DamagedImageError, Piece, read_clusters
from pipeline.progress import Progress, ProgressListener, ignore_progress

ZSTD_LEVEL = 3
_ZSTD_THREADS = 2  # always: the number is part of what the compressed bytes depend on, the host's cores must not be
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_REPORT_EVERY = 32 << 20  # bytes

_ISO_SECTORS = range(16, 20)
# What a file begins with that is no disk image to use here, and what to call it.
_FOREIGN = {
    b"KDMV": "a VMDK image", b"COWD": "a VMDK image", b"# Disk DescriptorFile": "a VMDK descriptor",
    b"conectix": "a VHD image", b"vhdxfile": "a VHDX image", b"<<< ": "a VDI image", b"QED\0": "a QED image",
    b"WithoutFreeSpace": "a Parallels image", b"WithouFreSpacExt": "a Parallels image", b"LUKS\xba\xbe": "encrypted",
    b"Bochs Virtual HD Image": "a Bochs image", b"#!": "a script (or a cloop image)",
    b"\x1f\x8b": "compressed by gzip", b"\xfd7zXZ\0": "compressed by xz", b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2", b"PK\3\4": "a ZIP archive", b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"hsqs": "a squashfs file system", b"\x7fELF": "a program",
}  # fmt: skip
_UNPACK_FIRST = "take the qcow2 image of the same release, or unpack this one and add it by its path"


class ImageFormat(enum.StrEnum):
    """A format of disk images, by the name QEMU has for it."""

    QCOW2 = "qcow2"
    RAW = "raw"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiskImage:
    """An image that was looked through and may be opened.

    :ivar size: bytes of the disk. :ivar header: of a qcow2 image.
    """

    path: Path
    format: ImageFormat
    size: int
    header: Qcow2Header | None = None


@dataclasses.dataclass(frozen=True)
class WrittenDisk:
    """What was written. :ivar size: bytes of the disk."""

    size: int
    table: PartitionTable


def inspect_image(path: Path, *, max_size: int = MAX_VIRTUAL_SIZE) -> DiskImage:
    """Return what the disk image *path* is. No program is run.

    :param max_size: bytes the disk may have at most.
    :raises RefusedImageError: if it is of another format, names other files, is damaged, cut off or too large.
    :raises DamagedTableError: if a raw image's partition table contradicts itself. :raises OSError: if unreadable.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_SIZE)
    if head.startswith(qcow2.MAGIC):
        header = qcow2.read_header(path, max_size=max_size)
        return DiskImage(path=path, format=ImageFormat.QCOW2, size=header.virtual_size, header=header)
    _refuse_foreign(path, head)
    size = path.stat().st_size
    if not 0 < size <= max_size or size % SECTOR:
        raise RefusedImageError(path, f"a raw disk of {size} bytes; up to {max_size} in whole sectors are possible")
    if parse_partitions(head, disk_size=size).kind is TableKind.NONE:
        raise RefusedImageError(path, "it is neither qcow2 nor a raw disk with a partition table")
    return DiskImage(path=path, format=ImageFormat.RAW, size=size)


def _refuse_foreign(path: Path, head: bytes) -> None:
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            resolution = _UNPACK_FIRST if name.startswith("compressed") else ""
            raise RefusedImageError(path, f"it is {name}", resolution=resolution)
    if head[64:68] == b"\x7f\x10\xda\xbe":  # VDI's own magic; the text before it may be any
        raise RefusedImageError(path, "it is a VDI image")
    if any(head[2048 * sector + 1 :].startswith((b"CD001", b"BEA01")) for sector in _ISO_SECTORS):
        raise RefusedImageError(path, "it is a disc (ISO 9660 or UDF), not a disk", resolution="use it as an `iso`")
    if head[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise RefusedImageError(path, "it is a web page", resolution="fetch it again")


def read_disk(image: DiskImage) -> Iterator[Piece]:
    """Yield the disk of *image*: bytes, or how many zeros follow.

    :raises DamagedImageError: if a part of it is damaged, or the file is shorter than it was. :raises OSError: if it
        cannot be read.
    """
    if image.header is not None:
        return read_clusters(image.path, image.header)
    return _read_raw(image)


def _read_raw(image: DiskImage) -> Iterator[Piece]:
    with image.path.open("rb") as stream:
        descriptor, place = stream.fileno(), 0
        while place < image.size:
            data_from = _next(descriptor, place, os.SEEK_DATA, image.size)
            if data_from > place:
                yield data_from - place
            place = data_from
            end = _next(descriptor, place, os.SEEK_HOLE, image.size)
            while place < end:
                if not (data := os.pread(descriptor, min(_CHUNK, end - place), place)):
                    raise DamagedImageError(image.path, place, "the file ended")
                yield data
                place += len(data)
        if os.fstat(descriptor).st_size < image.size:  # what was cut off looks like a hole
            raise DamagedImageError(image.path, os.fstat(descriptor).st_size, "the file ended")


def _next(descriptor: int, place: int, what: int, end: int) -> int:
    """Return where the next data or hole begins; *end* if there is none, and for a hole if nobody tells."""
    try:
        return min(os.lseek(descriptor, place, what), end)
    except OSError:  # ENXIO: nothing but a hole follows; EINVAL: this file system does not tell
        is_hole = what == os.SEEK_DATA and os.fstat(descriptor).st_blocks * 512 < end
        return end if is_hole or what == os.SEEK_HOLE else place


def write_disk(image: DiskImage, output: Path, *, listener: ProgressListener = ignore_progress) -> WrittenDisk:
    """Write the disk of *image*, raw and compressed by zstd, to *output*. Equal disks give equal bytes.

    :raises DamagedTableError: if its partition table contradicts itself. Otherwise see :func:`read_disk`.
    """
    head, done, reported = bytearray(), 0, 0
    # The whole size is in the frame's header: who unpacks it knows how far it is.
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=_ZSTD_THREADS, write_checksum=True)
    with (
        output.open("wb") as raw,
        compressor.stream_writer(raw, size=image.size, closefd=False) as packed,
    ):
        for piece in read_disk(image):
            if isinstance(piece, int):
                head += bytes(min(piece, max(HEAD_SIZE - done, 0)))
                _write_zeros(packed, piece)
                done += piece
            else:
                head += piece[: max(HEAD_SIZE - done, 0)]
                packed.write(piece)
                done += len(piece)
            if done - reported >= _REPORT_EVERY:
                reported = done
                listener(Progress(step="compressing the disk", done=done, total=image.size))
    return WrittenDisk(done, parse_partitions(bytes(head), disk_size=image.size))


def unpack_disk(packed: Path, output: Path, *, listener: ProgressListener = ignore_progress) -> int:
    """Write the disk that :func:`write_disk` packed to *output*, with holes where it is zero; return its bytes.

    :raises RefusedImageError: if it is damaged or cut off: nothing of *output* is to be used then.
    """
    done = reported = 0
    with packed.open("rb") as source, output.open("wb") as disk:
        size = zstandard.frame_content_size(source.read(18))  # the longest header (RFC 8878 3.1.1.1)
        source.seek(0)
        try:
            for piece in zstandard.ZstdDecompressor().read_to_iter(source, write_size=_CHUNK):
                if piece != _ZEROS[: len(piece)]:
                    os.pwrite(disk.fileno(), piece, done)
                done += len(piece)
                if done - reported >= _REPORT_EVERY:
                    reported = done
                    listener(Progress(step="unpacking the disk", done=done, total=max(size, done)))
        except zstandard.ZstdError as error:
            raise RefusedImageError(packed, f"it is damaged: {error}", resolution="build it again") from None
        if done != size:
            raise RefusedImageError(packed, f"it ends after {done} of {size} bytes", resolution="build it again")
        os.ftruncate(disk.fileno(), done)
    return done


def _write_zeros(packed: zstandard.ZstdCompressionWriter, count: int) -> None:
    zeros = memoryview(_ZEROS)
    while count > 0:
        part = min(count, _CHUNK)
        packed.write(zeros[:part])
        count -= part
