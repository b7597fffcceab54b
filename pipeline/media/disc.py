"""A disc image (ISO 9660 with Rock Ridge or Joliet, UDF): what is on it, and files out of it.

::

    disc_volume   formats, label, boot catalog, truncated or not
    disc_pycdlib  names, sizes, places ──refuses──> disc_libarchive  names, sizes ──refuses──> disc_7zip  UDF, odd discs
    extents       the kernel copies                 one pass                                   one file at a time

Files are asked for by name and written where the caller says; a name on the disc never becomes a path of the host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline.media import disc_7zip, disc_libarchive, disc_pycdlib
from pipeline.media.disc_tree import DiscTree, UnreadableError, sizes
from pipeline.media.disc_volume import BootImage, BootPlatform, DiscError, DiscFormat, Volume, read_volume
from pipeline.media.extents import ShortFileError, copy_extents
from pipeline.progress import Progress, ProgressListener, ignore_progress

__all__ = ["BootImage", "BootPlatform", "Disc", "DiscError", "DiscFormat", "DiscReader", "extract", "inspect"]

_TEXT_LIMIT = 1 << 20  # bytes


class DiscReader(enum.StrEnum):
    """Who can read a disc."""

    PYCDLIB = "pycdlib"
    LIBARCHIVE = "libarchive"
    SEVEN_ZIP = "7-Zip"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disc(Volume):
    """A disc image; what it says of itself is in the fields of :class:`~pipeline.media.disc_volume.Volume`.

    :ivar path: the file. :ivar reader: who reads it.
    :ivar members: size in bytes of each file by its path (no slash in front), sorted; links are not among them.
    """

    path: Path
    reader: DiscReader
    members: Mapping[str, int]
    tree: DiscTree = dataclasses.field(repr=False)

    def find(self, name: str) -> str | None:
        """Return the path of the file *name*, symbolic links on the disc followed, or None if there is none."""
        return self.tree.find(name)

    def require(self, name: str) -> str:
        """Return the path of the file *name*, symbolic links on the disc followed.

        :raises DiscError: if there is none; it names those that may be meant.
        """
        if (path := self.find(name)) is not None:
            return path
        near = ", ".join(self.tree.near(name))
        raise DiscError(
            self.path,
            f"has no file {name}",
            details=f"likely ones: {near}" if near else f"there are {len(self.members)} files on it, none like it",
            resolution="correct the name in the definition of the distribution",
        )

    def read(self, name: str, *, limit: int = _TEXT_LIMIT) -> bytes:
        """Return the content of the small file *name*.

        :raises DiscError: if there is none, it has more than *limit* bytes, or cannot be read.
        """
        path = self.require(name)
        if self.members[path] > limit:
            raise DiscError(self.path, f"has a file {name} of {self.members[path]} bytes, more than {limit}")
        with tempfile.TemporaryDirectory() as folder:
            self.extract({path: Path(folder) / "content"})
            return (Path(folder) / "content").read_bytes()

    def extract(self, wanted: Mapping[str, Path], *, listener: ProgressListener = ignore_progress) -> None:
        """Write files of the disc, in the order that they lie on it.

        Nothing else is written. After an error the outputs are of no use.

        :param wanted: for each name the file to write; one that exists is overwritten.
        :raises DiscError: if a name is not on the disc, or a file cannot be read whole.
        :raises OSError: if an output cannot be written.
        """
        outputs: dict[str, list[Path]] = {}
        for name, output in wanted.items():
            path = self.require(name)
            if self.members[path] > self.size:  # several extents that are the same bytes, or a sparse file of UDF
                raise DiscError(self.path, f"says that {path} is larger than all of it: {self.members[path]} bytes")
            outputs.setdefault(self.tree.files[path].same_as or path, []).append(output)
        _write(self, {path: copies[0] for path, copies in outputs.items()}, listener)
        for path, (first, *others) in outputs.items():
            if (size := first.stat().st_size) != self.members[path]:
                raise DiscError(self.path, f"gave {size} bytes of {path}, which has {self.members[path]}")
            for other in others:
                shutil.copyfile(first, other)


def inspect(path: Path) -> Disc:
    """Return what is on the disc image *path*.

    :raises DiscError: if it is none, is truncated, or nobody can read it.
    :raises PrerequisiteError: if a program is missing that alone could. :raises OSError: if it cannot be read.
    """
    volume, refusals = read_volume(path), list[str]()
    known = {field.name: getattr(volume, field.name) for field in dataclasses.fields(volume)}
    for reader, read in _readers(path, volume):
        try:
            tree = read()
        except UnreadableError as error:
            refusals.append(str(error))
            continue
        if tree.files:
            return Disc(**known, path=path, reader=reader, members=sizes(tree.files), tree=tree)
        refusals.append(f"{reader}: it is empty")
    raise DiscError(
        path,
        "cannot be read as a disc",
        details="\n".join([f"{path}, {', '.join(sorted(volume.formats))}, volume {volume.volume_id!r}", *refusals]),
        resolution="compare its digest; if that is right, it is made in a way that is not known here",
    )


def extract(path: Path, wanted: Mapping[str, Path], *, listener: ProgressListener = ignore_progress) -> None:
    """Write files of the disc image *path*; see :func:`inspect` and :meth:`Disc.extract`."""
    inspect(path).extract(wanted, listener=listener)


def _readers(path: Path, volume: Volume) -> Iterator[tuple[DiscReader, Callable[[], DiscTree]]]:
    """Yield who may read the disc, the best first."""
    is_udf = DiscFormat.UDF in volume.formats
    if DiscFormat.ISO9660 in volume.formats:
        yield DiscReader.PYCDLIB, lambda: _not_only_a_note(_by_pycdlib(path), is_udf=is_udf)
        yield DiscReader.LIBARCHIVE, lambda: _not_only_a_note(_by_libarchive(path), is_udf=is_udf)
    yield DiscReader.SEVEN_ZIP, lambda: disc_7zip.read_tree(path, is_udf=is_udf)


def _by_pycdlib(path: Path) -> DiscTree:
    """Return pycdlib's tree, if libarchive agrees with it on the files of several extents (4 GiB and more)."""
    with _opened(path) as descriptor:
        tree = disc_pycdlib.read_tree(descriptor)
        joined = {name: file.size for name, file in tree.files.items() if file.extents and len(file.extents) > 1}
        if joined:
            others = disc_libarchive.read_tree(descriptor).files
            for name, size in joined.items():
                if name not in others or others[name].size != size:
                    raise UnreadableError(f"pycdlib: {name} has {size} bytes, which libarchive does not find")
    return tree


def _by_libarchive(path: Path) -> DiscTree:
    with _opened(path) as descriptor:
        return disc_libarchive.read_tree(descriptor)


def _not_only_a_note(tree: DiscTree, *, is_udf: bool) -> DiscTree:
    """Return *tree*, unless it only says that the files are in the UDF beside it.

    :raises UnreadableError: then.
    """
    if is_udf and {name.lower() for name in tree.files} <= {"readme.txt"}:
        raise UnreadableError("its files are in UDF")
    return tree


def _write(disc: Disc, outputs: Mapping[str, Path], listener: ProgressListener) -> None:
    """Write each of the files *outputs* once."""
    total, done = sum(disc.members[path] for path in outputs), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        listener(Progress(step=f"extracting from {disc.path.name}", done=done, total=total))

    try:
        if disc.reader is DiscReader.PYCDLIB:
            _copy(disc, outputs, tell)
        elif disc.reader is DiscReader.LIBARCHIVE:
            _stream(disc, outputs, tell)
        else:
            for path, output in outputs.items():
                with output.open("wb") as stream:
                    disc_7zip.write_content(disc.path, path, stream, is_udf=DiscFormat.UDF in disc.formats)
                tell(disc.members[path])
    except (UnreadableError, ShortFileError) as error:
        raise DiscError(
            disc.path,
            "is damaged: a file on it cannot be read whole",
            details=str(error),
            resolution="fetch it again and compare its digest",
        ) from None


def _copy(disc: Disc, outputs: Mapping[str, Path], tell: Callable[[int], None]) -> None:
    places = {path: disc.tree.files[path].extents or () for path in outputs}
    with _opened(disc.path) as source:
        for path, extents in sorted(places.items(), key=lambda item: [extent.start for extent in item[1]]):
            with outputs[path].open("wb") as stream:
                try:
                    copy_extents(source, stream.fileno(), extents, tell=tell)
                except ShortFileError:
                    raise ShortFileError(f"{path} lies beyond the end of the disc") from None


def _stream(disc: Disc, outputs: Mapping[str, Path], tell: Callable[[int], None]) -> None:
    with _opened(disc.path) as source:
        for path, pieces in disc_libarchive.contents(source, outputs):
            left = disc.members[path]
            with outputs[path].open("wb") as stream:
                for piece in pieces:
                    left -= len(piece)
                    if left < 0:
                        raise UnreadableError(f"libarchive: {path} has more bytes than it says")
                    stream.write(piece)
                    tell(len(piece))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
