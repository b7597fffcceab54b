"""What is inside an artifact: each regular file of an archive with its digests, read as a stream.

::

    *.tar, *.tar.zst ──> members     *.tar that is a container image ──> members, and those of its layers
    initrd*, *.cpio.gz ──> the files of each archive in it (the kernel takes several, one after the other)

Whatever the size of an archive, less than 100 MiB of it are in memory: what the 1 KiB that is decompressed at once can
become. Kernels, EFI programs and disk images are not looked into.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import hashlib
import json
import lzma
import stat
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol, Self, cast

import zstandard

from pipeline.documents import cpio_reader
from pipeline.errors import PvmlabError

_TARS = ("*.tar", "*.tar.zst")
_INITRDS = ("initrd*", "*.cpio.gz")
_CHUNK = 1 << 20
_COMPRESSED_CHUNK = 1 << 10  # zstd makes 128 KiB of four bytes if all are equal
_ZEROS = 1 << 12
_TAR_BUFFER = 1 << 16  # tarfile moves all of it at every header
_GZIP, _ZSTD, _XZ, _MAGIC_SIZE = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zX", 4
# What kernels read besides (lz4, lzo, lzma, bzip2): what distributions have compressed so is not looked into.
_OPAQUE = (b"BZh", b"\x02\x21\x4c\x18", b"\x89LZO", b"\x5d\x00\x00")
_GZIP_FORMAT = 31  # zlib's wbits for a gzip header
_DAMAGE = (
    tarfile.TarError, zlib.error, zstandard.ZstdError, lzma.LZMAError, EOFError, ValueError, LookupError,
    OverflowError,  # tarfile's, for a size beyond all memory
)  # fmt: skip


class DamagedArchiveError(PvmlabError):
    """An artifact that is an archive cannot be read to its end."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(
            f"{path.name} is damaged: its content cannot be read",
            details=f"{path}: {reason}",
            resolution="build it again: doit compares it with its recorded digest",
        )


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class ContainedFile:
    """A regular file in an artifact.

    :ivar path: where it is unpacked, relative; in a container image ``blobs/sha256/<layer>/<path in the layer>``.
    """

    path: str
    sha1: str
    sha256: str
    size: int


def files_in(path: Path) -> Iterator[ContainedFile]:
    """Yield the files in the artifact *path*, in the order of the archive; none if by its name it is no archive.

    A hard link is a file like any other; directories, symbolic links and devices are none.

    :raises DamagedArchiveError: if the archive is cut off, or not what its name says.
    :raises OSError: if it cannot be read.
    """
    is_tar, is_initrd = (any(fnmatch.fnmatch(path.name, name) for name in names) for names in (_TARS, _INITRDS))
    if not is_tar and not is_initrd:
        return
    with path.open("rb") as stream:
        source = _Source(iter(functools.partial(stream.read, _CHUNK), b""))
        try:
            if is_initrd:
                yield from _initrd_files(source)
            else:
                yield from _tar_files(_unpacked(source), layers=_layers(path) if path.suffix == ".tar" else ())
        except _DAMAGE as error:
            raise DamagedArchiveError(path, str(error)) from error


class _Source:
    """Bytes read forward from chunks, where what was read too much can be put back."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._ahead = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return *size* bytes, fewer at the end only."""
        found = bytearray()
        while len(found) < size:
            if not self._ahead:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._ahead = memoryview(chunk)
            missing = size - len(found)
            found += self._ahead[:missing]
            self._ahead = self._ahead[missing:]
        return bytes(found)

    def put_back(self, data: bytes) -> None:
        """Let the next read begin with *data*."""
        self._ahead = memoryview(data + self._ahead)

    def peek(self, size: int) -> bytes:
        """Return what the next read of *size* will."""
        data = self.read(size)
        self.put_back(data)
        return data

    def skip_zeros(self) -> None:
        """Go to the next byte that is not zero, or to the end."""
        while chunk := self.read(_ZEROS):
            if rest := chunk.lstrip(b"\0"):
                self.put_back(rest)
                break

    def drain(self) -> None:
        """Read to the end, so that checksums behind the last byte used are checked too."""
        while self.read(_CHUNK):
            pass


class _Decompressor(Protocol):
    """What zlib's and zstandard's objects for one stream have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _decompressor(magic: bytes) -> _Decompressor | None:
    """Return what decompresses a stream that begins with *magic*, or None if it is not compressed as we know it."""
    if magic.startswith(_GZIP):
        return zlib.decompressobj(wbits=_GZIP_FORMAT)
    if magic.startswith(_ZSTD):
        return zstandard.ZstdDecompressor().decompressobj()
    if magic.startswith(_XZ):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ)
    return None


def _decompressed(source: _Source, decompressor: _Decompressor) -> Iterator[bytes]:
    """Yield one compressed stream's content; *source* then stands behind it."""
    while not decompressor.eof:
        chunk = source.read(_COMPRESSED_CHUNK)
        if not chunk:
            raise EOFError("the compressed data is cut off")
        yield decompressor.decompress(chunk)
    source.put_back(decompressor.unused_data)


def _unpacked(source: _Source) -> _Source:
    """Return the content of *source*, whether it is compressed (in one piece or several) or not."""

    def pieces() -> Iterator[bytes]:
        while magic := source.peek(_MAGIC_SIZE):
            decompressor = _decompressor(magic)
            if decompressor is None:
                raise ValueError("something follows the compressed data")
            yield from _decompressed(source, decompressor)

    return _Source(pieces()) if _decompressor(source.peek(_MAGIC_SIZE)) else source


class _Tally:
    """Digests and size of what passes through."""

    def __init__(self) -> None:
        self._sha1, self._sha256, self._size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield *chunks*, counted."""
        for chunk in chunks:
            self._sha1.update(chunk)
            self._sha256.update(chunk)
            self._size += len(chunk)
            yield chunk

    def file(self, path: str) -> ContainedFile:
        """Return what has passed as a file."""
        return ContainedFile(path, self._sha1.hexdigest(), self._sha256.hexdigest(), self._size)


def _contained(path: str, chunks: Iterable[bytes]) -> ContainedFile:
    tally = _Tally()
    for _ in tally.through(chunks):
        pass
    return tally.file(path)


class _StrictTarInfo(tarfile.TarInfo):
    """A member of a tar that must have a whole header: :mod:`tarfile` takes a damaged one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the mark at the end
            raise tarfile.ReadError(f"a header is damaged or missing ({error})") from error


def _tar_files(source: _Source, *, layers: Collection[str] = (), below: str = "") -> Iterator[ContainedFile]:
    """Yield the files of a tar as paths that begin with *below*; before a member named in *layers* those in it."""
    found: dict[str, ContainedFile | None] = {}  # None: something else, which hard links may name as well
    # Names do not depend on the locale; a byte that is not UTF-8 becomes the text \xff.
    with tarfile.open(
        fileobj=cast("IO[bytes]", source), mode="r|", bufsize=_TAR_BUFFER, tarinfo=_StrictTarInfo,
        encoding="utf-8", errors="backslashreplace",
    ) as archive:  # fmt: skip
        for member in archive:
            name, file = _relative(member.name), None
            if member.islnk():
                file = _linked(found, name, _relative(member.linkname), below)
            elif member.isreg():
                tally = _Tally()
                chunks = tally.through(_content(archive, member))
                if name in layers:
                    yield from _tar_files(_unpacked(_Source(chunks)), below=f"{below}{name}/")
                for _ in chunks:
                    pass
                file = tally.file(below + name)
            found[name] = file
            if file is not None:
                yield file
    source.drain()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    stream = archive.extractfile(member)
    assert stream is not None  # noqa: S101 (it is a regular file)
    with stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _linked(found: Mapping[str, ContainedFile | None], name: str, target: str, below: str) -> ContainedFile | None:
    """Return what the hard link *name* to *target* is: a file like the one found before."""
    if target not in found:
        raise ValueError(f"{name} is a hard link to {target}, which is not in the archive")
    file = found[target]
    return None if file is None else dataclasses.replace(file, path=below + name)


def _layers(path: Path) -> frozenset[str]:
    """Return the names of the layers in the tar at *path*, if it is a container image (see :mod:`pipeline.oci`)."""
    with tarfile.open(path, "r:", tarinfo=_StrictTarInfo) as archive:
        if "oci-layout" not in archive.getnames():
            return frozenset()
        manifest = archive.extractfile("manifest.json")
        try:
            (image,) = json.loads(manifest.read() if manifest is not None else b"")
            layers = frozenset(map(str, image["Layers"]))
        except (TypeError, ValueError) as error:
            raise ValueError("manifest.json is not that of a container image") from error
        if missing := sorted(layers.difference(archive.getnames())):
            raise ValueError(f"the layer {missing[0]} is missing")
        return layers


class _OpaqueError(Exception):
    """What follows is compressed in a way that is not read here."""


def _initrd_files(source: _Source) -> Iterator[ContainedFile]:
    """Yield the files of all archives of an initrd."""
    empty = True
    try:
        for archive in _archives(source):
            empty = False
            yield from _cpio_files(archive)
    except _OpaqueError:
        return
    if empty:
        raise ValueError("there is no archive in it")


def _archives(source: _Source) -> Iterator[_Source]:
    """Yield for each archive in *source* what to read it from; it must be read to its trailer before the next."""
    source.skip_zeros()
    while magic := source.peek(_MAGIC_SIZE):
        if magic.startswith(_OPAQUE):
            raise _OpaqueError
        decompressor = _decompressor(magic)
        if decompressor is None:
            yield source
        else:
            content = _Source(_decompressed(source, decompressor))
            content.skip_zeros()
            while content.peek(1):
                yield content
                content.skip_zeros()
        source.skip_zeros()


def _cpio_files(archive: _Source) -> Iterator[ContainedFile]:
    """Yield the files of one archive. Of a file with several names, the last comes with the content."""
    waiting: dict[tuple[int, ...], list[str]] = {}
    for member in cpio_reader.read(archive):
        if not stat.S_ISREG(member.mode):
            continue
        path = _relative(member.path)
        if member.links > 1 and not member.size:
            waiting.setdefault(member.inode, []).append(path)
            continue
        file = _contained(path, member.content)
        yield file
        for name in waiting.pop(member.inode, ()):
            yield dataclasses.replace(file, path=name)
    for path in (path for paths in waiting.values() for path in paths):
        yield _contained(path, ())


def _relative(name: str) -> str:
    return name.removeprefix("./").lstrip("/")
