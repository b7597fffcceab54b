"""Archives that somebody else made (tar, pax, cpio), read as a stream; what a member may not be is refused.

::

    file ──> decompression ──> counted, capped ──> libarchive ──> checked ──> Member, Member, ...

Nothing is written here. A consumer that puts the members into an empty folder, one after the other, cannot be led out
of it: names are relative and have no ``..``; nothing lies below what is not a directory; no name comes twice, except a
directory's; a hard link is to a file that came before. Device nodes and setuid bits are passed on as what they are.

Names in pax headers come out as libarchive gives them: composed (Unicode NFC), however they were written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.errors import PvmlabError
from pipeline.media.decompression import CompressionError, decompressed
from pipeline.media.libarchive_binding import CPIO, TAR, Entry, LibarchiveError, Reader
from pipeline.media.limits import USUAL, Limits
from pipeline.media.member import Member, MemberKind
from pipeline.media.names import UnsafeNameError, safe_path, safe_target, shown

_END_OF_TAR = 1024  # bytes; two blocks of zeros (POSIX.1-2017, pax, "ustar Interchange Format")
_ZEROS = bytes(256 << 10)
_LARGEST_ID = (1 << 32) - 2  # the one after means "none"
_KINDS = {
    stat.S_IFREG: MemberKind.FILE, stat.S_IFDIR: MemberKind.DIRECTORY, stat.S_IFLNK: MemberKind.SYMLINK,
    stat.S_IFCHR: MemberKind.CHARACTER_DEVICE, stat.S_IFBLK: MemberKind.BLOCK_DEVICE,
    stat.S_IFIFO: MemberKind.FIFO, stat.S_IFSOCK: MemberKind.SOCKET,
}  # fmt: skip


class ArchiveError(PvmlabError):
    """An archive is refused. Whatever was made of its members so far is to be thrown away.

    :ivar archive: what people know it by. :ivar reason: why.
    """

    _brief = "{} is refused"
    _resolution = ""

    def __init__(self, archive: str, reason: str) -> None:
        self.archive, self.reason = archive, reason
        super().__init__(self._brief.format(archive), details=reason, resolution=self._resolution)


class DamagedArchiveError(ArchiveError):
    """It is cut off or damaged, or not an archive at all."""

    _brief = "{} cannot be read to its end"
    _resolution = "fetch it again and compare its digest; if that is right, it was made like this"


class HostileArchiveError(ArchiveError):
    """It holds something that could do harm outside the folder that it is unpacked into."""

    _brief = "{} is not safe to unpack"
    _resolution = "do not use it: no honest tool makes such an archive"


class ArchiveLimitError(ArchiveError):
    """It holds more than is allowed."""

    _brief = "{} holds more than is allowed"
    _resolution = "if it is what you think it is, raise the limit; else it is made to fill the disk"


def read_archive(source: Path | BinaryIO, *, limits: Limits = USUAL) -> Iterator[Member]:
    """Yield the members of a tar or cpio archive in its order, compressed or not.

    The content of a file is to be read before the next member is asked for; what is not read is skipped. An entry for
    the root itself (``./``) is left out. Only when the last member has been asked for in vain is it known that the
    archive is whole.

    :param source: a path, or a binary stream that is read to its end and not closed.
    :raises DamagedArchiveError: if it is no archive, cut off, damaged, or something follows its end.
    :raises HostileArchiveError: if a member's name, link or place is not safe.
    :raises ArchiveLimitError: if it is larger than *limits*.
    :raises PrerequisiteError: if libarchive is not installed. :raises OSError: if *source* cannot be read.
    """
    name = source.name if isinstance(source, Path) else Path(str(getattr(source, "name", "the archive"))).name
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        reader = stack.enter_context(Reader(formats=("tar", "cpio")))
        stack.enter_context(_reported(name))
        yield from _Walk(name, reader, limits).members(_Feed(stream, limits))


class _TooMuchError(Exception):
    pass


class _HarmError(Exception):
    pass


class _Feed:
    """Decompresses a stream and counts both sides."""

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._stream, self._limits = stream, limits
        self._taken = self._given = 0
        self._last = (b"", b"")
        self._pieces = decompressed(cast(BinaryIO, self))  # it calls read() only

    def read(self, size: int) -> bytes:
        """Return the next compressed bytes, at most *size*."""
        data = self._stream.read(size)
        self._taken += len(data)
        return data

    def next_piece(self) -> bytes:
        """Return the next decompressed bytes, nothing at the end.

        :raises CompressionError: if they are damaged.
        """
        piece = next(self._pieces, b"")
        self._last = (self._last[-1], piece)
        self._given += len(piece)
        if self._given > self._limits.total:
            raise _TooMuchError(f"decompressed it has more than {self._limits.total} bytes")
        if self._given > self._limits.ratio_from and self._given > self._limits.ratio * self._taken:
            raise _TooMuchError(f"{self._taken} bytes of it decompress to more than {self._limits.ratio} times as many")
        return piece

    def require_zeros(self, position: int) -> None:
        """Read what is left from *position* on, so that a checksum at the end is checked.

        :raises LibarchiveError: if there is anything but zeros. :raises CompressionError: if it is damaged.
        """
        unread = self._given - position
        pieces = itertools.chain([b"".join(self._last)[-unread:]] if unread else [], iter(self.next_piece, b""))
        for piece in pieces:
            if piece.count(0) != len(piece):
                raise LibarchiveError("something follows its end")


class _Walk:
    """One reading of an archive: the members so far decide what the next may be."""

    def __init__(self, name: str, reader: Reader, limits: Limits) -> None:
        self._name, self._reader, self._limits = name, reader, limits
        self._kinds: dict[str, MemberKind] = {"": MemberKind.DIRECTORY}  # also of directories that are only implied
        self._read = self._passed = self._total = self._end_of_data = 0

    def members(self, feed: _Feed) -> Iterator[Member]:
        """Yield the members, then see to it that the archive ends where it says."""
        self._reader.open_feed(feed.next_piece)
        for entry in self._entries_in_order():
            if (member := self._checked(entry)) is not None:
                yield member
            self._passed += 1
        if not self._read:
            raise LibarchiveError("there is nothing in it")
        # The padding after the last member's content is less than a block, so it does not count as the end.
        if self._reader.family == TAR and self._reader.position - self._end_of_data < _END_OF_TAR:
            raise LibarchiveError("its end is missing")
        feed.require_zeros(self._reader.position)

    def _entries_in_order(self) -> Iterator[Entry]:
        """Yield the headers so that a file comes before the hard links to it.

        cpio has the content of a file of several names with the last of them, and nothing with the others.
        """
        empty: dict[bytes | None, list[Entry]] = {}
        for entry in self._entries():
            if self._reader.family != CPIO:
                yield entry
            elif entry.hardlink is None and entry.links > 1 and entry.type == stat.S_IFREG and not entry.size:
                empty[entry.path] = [entry]
            elif entry.hardlink not in empty:
                yield entry
            elif not entry.size:
                empty[entry.hardlink].append(entry)
            else:
                yield dataclasses.replace(entry, hardlink=None)
                for other in empty.pop(entry.hardlink):
                    yield dataclasses.replace(other, hardlink=entry.path)
        for first, *others in empty.values():
            yield first
            for other in others:
                yield dataclasses.replace(other, hardlink=first.path)

    def _entries(self) -> Iterator[Entry]:
        while (entry := self._reader.next_entry()) is not None:
            self._read += 1
            if self._read > self._limits.members:
                raise _TooMuchError(f"it has more than {self._limits.members} members")
            yield entry
            self._reader.skip()
            self._end_of_data = self._reader.position

    def _checked(self, entry: Entry) -> Member | None:
        """Return what *entry* is, None for the root.

        :raises _HarmError: if it is not safe. :raises _TooMuchError: if it is over a limit.
        """
        path = _named(safe_path, entry.path, "a member")
        kind = MemberKind.HARDLINK if entry.hardlink is not None else _KINDS.get(entry.type)
        if kind is None:
            raise LibarchiveError(f"{path} is of an unknown type ({entry.type:o})")
        if not path:
            if kind is not MemberKind.DIRECTORY:
                raise _HarmError(f"its root is a {kind}")
            return None
        size = self._counted_size(path, kind, entry)
        target = self._target(path, kind, entry)
        self._place(path, kind)
        if not (0 <= entry.uid <= _LARGEST_ID and 0 <= entry.gid <= _LARGEST_ID):
            raise LibarchiveError(f"{path} belongs to no possible user ({entry.uid}:{entry.gid})")
        return Member(
            path=path, kind=kind, mode=entry.perm, uid=entry.uid, gid=entry.gid, mtime=entry.mtime, size=size,
            target=target, device=entry.device if "device" in kind else (0, 0), xattrs=self._xattrs(path, entry),
            content=self._content(path, size, self._passed) if size else (),
        )  # fmt: skip

    def _counted_size(self, path: str, kind: MemberKind, entry: Entry) -> int:
        """Return the size of the content, and count it."""
        size = (entry.size or 0) if kind in {MemberKind.FILE, MemberKind.HARDLINK} else 0
        if size and kind is MemberKind.HARDLINK:
            raise LibarchiveError(f"the hard link {path} has a content of its own")
        if not 0 <= size <= self._limits.member:
            raise _TooMuchError(f"{path} has {size} bytes, more than {self._limits.member}")
        self._total += size
        if self._total > self._limits.total:
            raise _TooMuchError(f"with {path} its members have more than {self._limits.total} bytes")
        return size

    def _target(self, path: str, kind: MemberKind, entry: Entry) -> str:
        if kind is MemberKind.SYMLINK:
            return _named(safe_target, entry.symlink, f"the target of {path}")
        if kind is not MemberKind.HARDLINK:
            return ""
        target = _named(safe_path, entry.hardlink, f"the target of the hard link {path}")
        if self._kinds.get(target) is not MemberKind.FILE:
            what = f"is a {self._kinds[target]}" if target in self._kinds else "is not there yet"
            raise _HarmError(f"{path} is a hard link to {target or 'the root'}, which {what}")
        return target

    def _place(self, path: str, kind: MemberKind) -> None:
        """Remember *path* and the directories above it.

        :raises _HarmError: if it cannot be there, by what came before.
        """
        end = path.find("/")
        while end != -1:
            above = self._kinds.setdefault(path[:end], MemberKind.DIRECTORY)
            if above is not MemberKind.DIRECTORY:
                raise _HarmError(f"{path} lies below {path[:end]}, which is a {above}")
            end = path.find("/", end + 1)
        before = self._kinds.get(path)
        if before is not None and not before is kind is MemberKind.DIRECTORY:
            raise _HarmError(f"{path} comes as a {before} first, then as a {kind}")
        self._kinds[path] = MemberKind.FILE if kind is MemberKind.HARDLINK else kind  # which it makes

    def _xattrs(self, path: str, entry: Entry) -> dict[str, bytes]:
        if sum(len(name) + len(value) for name, value in entry.xattrs) > self._limits.xattrs:
            raise _TooMuchError(f"{path} has more than {self._limits.xattrs} bytes of extended attributes")
        return {_named(safe_target, name, f"an extended attribute of {path}"): value for name, value in entry.xattrs}

    def _content(self, path: str, size: int, number: int) -> Iterator[bytes]:
        """Yield the content of the member *number*, holes as zeros."""
        position = 0
        with _reported(self._name):
            blocks = self._reader.blocks()
            while True:
                if number != self._passed:
                    raise RuntimeError(f"the content of {path} has passed by: another member was asked for")
                if (found := next(blocks, None)) is None:
                    break
                offset, block = found
                if offset < position or offset + len(block) > size:
                    raise LibarchiveError(f"the content of {path} is not what its header says")
                yield from _zeros(offset - position)
                yield block
                position = offset + len(block)
            yield from _zeros(size - position)  # a hole at the end


def _zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        yield _ZEROS[:size]
        size -= len(_ZEROS)


def _named(check: Callable[[bytes], str], raw: bytes | None, what: str) -> str:
    """Return what *check* makes of the name *raw*.

    :raises _HarmError: if it is not safe.
    """
    if raw is None:
        raise LibarchiveError(f"the name of {what} cannot be decoded")
    try:
        return check(raw)
    except UnsafeNameError as error:
        raise _HarmError(f"the name of {what} is refused, {shown(raw)}: {error}") from None


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    """Turn what goes wrong in the block into errors about the archive *name*."""
    try:
        yield
    except (LibarchiveError, CompressionError) as error:
        raise DamagedArchiveError(name, str(error)) from None
    except _TooMuchError as error:
        raise ArchiveLimitError(name, str(error)) from None
    except _HarmError as error:
        raise HostileArchiveError(name, str(error)) from None
