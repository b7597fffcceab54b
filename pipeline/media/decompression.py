"""The bytes inside a compressed file, in pieces, every checksum that the format has checked on the way.

gzip by isal, xz and bzip2 by Python, zstd and lz4 by libarchive. libarchive could do all of them, but it leaves the CRC
of gzip unread and lets xz take 1 GiB of memory; Python's zstandard cannot be told when to stop, and from a bomb makes
32 MiB of 1 KiB at once. One layer only: what is in it is not decompressed again.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast

from isal import igzip_lib

from pipeline.media.libarchive_binding import Compression, LibarchiveError, Reader

_READ = 256 << 10  # bytes of compressed data at once
_PIECE = 512 << 10  # bytes of decompressed data at once
_XZ_MEMORY = 160 << 20  # bytes; xz -9 needs 65 MiB
_LONGEST_MAGIC = 6
_TOO_EARLY = "the compressed data ends too early"
_DAMAGE: tuple[type[Exception], ...] = (
    OSError, EOFError, ValueError, lzma.LZMAError,
    cast(type[Exception], igzip_lib.IsalError),  # its stub says that it is an instance
)  # fmt: skip


class CompressionError(Exception):
    """The compressed data is cut off or damaged; the text says which."""


class _Engine(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def decompressed(stream: BinaryIO) -> Iterator[bytes]:
    """Yield what is in *stream*, in pieces of about 1 MiB at most; as it is, if it is compressed in no known way.

    :raises CompressionError: if it is cut off, damaged, or needs more memory than is sensible.
    """
    head = stream.read(_LONGEST_MAGIC)
    for magic, read in _FORMATS.items():
        if head.startswith(magic):
            return read(stream, head)
    return _plain(stream, head)


def _plain(stream: BinaryIO, head: bytes) -> Iterator[bytes]:
    if head:
        yield head
    while piece := stream.read(_PIECE):
        yield piece


def _stepwise(make: Callable[[], _Engine]) -> Callable[[BinaryIO, bytes], Iterator[bytes]]:
    """Return a reader of files that are one or several compressed streams, and zero bytes as padding after each."""

    def read(stream: BinaryIO, data: bytes) -> Iterator[bytes]:
        while data:
            engine = make()
            while not engine.eof:
                if not data and engine.needs_input and not (data := stream.read(_READ)):
                    raise CompressionError(_TOO_EARLY)
                try:
                    piece = engine.decompress(data, _PIECE)
                except _DAMAGE as error:
                    raise CompressionError(f"the compressed data is damaged: {error}") from None
                data = b""
                if piece:
                    yield piece
            data = _without_padding(engine.unused_data, stream)

    return read


def _without_padding(data: bytes, stream: BinaryIO) -> bytes:
    """Return the next bytes that are not zero: where another compressed stream begins, or nothing at the end."""
    while not (rest := data.lstrip(b"\0")) and (data := stream.read(_READ)):
        pass
    return rest


def _by_libarchive(compression: Compression) -> Callable[[BinaryIO, bytes], Iterator[bytes]]:
    """Return a reader by libarchive."""

    def read(stream: BinaryIO, head: bytes) -> Iterator[bytes]:
        pieces, has_begun = _plain(stream, head), False
        try:
            with Reader(formats=("raw",), compression=compression) as reader:
                reader.open_feed(lambda: next(pieces, b""))
                has_begun = reader.next_entry() is not None
                for _, piece in reader.blocks():
                    yield piece
        except LibarchiveError as error:
            # without a first block it says that it knows no such archive
            raise CompressionError(
                f"the compressed data is damaged: {error}" if has_begun else f"{_TOO_EARLY}, or is damaged"
            ) from None

    return read


_FORMATS: dict[bytes, Callable[[BinaryIO, bytes], Iterator[bytes]]] = {
    b"\x1f\x8b": _stepwise(lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)),
    b"\xfd7zXZ\0": _stepwise(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
    b"BZh": _stepwise(bz2.BZ2Decompressor),
    b"\x28\xb5\x2f\xfd": _by_libarchive(Compression.ZSTD),
    b"\x04\x22\x4d\x18": _by_libarchive(Compression.LZ4),
}
