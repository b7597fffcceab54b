"""Reading initramfs archives, whoever wrote them: cpio in the "newc" format, as a stream.

The writer is :mod:`pipeline.cpio`; it is a source of recipes, so what only reads stands here and rebuilds nothing.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import Protocol

_MAGIC, _TRAILER = b"070701", b"TRAILER!!!"
_HEADER_SIZE = 110
_LONGEST_NAME = 4096  # the kernel's PATH_MAX
_CHUNK = 1 << 20


class Readable(Protocol):
    """What an archive is read from."""

    def read(self, size: int, /) -> bytes:
        """Return *size* bytes, fewer at the end only."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of an archive that is being read.

    :ivar path: as it is written; a byte that is not UTF-8 becomes the text ``\\xff``.
    :ivar inode: the same for all names of a file that has several; its content comes with the last.
    :ivar links: how many names the file has.
    :ivar content: the bytes in pieces, to be taken before the next member is.
    """

    path: str
    mode: int
    size: int
    inode: tuple[int, int, int]
    links: int
    content: Iterator[bytes]


def read(stream: Readable) -> Iterator[Member]:
    """Yield the members of the archive that begins where *stream* stands; it then stands behind the trailer.

    :raises ValueError: if no archive begins there, or it is cut off.
    """
    while True:
        if (magic := _read_exactly(stream, len(_MAGIC))) != _MAGIC:
            raise ValueError(f"no newc archive or member begins with {magic!r}")
        header = _read_exactly(stream, _HEADER_SIZE - len(_MAGIC))
        inode, mode, _, _, links, _, size, major, minor, _, _, name_size, _ = _fields(header)
        if not 0 < name_size <= _LONGEST_NAME:
            raise ValueError(f"a member's name is {name_size} bytes long")
        name = _read_exactly(stream, name_size + -(_HEADER_SIZE + name_size) % 4)[: name_size - 1]
        if name == _TRAILER:
            return
        content = _content(stream, size)
        yield Member(name.decode(errors="backslashreplace"), mode, size, (major, minor, inode), links, content)
        for _ in content:
            pass


def _fields(header: bytes) -> tuple[int, ...]:
    try:
        return struct.unpack(">13I", bytes.fromhex(header.decode("ascii")))
    except (ValueError, struct.error) as error:
        raise ValueError("a member's header is damaged") from error


def _content(stream: Readable, size: int) -> Iterator[bytes]:
    for done in range(0, size, _CHUNK):
        yield _read_exactly(stream, min(_CHUNK, size - done))
    _read_exactly(stream, -size % 4)


def _read_exactly(stream: Readable, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("the archive is cut off")
    return data
