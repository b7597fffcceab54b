"""squashfs images, read as a stream: no root, no mount, no tree on the disk.

::

    image ──> superblock checked ──> sqfs2tar ──> libarchive ──> checked ──> Member, Member, ...

The format: https://docs.kernel.org/filesystems/squashfs.html; the superblock is ``struct squashfs_super_block``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import stat
import struct
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO

from pipeline.errors import PvmlabError
from pipeline.media.libarchive_binding import Entry, LibarchiveError, Reader
from pipeline.media.limits import USUAL, Limits
from pipeline.media.member import Member, MemberKind
from pipeline.media.names import UnsafeNameError, safe_path, safe_target, shown
from pipeline.run import PIPE, TAIL_LINES, Popen, spawn

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_MAGIC, _MAGIC_BIG_ENDIAN = b"hsqs", b"sqsh"
_COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_BLOCK = 1 << 20  # bytes taken from sqfs2tar at once, at most
_STALL = 120.0  # seconds without a byte: one block of the image takes milliseconds
_GRACE = 10.0  # seconds for sqfs2tar to end once all it had to say is read
_KINDS = {
    stat.S_IFREG: MemberKind.FILE, stat.S_IFDIR: MemberKind.DIRECTORY, stat.S_IFLNK: MemberKind.SYMLINK,
    stat.S_IFCHR: MemberKind.CHARACTER_DEVICE, stat.S_IFBLK: MemberKind.BLOCK_DEVICE, stat.S_IFIFO: MemberKind.FIFO,
}  # fmt: skip


class SquashfsError(PvmlabError):
    """A squashfs image is refused. Whatever was made of its members so far is to be thrown away.

    :ivar image: its file's name. :ivar reason: why.
    """

    def __init__(self, image: str, reason: str, *, resolution: str = "") -> None:
        self.image, self.reason = image, reason
        super().__init__(
            f"{image} cannot be read as a squashfs image",
            details=reason,
            resolution=resolution or "fetch the medium again: its digest says whether it is what was published",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Superblock:
    """What an image says of itself.

    :ivar compressor: its name; ``unknown (<number>)`` if there is none.
    :ivar made: when, in seconds since 1970. :ivar used: bytes of the image without the padding behind it.
    :ivar inodes: how many files there are.
    """

    compressor: str
    made: int
    used: int
    inodes: int


def read_superblock(image: Path) -> Superblock:
    """Return what the first 96 bytes of *image* say.

    :raises SquashfsError: if it is none of version 4, or shorter than it should be.
    :raises OSError: if it cannot be opened.
    """
    with image.open("rb") as stream:
        data, size = stream.read(_SUPERBLOCK.size), stream.seek(0, 2)
    if data[:4] == _MAGIC_BIG_ENDIAN:
        raise SquashfsError(image.name, "it is of a version before 4, which is older than 2009")
    if data[:4] != _MAGIC:
        raise SquashfsError(image.name, f"it does not begin like one, but with {shown(data[:4])}")
    if len(data) < _SUPERBLOCK.size:
        raise SquashfsError(image.name, f"it is truncated: it has {size} bytes")
    _, inodes, made, _, _, compressor, _, _, _, major, minor, _, used, *_ = _SUPERBLOCK.unpack(data)
    if major != 4:
        raise SquashfsError(image.name, f"it is of version {major}.{minor}; only version 4 can be read")
    if used > size:
        raise SquashfsError(image.name, f"it is truncated: it has {size} of {used} bytes")
    name = _COMPRESSORS.get(compressor, f"unknown ({compressor})")
    return Superblock(compressor=name, made=made, used=used, inodes=inodes)


def read_squashfs(image: Path, *, limits: Limits = USUAL) -> Generator[Member, None, None]:
    """Yield the members of *image*, each directory before what is in it, names sorted; the root itself is left out.

    The content of a file is to be read before the next member is asked for; what is not read is skipped. A hard link
    comes after the file it is the same as; of other things that have several names (overlayfs makes one node for all
    whiteouts) each name is a member of its own. Sockets are left out.

    :raises SquashfsError: if it is no squashfs, truncated, damaged, larger than *limits*, or holds an unsafe name. That
        all of it could be read is known only when the last member has been asked for in vain.
    :raises MissingProgramError: if sqfs2tar is not installed. :raises PrerequisiteError: if libarchive is not.
    """
    superblock = read_superblock(image)
    with _unpacking(image, superblock) as unpacker, Reader(formats=("tar",)) as reader:
        try:
            feed = _Feed(unpacker.stream, superblock, limits)
            yield from _Walk(reader, limits, unpacker).members(feed)
            while feed.next_piece():  # the padding behind the end
                pass
        except (LibarchiveError, _RefusedError) as error:
            raise unpacker.explain(error) from None
        unpacker.require_success()


class _RefusedError(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class _Unpacker:
    """sqfs2tar at work. :ivar stream: its output. :ivar errors: a file that takes its words."""

    process: Popen[bytes]
    stream: IO[bytes]
    errors: IO[bytes]
    image: Path
    superblock: Superblock

    def explain(self, error: Exception) -> SquashfsError:
        """Return *error* as people read it; if sqfs2tar failed, its words tell more than a tar that ends too early."""
        self.stream.close()  # if it still writes, this ends it
        said = self._complaint() if isinstance(error, LibarchiveError) else None
        return SquashfsError(self.image.name, said or str(error))

    def require_success(self) -> None:
        """:raises SquashfsError: if sqfs2tar failed; to be called once its output was read to the end."""
        if (said := self._complaint()) is not None:
            raise SquashfsError(self.image.name, said)

    def _complaint(self) -> str | None:
        if (status := self.process.wait(timeout=_GRACE)) in {0, -signal.SIGPIPE}:
            return None
        self.errors.seek(0)
        words = self.errors.read().decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        said = "; ".join(words) or f"sqfs2tar ended with status {status}"
        return f"it is damaged ({self.superblock.compressor} compressed): {said}"


@contextlib.contextmanager
def _unpacking(image: Path, superblock: Superblock) -> Iterator[_Unpacker]:
    """Have sqfs2tar run; it ends with the block."""
    with tempfile.TemporaryFile() as errors:
        process = spawn(["sqfs2tar", "--root-becomes", ".", image], stdout=PIPE, stderr=errors)
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        try:
            with process.stdout as stream:
                yield _Unpacker(process, stream, errors, image, superblock)
        finally:
            process.kill()
            process.wait()


class _Feed:
    """Takes what sqfs2tar writes and counts it."""

    def __init__(self, stream: IO[bytes], superblock: Superblock, limits: Limits) -> None:
        self._descriptor, self._given = stream.fileno(), 0
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._most = min(limits.total, max(limits.ratio_from, limits.ratio * superblock.used))

    def next_piece(self) -> bytes:
        """Return the next bytes, nothing at the end."""
        if not self._poll.poll(_STALL * 1000):
            raise _RefusedError(f"nothing came out of it for {_STALL:g} s")
        piece = os.read(self._descriptor, _BLOCK)
        self._given += len(piece)
        if self._given > self._most:
            raise _RefusedError(f"unpacked it has more than {self._most} bytes, which is more than is allowed")
        return piece


class _Walk:
    """One reading of an image: hard links are looked up among the members before."""

    def __init__(self, reader: Reader, limits: Limits, unpacker: _Unpacker) -> None:
        self._reader, self._limits, self._unpacker = reader, limits, unpacker
        self._nodes: dict[str, Member | None] = {}  # all but directories; None for a file, which a link may be to
        self._directories = {""}

    def members(self, feed: _Feed) -> Iterator[Member]:
        self._reader.open_feed(feed.next_piece)
        while (entry := self._reader.next_entry()) is not None:
            if (path := _named(safe_path, entry.path, "a member")) or entry.type != stat.S_IFDIR:
                member = self._checked(path, entry)
                self._remember(member)
                yield member
            self._reader.skip()

    def _checked(self, path: str, entry: Entry) -> Member:
        if not path:
            raise _RefusedError("its root is no directory")
        if len(self._nodes) + len(self._directories) > self._limits.members:
            raise _RefusedError(f"it has more than {self._limits.members} members")
        if path.rpartition("/")[0] not in self._directories:
            raise _RefusedError(f"{path} lies in no directory")
        if path in self._nodes or path in self._directories:
            raise _RefusedError(f"the name {path} is there twice")
        if entry.hardlink is not None:
            return self._linked(path, entry)
        kind, size = _KINDS.get(entry.type), entry.size or 0
        if kind is None:
            raise _RefusedError(f"{path} is of an unknown type ({entry.type:o})")
        if size > self._limits.member:
            raise _RefusedError(f"{path} has {size} bytes, more than {self._limits.member}")
        target = _named(safe_target, entry.symlink, f"the target of {path}") if kind is MemberKind.SYMLINK else ""
        return Member(
            path=path, kind=kind, mode=entry.perm, uid=entry.uid, gid=entry.gid, mtime=entry.mtime,
            size=size if kind is MemberKind.FILE else 0, target=target,
            device=entry.device if "device" in kind else (0, 0),
            xattrs={name.decode(errors="surrogateescape"): value for name, value in entry.xattrs},
            content=_Content(self._reader, self._unpacker) if size and kind is MemberKind.FILE else (),
        )  # fmt: skip

    def _linked(self, path: str, entry: Entry) -> Member:
        target = _named(safe_path, entry.hardlink, f"the target of the hard link {path}")
        if target not in self._nodes:
            raise _RefusedError(f"{path} is a hard link to {target or 'the root'}, which is no file before it")
        if (node := self._nodes[target]) is not None:  # a link to a link is one to what that is the same as
            return dataclasses.replace(node, path=path)
        return Member(
            path=path, kind=MemberKind.HARDLINK, mode=entry.perm, uid=entry.uid, gid=entry.gid, mtime=entry.mtime,
            target=target,
        )  # fmt: skip

    def _remember(self, member: Member) -> None:
        if member.kind is MemberKind.DIRECTORY:
            self._directories.add(member.path)
        else:
            self._nodes[member.path] = None if member.kind is MemberKind.FILE else member


@dataclasses.dataclass(frozen=True, slots=True)
class _Content:
    """The content of the member at which the reader stands. A tar has no holes: the blocks are all of it."""

    reader: Reader
    unpacker: _Unpacker

    def __iter__(self) -> Iterator[bytes]:
        try:
            for _, block in self.reader.blocks():
                yield block
        except (LibarchiveError, _RefusedError) as error:
            raise self.unpacker.explain(error) from None


def _named(check: Callable[[bytes], str], raw: bytes | None, what: str) -> str:
    try:
        return check(raw or b"")
    except UnsafeNameError as error:
        raise _RefusedError(f"the name of {what} ({shown(raw or b'')}) is not safe: {error}") from None
