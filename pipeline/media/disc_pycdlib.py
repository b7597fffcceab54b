"""A disc's tree by pycdlib: the one reader that tells where the bytes of a file are.

pycdlib gives the last extent of a file of several (4 GiB and more) as the file; here all of them are put together. It
shortens what lies beyond the end of the disc, reads as much as a directory says it has, and takes a time that grows
with the square of a directory which is not sorted; so it sees the disc through :class:`_Window`.
"""

from __future__ import annotations

import bisect
import io
import itertools
import os
import time
from collections.abc import Iterator
from typing import BinaryIO, cast

import pycdlib
from pycdlib.dr import DirectoryRecord

from pipeline.media.disc_tree import DiscFile, DiscTree, Extent, UnreadableError, child_path

_LONGEST_READ = 8 << 20  # bytes; a directory of 50,000 entries
_MOST_READ = 32 << 20  # bytes of all directories together; it also adds up boot images, byte by byte
_SECONDS = 60.0
_ANY_ORDER = 64 << 10  # bytes; smaller directories are sorted soon enough
_MOST_STEPS = 20_000_000  # some seconds
_DEEPEST = 64


def read_tree(descriptor: int) -> DiscTree:
    """Return the tree of the disc that is open as *descriptor*: names of Rock Ridge, else of Joliet, else as they are.

    :raises UnreadableError: if pycdlib refuses it, or it would take too much memory or time.
    """
    disc = pycdlib.PyCdlib()
    try:
        disc.open_fp(cast(BinaryIO, _Window(descriptor)))
        return _Walk(disc).tree()
    except UnreadableError:
        raise
    except Exception as error:  # noqa: BLE001 (on hostile discs it raises what it likes: struct.error, KeyError ...)
        raise UnreadableError(f"pycdlib: {str(error) or type(error).__name__}") from None


class _Walk:
    def __init__(self, disc: pycdlib.PyCdlib) -> None:
        self._block = disc.logical_block_size
        self._is_joliet = not disc.has_rock_ridge() and disc.has_joliet()
        self._has_rock_ridge = disc.has_rock_ridge()
        root = disc.get_record(joliet_path="/") if self._is_joliet else disc.get_record(iso_path="/")
        self._root = cast(DirectoryRecord, root)  # what it may also be is of UDF

    def tree(self) -> DiscTree:
        tree, seen = DiscTree(), {id(self._root)}
        folders = [("", self._root, 0)]
        while folders:
            folder, directory, depth = folders.pop()
            for records in _by_name(directory.children):
                record = records[0]
                path = child_path(folder, self._name(record))
                if path is None or _is_relocated(record):
                    continue
                below = _directory(record)
                if below is not None:
                    if id(below) not in seen and depth < _DEEPEST:
                        seen.add(id(below))
                        folders.append((path, below, depth + 1))
                elif (target := _link_target(record)) is not None:
                    tree.add_link(path, target)
                else:
                    tree.add_file(path, self._file(records))
        return tree

    def _name(self, record: DirectoryRecord) -> bytes:
        if self._has_rock_ridge and record.rock_ridge is not None and (name := record.rock_ridge.name()):
            return bytes(name)
        raw = record.file_identifier()
        if self._is_joliet:
            return raw.decode("utf-16-be", errors="replace").partition(";")[0].encode()
        # without the version, and the dot that is there even if no extension follows (ECMA-119, 7.5.1)
        return raw.decode("latin-1").partition(";")[0].removesuffix(".").encode()

    def _file(self, records: list[DirectoryRecord]) -> DiscFile:
        """Return the file that *records* are the extents of."""
        extents = tuple(self._extent(record) for record in records)
        if any(extent.size % self._block for extent in extents[:-1]):
            raise UnreadableError("pycdlib: an extent in the middle of a file does not fill its last block")
        return DiscFile(
            size=sum(extent.size for extent in extents), extents=tuple(each for each in extents if each.size)
        )

    def _extent(self, record: DirectoryRecord) -> Extent:
        if record.file_unit_size or record.interleave_gap_size:
            raise UnreadableError("pycdlib: a file is interleaved with another")
        start = record.extent_location() + record.xattr_len  # an extended attribute record comes first
        return Extent(start * self._block, record.get_data_length())


def _by_name(children: list[DirectoryRecord]) -> Iterator[list[DirectoryRecord]]:
    """Yield the records of each entry of a directory: several for a file of several extents, which share the name."""
    wanted = (
        record for record in children if not (record.is_dot() or record.is_dotdot() or record.is_associated_file())
    )
    for _, group in itertools.groupby(wanted, key=lambda record: (record.file_identifier(), record.is_dir())):
        records = list(group)
        yield from [[record] for record in records] if records[0].is_dir() else [records]


def _is_relocated(record: DirectoryRecord) -> bool:
    """Return whether *record* is a deep directory where ISO 9660 allows it, eight levels down; Rock Ridge moves it."""
    return record.rock_ridge is not None and bool(record.rock_ridge.relocated_record())


def _directory(record: DirectoryRecord) -> DirectoryRecord | None:
    """Return the directory that *record* stands for, or None if it is a file or a link."""
    if record.rock_ridge is not None and record.rock_ridge.child_link_record_exists():
        return record.rock_ridge.cl_to_moved_dr
    return record if record.is_dir() else None


def _link_target(record: DirectoryRecord) -> bytes | None:
    """Return where the symbolic link *record* points, or None if it is none."""
    if record.rock_ridge is None or not record.rock_ridge.is_symlink():
        return None
    return record.rock_ridge.symlink_path()


class _Window(io.RawIOBase):
    """The disc as pycdlib may see it: endless, so that no length is shortened, but only so much of it at once."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._place = self._read = 0
        self._deadline = time.monotonic() + _SECONDS

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; the end is beyond all that can be addressed."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: 1 << 62}[whence]
        return self._place

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return at most *size* bytes.

        :raises UnreadableError: if they are too many, or pycdlib works for too long already.
        """
        self._read += size
        if not 0 <= size <= _LONGEST_READ or self._read > _MOST_READ:
            raise UnreadableError("pycdlib: its directories are too large")
        if time.monotonic() > self._deadline:
            raise UnreadableError(f"pycdlib: its directories take more than {_SECONDS:g} s")
        data = os.pread(self._descriptor, size, self._place) if self._place < 1 << 62 else b""
        self._place += len(data)
        if size > _ANY_ORDER and _sorting_steps(data) > _MOST_STEPS:
            raise UnreadableError("pycdlib: a large directory is not sorted")
        return data


def _sorting_steps(data: bytes) -> int:
    """Return how many records pycdlib has to pass by to put those of the directory *data* in their places."""
    names, place, steps = list[bytes](), 0, 0
    while place + 33 < len(data):
        length = data[place]
        if length == 1:  # a path table: its first entry is the root, whose name has one byte
            return 0
        if not length:  # the rest of the block is empty
            place += 512 - place % 512
            continue
        name = data[place + 33 : place + 33 + data[place + 32]]
        index = bisect.bisect_left(names, name)
        steps += len(names) - index
        names.insert(index, name)
        place += length
    return steps
