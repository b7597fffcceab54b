"""A disc by libarchive, for discs that pycdlib refuses: it forgives more, but does not tell where a file is.

It knows ISO 9660 with Rock Ridge, Joliet and zisofs, not UDF: a disc that has nothing else looks empty to it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Collection, Iterator

from pipeline.media.disc_tree import DiscFile, DiscTree, UnreadableError
from pipeline.media.libarchive_binding import Entry, LibarchiveError, Reader
from pipeline.media.names import UnsafeNameError, safe_path

_SECONDS = 60.0
_MOST_REPEATS = 1000  # of directories that hold each other libarchive never sees the end


def read_tree(descriptor: int) -> DiscTree:
    """Return the tree of the disc that is open as *descriptor*.

    :raises UnreadableError: if libarchive refuses it. :raises PrerequisiteError: if libarchive is not installed.
    """
    tree, deadline = DiscTree(), time.monotonic() + _SECONDS
    with _reader(descriptor) as reader:
        for path, entry in _entries(reader):
            if time.monotonic() > deadline:
                raise UnreadableError(f"libarchive: its directories take more than {_SECONDS:g} s")
            if entry.hardlink is not None:  # the same bytes as a file before
                target = _path(entry.hardlink)
                if target is not None and target in tree.files:
                    tree.add_file(path, DiscFile(size=tree.files[target].size, same_as=target))
            elif entry.type == stat.S_IFREG:
                tree.add_file(path, DiscFile(size=entry.size or 0))
            elif entry.type == stat.S_IFLNK and entry.symlink is not None:
                tree.add_link(path, entry.symlink)
    return tree


def contents(descriptor: int, paths: Collection[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield each of *paths* with its content, in the disc's order: to be read before the next is asked for.

    :raises UnreadableError: if the disc is damaged.
    """
    missing = set(paths)
    with _reader(descriptor) as reader:
        for path, entry in _entries(reader):
            if path in missing and entry.type == stat.S_IFREG and entry.hardlink is None:
                missing.remove(path)
                yield path, _pieces(reader)
            if not missing:
                return


@contextlib.contextmanager
def _reader(descriptor: int) -> Iterator[Reader]:
    try:
        with Reader(formats=("iso9660",)) as reader:
            os.lseek(descriptor, 0, os.SEEK_SET)
            reader.open_file(descriptor)
            yield reader
    except LibarchiveError as error:
        raise UnreadableError(f"libarchive: {error}") from None


def _entries(reader: Reader) -> Iterator[tuple[str, Entry]]:
    """Yield what is on the disc by its path; what has no safe name, and the root, are left out.

    :raises UnreadableError: if it comes again and again.
    """
    seen, repeats = set[str](), 0
    while (entry := reader.next_entry()) is not None:
        path = _path(entry.path)
        repeats += path is None or path in seen
        if repeats > _MOST_REPEATS:
            raise UnreadableError("libarchive: its directories hold each other")
        if path is not None:
            seen.add(path)
            yield path, entry


def _path(raw: bytes | None) -> str | None:
    try:
        return safe_path(raw or b"") or None
    except UnsafeNameError:
        return None


def _pieces(reader: Reader) -> Iterator[bytes]:
    """Yield the content of the current file; an ISO 9660 file has no holes."""
    position = 0
    for offset, block in reader.blocks():
        if offset != position:
            raise LibarchiveError("a file's content is not in one piece")
        yield block
        position += len(block)
