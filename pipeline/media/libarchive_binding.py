"""libarchive with types: the few calls that reading a stream needs, over the ctypes declarations of libarchive-c.

libarchive-c's own entries know no extended attributes and let warnings pass, which libarchive gives for some damages
too. Nothing here writes to the disk, and no filter that would start a program can be asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import enum
import functools
import importlib
import locale
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from pipeline.errors import PrerequisiteError

_EOF, _WARN, _FATAL = 1, -20, -30  # archive.h
_BLOCK = 256 << 10  # bytes read at once from a file
_FORMAT_FAMILY = 0xFF0000  # ARCHIVE_FORMAT_BASE_MASK
TAR, CPIO = 0x30000, 0x10000
_NO_TEXT = "it is cut off or damaged"
# Names of owners are not used (their numbers are), so it does not matter in which character set they are.
_HARMLESS = ("Uname can't be converted", "Gname can't be converted")


class Compression(enum.IntEnum):
    """What libarchive is to take off: its numbers (``archive.h``). Some of the others start programs."""

    LZ4 = 13
    ZSTD = 14


class LibarchiveError(Exception):
    """libarchive refuses to read on; the text is its own."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """The header of a member, as libarchive tells it: nothing in it is checked.

    :ivar path: None if it could not be decoded. :ivar type: the file type bits of ``st_mode``, 0 if it has none.
    :ivar perm: permission bits with setuid, setgid and sticky. :ivar size: bytes, None if the header tells none.
    :ivar links: how many names the file has; told by cpio only.
    """

    path: bytes | None
    type: int
    perm: int
    uid: int
    gid: int
    mtime: int
    size: int | None
    links: int
    hardlink: bytes | None
    symlink: bytes | None
    device: tuple[int, int]
    xattrs: Sequence[tuple[bytes, bytes]]


@functools.cache
def _ffi() -> Any:
    """Return the module ``libarchive.ffi``, with the calls that it lacks.

    :raises PrerequisiteError: if the library is not installed.
    """
    try:
        ffi = importlib.import_module("libarchive.ffi")
    except (ImportError, AttributeError, OSError, TypeError) as error:  # it looks functions up in whatever it found
        raise PrerequisiteError(
            "libarchive is not installed, and archives that others made are read with it",
            details=f"{type(error).__name__}: {error}",
            resolution="./pvmlab setup installs it (the package libarchive13 or libarchive13t64)",
        ) from error
    logging.getLogger("libarchive").addHandler(logging.NullHandler())  # its warnings are errors here
    size, pointer = ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_void_p)
    ffi.ffi("format", [ctypes.c_void_p], ctypes.c_int)
    ffi.ffi("read_append_filter", [ctypes.c_void_p, ctypes.c_int], ctypes.c_int, ffi.check_int)
    ffi.ffi("entry_nlink", [ctypes.c_void_p], ctypes.c_uint)
    ffi.ffi("entry_xattr_reset", [ctypes.c_void_p], ctypes.c_int)
    ffi.ffi("entry_xattr_next", [ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), pointer, size], ctypes.c_int)
    return ffi


class Reader:
    """An archive that is read from the front to the end. Use as a context manager; open it once.

    :raises PrerequisiteError: if libarchive is not installed.
    """

    def __init__(self, *, formats: Sequence[str], compression: Compression | None = None) -> None:
        """Prepare to read one of *formats* (``tar``, ``cpio``, ``raw``, ``iso9660``) inside one layer of *compression*.

        :raises LibarchiveError: if the library cannot decompress it itself.
        """
        self._ffi = ffi = _ffi()
        self._failures: list[BaseException] = []
        self._is_closed = False
        self._block = b""  # libarchive reads it after the callback has returned
        self._callback = ffi.READ_CALLBACK(lambda *_: _FATAL)
        self._archive: int = ffi.read_new()
        self._entry: int = ffi.entry_new()
        if compression is not None:
            # not "support": that would take off as many layers as there are
            self._call(ffi.read_append_filter, compression.value)
        for name in formats:
            self._call(ffi.get_read_format_function(name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._ffi.read_free(self._archive)
        self._ffi.entry_free(self._entry)

    def open_feed(self, feed: Callable[[], bytes]) -> None:
        """Read the bytes that *feed* returns, call by call, empty at the end.

        :raises LibarchiveError: if they are none of the formats. What *feed* raises comes out as it is, here and later.
        """

        def read(_archive: object, _context: object, place: Any) -> int:
            try:
                self._block = feed()
            except BaseException as error:  # noqa: BLE001 (nothing may be raised into C; _call raises it again)
                self._failures.append(error)
                return _FATAL
            place[0] = ctypes.cast(ctypes.c_char_p(self._block), ctypes.c_void_p)
            return len(self._block)

        self._callback = self._ffi.READ_CALLBACK(read)  # must live as long as the archive
        self._call(self._ffi.read_open, None, self._ffi.NO_OPEN_CB, self._callback, self._ffi.NO_CLOSE_CB)

    def open_file(self, descriptor: int) -> None:
        """Read an open file, whose position libarchive moves as it likes.

        :raises LibarchiveError: if it is none of the formats.
        """
        self._call(self._ffi.read_open_fd, descriptor, _BLOCK)

    @property
    def family(self) -> int:
        """What it is, known after the first header: :data:`TAR`, :data:`CPIO` or something else."""
        return int(self._ffi.format(self._archive)) & _FORMAT_FAMILY

    @property
    def position(self) -> int:
        """How many bytes of the archive, decompressed, have been taken in."""
        return int(self._ffi.filter_bytes(self._archive, 0))

    def next_entry(self) -> Entry | None:
        """Return the next header, None after the last. What is unread of the member before is skipped.

        :raises LibarchiveError: if it is damaged in any way.
        """
        with _utf8_locale():
            code = self._call(self._ffi.read_next_header2, self._entry)
        return None if code == _EOF else self._read_entry()

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the content of the current member: where a block begins in it, and the block. Between may be holes.

        :raises LibarchiveError: if it is damaged.
        """
        buffer, size, offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_longlong()
        arguments = (ctypes.byref(buffer), ctypes.byref(size), ctypes.byref(offset))
        while self._call(self._ffi.read_data_block, *arguments) != _EOF:
            if size.value and buffer.value:
                yield offset.value, ctypes.string_at(buffer.value, size.value)

    def skip(self) -> None:
        """Pass over what is unread of the current member.

        :raises LibarchiveError: if it is damaged.
        """
        self._call(self._ffi.read_data_skip)

    def _call(self, function: Callable[..., int], *arguments: object) -> int:
        """Call libarchive; errors and warnings become a :class:`LibarchiveError`."""
        if self._is_closed:  # its memory is gone
            raise RuntimeError("the archive is closed")
        try:
            code = function(self._archive, *arguments)
        except Exception:  # noqa: BLE001 (its ArchiveError, a class that is known once it is loaded)
            if self._failures:
                raise self._failures[0] from None
            raise LibarchiveError(self._message() or _NO_TEXT) from None
        if self._failures:  # it may take what was read before as all there is
            raise self._failures[0]
        if code == _WARN and not (message := self._message()).startswith(_HARMLESS):
            raise LibarchiveError(message or _NO_TEXT)
        return code

    def _message(self) -> str:
        return (self._ffi.error_string(self._archive) or b"").decode(errors="replace")

    def _read_entry(self) -> Entry:
        ffi, entry = self._ffi, self._entry
        return Entry(
            path=ffi.entry_pathname(entry), type=ffi.entry_filetype(entry), perm=ffi.entry_perm(entry),
            uid=ffi.entry_uid(entry), gid=ffi.entry_gid(entry), mtime=ffi.entry_mtime(entry),
            size=ffi.entry_size(entry) if ffi.entry_size_is_set(entry) else None,
            links=ffi.entry_nlink(entry), hardlink=ffi.entry_hardlink(entry), symlink=ffi.entry_symlink(entry),
            device=(ffi.entry_rdevmajor(entry), ffi.entry_rdevminor(entry)), xattrs=self._xattrs(),
        )  # fmt: skip

    def _xattrs(self) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        if self._ffi.entry_xattr_reset(self._entry):
            name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
            arguments = (ctypes.byref(name), ctypes.byref(value), ctypes.byref(size))
            while self._ffi.entry_xattr_next(self._entry, *arguments) == 0:
                found.append((name.value or b"", ctypes.string_at(value.value, size.value) if value.value else b""))
        return found


def load() -> None:
    """Load libarchive now rather than when something is read: finding it starts a program once.

    :raises PrerequisiteError: if it is not installed.
    """
    _ffi()


@contextlib.contextmanager
def _utf8_locale() -> Iterator[None]:
    """Have the C library take names as UTF-8 in this thread, as Python does; else what is not ASCII cannot be read."""
    if sys.platform != "linux" or locale.nl_langinfo(locale.CODESET) == "UTF-8":
        yield
        return
    before = _c_library().uselocale(_c_utf8())
    try:
        yield
    finally:
        _c_library().uselocale(before)


@functools.cache
def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    library.uselocale.argtypes = [ctypes.c_void_p]
    library.newlocale.restype = library.uselocale.restype = ctypes.c_void_p
    return library


@functools.cache
def _c_utf8() -> int | None:
    made: int | None = _c_library().newlocale(1 << locale.LC_CTYPE, b"C.UTF-8", None)
    return made  # None changes nothing, see uselocale(3)
