"""Writing initramfs archives: cpio in the "newc" format, the same bytes for the same plan.

The format is the kernel's, Documentation/driver-api/early-userspace/buffer-format.rst. Owners are root, times are
zero and inode numbers count from one, so nothing of the machine that builds gets in; device nodes need no privilege.
"""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from isal import igzip

from pipeline.compression import GZIP_LEVEL

_MAGIC = "070701"
_HEADER_SIZE = 110
_TRAILER = "TRAILER!!!"
_BLOCK = 512  # what cpio(1) pads to
_MAX_FILE_SIZE = 0xFFFF_FFFF  # the header's size field has eight hex digits
_NOT_A_PART = frozenset({"", ".", ".."})


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file of an archive.

    :ivar path: where it is unpacked, relative, with forward slashes.
    :ivar mode: file type and permission bits, as ``st_mode``.
    :ivar data: content of a regular file, target of a symlink.
    :ivar device: major and minor number of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not _NOT_A_PART.isdisjoint(self.path.split("/")):
            raise ValueError(f"{self.path!r} is not a relative path in its shortest form")
        if not self.path.isprintable():
            raise ValueError(f"{self.path!r} holds a character no file of an archive should have in its name")
        if len(self.data) > _MAX_FILE_SIZE:
            raise ValueError(f"{self.path} is {len(self.data)} bytes long, newc takes less than 4 GiB")


def directory(path: str, *, mode: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(path, stat.S_IFDIR | mode)


def regular(path: str, data: bytes, *, mode: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(path, stat.S_IFREG | mode, data)


def symlink(path: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, *, mode: int = 0o600) -> Entry:
    """Return a character device node."""
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def arrange(entries: Iterable[Entry]) -> list[Entry]:
    """Return *entries* sorted by path, with every missing parent directory added (mode 0755).

    :raises ValueError: if two entries have the same path, or one lies below something that is no directory.
    """
    plan: dict[str, Entry] = {}
    for entry in entries:
        if entry.path in plan:
            raise ValueError(f"{entry.path} is in the archive twice")
        plan[entry.path] = entry
    for path in list(plan):
        parent = path.rpartition("/")[0]
        while parent:
            above = plan.get(parent)
            if above is None:
                plan[parent] = directory(parent)
            elif not stat.S_ISDIR(above.mode):
                raise ValueError(f"{path} lies below {parent}, which is not a directory")
            else:
                break  # what is above this one was looked at with it, or will be
            parent = parent.rpartition("/")[0]
    # By components, so that a directory comes before what is in it whatever its neighbours are called.
    return sorted(plan.values(), key=lambda entry: entry.path.split("/"))


def write(stream: BinaryIO, entries: Iterable[Entry]) -> None:
    """Write *entries*, arranged, as one archive to *stream*.

    :raises ValueError: see :func:`arrange`.
    """
    size = 0
    for chunk in _chunks(arrange(entries)):
        stream.write(chunk)
        size += len(chunk)
    stream.write(bytes(-size % _BLOCK))


def write_gzip(path: Path, entries: Iterable[Entry]) -> None:
    """Write *entries*, arranged and compressed, to the file *path*; the gzip header holds no name and no time.

    :raises ValueError: see :func:`arrange`.
    """
    open_packed = cast("Callable[..., BinaryIO]", igzip.IGzipFile)
    with path.open("wb") as raw, open_packed("", "wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0) as packed:
        write(packed, entries)


def _chunks(plan: Iterable[Entry]) -> Iterator[bytes]:
    for inode, entry in enumerate(plan, start=1):
        yield _header(entry, inode)
        yield entry.data
        yield bytes(-len(entry.data) % 4)
    yield _header(Entry(_TRAILER, 0), 0)


def _header(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    no_owner, no_time, no_device, no_checksum = (0, 0), 0, (0, 0), 0
    fields = (
        inode, entry.mode, *no_owner, links, no_time, len(entry.data), *no_device, *entry.device, len(name),
        no_checksum,
    )  # fmt: skip
    header = _MAGIC.encode() + b"".join(b"%08X" % field for field in fields) + name
    return header + bytes(-len(header) % 4)
