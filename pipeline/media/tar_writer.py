"""Writing tars: ustar headers, with pax records where those are too small (POSIX.1-2001, pax(1)).

:mod:`tarfile` writes the same, several times slower; beside a compressor with two threads that is what one waits for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from pipeline.media.member import Member, MemberKind

_BLOCK = 512
_RECORD = 20 * _BLOCK  # tar(1) ends an archive at a multiple of it
_BUFFER = 1 << 20
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_MAGIC = b"ustar\00000"
_NAME, _PREFIX = 100, 155  # bytes
_LARGEST_ID, _LARGEST_NUMBER = 0o7777777, 0o77777777777  # seven and eleven octal digits
_FILE, _HARDLINK, _SYMLINK, _DIRECTORY, _EXTENDED = b"0", b"1", b"2", b"5", b"x"
_NO_DEVICE = b"0000000\0"
_EXTENDED_NAME = b"PaxHeaders/"
_XATTR = "SCHILY.xattr."  # what star, GNU tar and bsdtar call extended attributes


class Sink(Protocol):
    """What a tar is written to."""

    def write(self, data: bytes, /) -> object:
        """Take *data*, all of it."""


class Status(NamedTuple):
    """Permission bits, numbers of owner and group, time of the last change in seconds since 1970."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0


class TarWriter:
    """Writes members in the order they come; owners are numbers only, nothing of this machine gets in.

    Names are text as :func:`os.fsdecode` makes it of UTF-8. The caller answers for their order and their sense, and
    calls :meth:`finish` at the end.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._size = 0

    def file(
        self, path: str, content: Iterable[bytes], *, size: int, status: Status, xattrs: Mapping[str, bytes]
    ) -> None:
        """Add a file.

        :raises ValueError: if *content* is not *size* bytes.
        """
        self._member(_FILE, path, b"", size, status, xattrs)
        missing = size
        for chunk in content:
            missing -= len(chunk)
            if missing < 0:
                raise ValueError(f"its content is more than the {size} bytes announced")
            self._write(chunk)
        if missing:
            raise ValueError(f"its content ends after {size - missing} of {size} bytes")
        if rest := -size % _BLOCK:
            self._write(bytes(rest))

    def directory(self, path: str, *, status: Status, xattrs: Mapping[str, bytes]) -> None:
        """Add a directory, or with ``""`` the one all is in."""
        self._member(_DIRECTORY, f"{path or '.'}/", b"", 0, status, xattrs)

    def symlink(self, path: str, target: str, *, status: Status, xattrs: Mapping[str, bytes]) -> None:
        """Add a symbolic link."""
        self._member(_SYMLINK, path, _encoded(target), 0, status, xattrs)

    def hardlink(self, path: str, target: str, *, status: Status) -> None:
        """Add another name of the file that was added as *target*."""
        self._member(_HARDLINK, path, _encoded(target), 0, status, {})

    def member(self, member: Member) -> bool:
        """Add *member* as it is; return False, adding nothing, for a device node, a pipe or a socket.

        :raises ValueError: see :meth:`file`.
        """
        status = Status(member.mode, member.uid, member.gid, member.mtime)
        match member.kind:
            case MemberKind.FILE:
                self.file(member.path, member.content, size=member.size, status=status, xattrs=member.xattrs)
            case MemberKind.DIRECTORY:
                self.directory(member.path, status=status, xattrs=member.xattrs)
            case MemberKind.SYMLINK:
                self.symlink(member.path, member.target, status=status, xattrs=member.xattrs)
            case MemberKind.HARDLINK:
                self.hardlink(member.path, member.target, status=status)
            case _:
                return False
        return True

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._size % _RECORD))
        self._flush()

    def _member(
        self, kind: bytes, path: str, target: bytes, size: int, status: Status, xattrs: Mapping[str, bytes]
    ) -> None:
        name = _encoded(path)
        prefix, rest = _split(name)
        records = [(f"{_XATTR}{key}", value) for key, value in sorted(xattrs.items())]
        if prefix is None or _has_characters(name):
            records.append(("path", name))
        if len(target) > _NAME or _has_characters(target):
            records.append(("linkpath", target))
        mode, uid, gid, mtime = status
        if uid > _LARGEST_ID:
            records.append(("uid", b"%d" % uid))
        if gid > _LARGEST_ID:
            records.append(("gid", b"%d" % gid))
        if size > _LARGEST_NUMBER:
            records.append(("size", b"%d" % size))
        if not 0 <= mtime <= _LARGEST_NUMBER:
            records.append(("mtime", b"%d" % mtime))
        fitting = Status(mode, _fitting(uid, _LARGEST_ID), _fitting(gid, _LARGEST_ID), _fitting(mtime, _LARGEST_NUMBER))
        if records:
            extended = b"".join(_record(key, value) for key, value in records)
            short = _EXTENDED_NAME + name.rstrip(b"/").rpartition(b"/")[2][: _NAME - len(_EXTENDED_NAME)]
            self._write(_header(_EXTENDED, (b"", short), b"", len(extended), Status(0o644, mtime=fitting.mtime)))
            self._write(extended + bytes(-len(extended) % _BLOCK))
        place = (b"", name[:_NAME]) if prefix is None else (prefix, rest)
        self._write(_header(kind, place, target[:_NAME], _fitting(size, _LARGEST_NUMBER), fitting))

    def _write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_size += len(data)
        self._size += len(data)
        if self._waiting_size >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._sink.write(b"".join(self._waiting))
            self._waiting, self._waiting_size = [], 0


def _header(kind: bytes, place: tuple[bytes, bytes], target: bytes, size: int, status: Status) -> bytes:
    mode, uid, gid, mtime = status
    prefix, name = place
    before = (name, b"%07o" % mode, b"%07o" % uid, b"%07o" % gid, b"%011o" % size, b"%011o" % mtime)
    behind = (kind, target, _MAGIC, b"", b"", _NO_DEVICE, _NO_DEVICE, prefix)
    checksum = sum(_HEADER.pack(*before, b"        ", *behind))  # with spaces in its own place
    return _HEADER.pack(*before, b"%06o\0 " % checksum, *behind)


def _fitting(number: int, largest: int) -> int:
    """Return *number* for the ustar header: zero if a record has to say it."""
    return number if 0 <= number <= largest else 0


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    """Return *name* as prefix and name of a ustar header; None for the prefix if it does not fit."""
    if len(name) <= _NAME:
        return b"", name
    cut = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))
    if cut > 0 and len(name) - cut - 1 <= _NAME:
        return name[:cut], name[cut + 1 :]
    return None, name


def _record(key: str, value: bytes) -> bytes:
    """Return an extended header record: its own length in decimal, a space, ``key=value``, a newline."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    digits = len(str(len(rest)))
    size = len(rest) + digits
    return b"%d" % (size if len(str(size)) == digits else size + 1) + rest


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _has_characters(name: bytes) -> bool:
    """Return whether *name* is text beyond ASCII: ustar headers have no character set, pax records are UTF-8."""
    if name.isascii():
        return False
    try:
        name.decode()
    except UnicodeDecodeError:
        return False  # some old character set: the bytes as they are
    return True
