"""Compressed modules and kernels: all of a file's content, if it is whole and no larger than it may be."""

from __future__ import annotations

import contextlib
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol, cast

import zstandard
from isal import isal_zlib

from pipeline.errors import PvmlabError

SUFFIXES = ("xz", "zst", "gz")
_ZSTD_PIECE = 1 << 10  # of the compressed data; of four bytes come 128 KiB if all are equal
_GZIP = 31  # zlib's window bits for a gzip header
_CUT_OFF, _TOO_MUCH = "the compressed data is cut off", "it unpacks to more than any such file has"
_DAMAGE: tuple[type[Exception], ...] = (
    lzma.LZMAError, zlib.error, cast("type[Exception]", isal_zlib.IsalError), zstandard.ZstdError, EOFError, ValueError,
)  # fmt: skip


class DamagedFileError(PvmlabError):
    """A compressed file is cut off, damaged, or unpacks to more than it may."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name} is damaged: it cannot be unpacked",
            details=reason,
            resolution="check that the medium it comes from is whole",
        )


def unpack(data: bytes, suffix: str, *, limit: int, name: str) -> bytes:
    """Return what *data* was before it was compressed, in one piece or in several one after the other.

    :param suffix: how: ``xz``, ``zst`` or ``gz``. :param limit: bytes that it may be. :param name: for the error.
    :raises DamagedFileError: if it is cut off or damaged, or more than *limit*.
    """
    try:
        return _UNPACK[suffix](data, limit)
    except _DAMAGE as error:
        raise DamagedFileError(name, str(error)) from error


class _Stream(Protocol):
    """What lzma's and isal's objects for one stream have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _each(make: Callable[[], _Stream], data: bytes, limit: int) -> bytes:
    """Return the content of all streams in *data*."""
    found: list[bytes] = []
    while data:
        stream = make()
        found.append(stream.decompress(data, limit + 1))
        limit -= len(found[-1])
        if limit < 0:
            raise ValueError(_TOO_MUCH)
        if not stream.eof:
            raise EOFError(_CUT_OFF)
        data = stream.unused_data.lstrip(b"\0")  # xz pads with zeros between streams
    return found[0] if len(found) == 1 else b"".join(found)


def _unpack_zstd(data: bytes, limit: int) -> bytes:
    if zstandard.frame_content_size(data) > limit:
        raise ValueError(_TOO_MUCH)
    with contextlib.suppress(zstandard.ZstdError):  # several frames, or one that does not say its size
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    found: list[bytes] = []
    while data:
        stream = zstandard.ZstdDecompressor().decompressobj()
        place = 0
        while not stream.eof:
            if place >= len(data):
                raise EOFError(_CUT_OFF)
            found.append(stream.decompress(data[place : place + _ZSTD_PIECE]))
            place += _ZSTD_PIECE
            limit -= len(found[-1])
            if limit < 0:
                raise ValueError(_TOO_MUCH)
        data = stream.unused_data + data[place:]
    return b"".join(found)


_UNPACK: dict[str, Callable[[bytes, int], bytes]] = {
    "xz": lambda data, limit: _each(lzma.LZMADecompressor, data, limit),
    "gz": lambda data, limit: _each(lambda: isal_zlib.decompressobj(wbits=_GZIP), data, limit),
    "zst": _unpack_zstd,
}
