"""The Debian packages themselves: fetched once, checked, kept under their digest for all sets that want them.

They are in ``<cache>/downloads/<sha256>/``. Nothing comes in whose digest is not the one that the archive signed.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.artifact import Making
from pipeline.commit import publish
from pipeline.debian.apt_root import APT_HELPER, make_apt_root
from pipeline.debian.apt_sources import Mirror
from pipeline.debian.package_set import Package, PackageSet
from pipeline.digests import file_digest
from pipeline.errors import ChecksumError, CommandError, NotFoundError, PrerequisiteError
from pipeline.progress import watched
from pipeline.workspace import Cache

_BATCH = 16 << 20  # bytes asked for at once: what is lost at most when a build is killed
_TIMEOUT = 3600.0  # seconds for a batch; a slow mirror is slow, but not for ever
_GONE = re.compile(r"Failed to fetch (\S+) +(?:404 |.*\(2: )")  # ENOENT, if the mirror is a folder
_fetching = threading.Lock()  # tasks that run at once want some of the same packages: the mirror is asked once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the packages of a set come from.

    :ivar wanted: the set. :ivar date: that of the snapshot that names them.
    :ivar mirror: tells the mirror, asked only if a package must be fetched.
    """

    wanted: PackageSet
    date: str
    mirror: Callable[[], Mirror]


class PackageGoneError(NotFoundError):
    """The mirror has a package no more that the snapshot names: Debian keeps the newest version only."""

    def __init__(self, address: str, origin: Origin) -> None:
        self.address, wanted, date = address, origin.wanted, origin.date
        super().__init__(
            f"the mirror no longer has {address.rsplit('/', 1)[-1]}",
            details=f"{address} was there when the snapshot of {wanted.suite} was taken, on {date}",
            resolution=f"`doit clean snapshot:{wanted.suite}:{wanted.arch}` has the next build take today's packages",
        )


def ensure_debs(packages: Sequence[Package], origin: Origin, *, cache: Cache, making: Making) -> list[Path]:
    """Return the files of *packages*, fetching those the store lacks; offline if it has them all.

    :raises PackageGoneError: if the mirror does not have one any more.
    :raises ChecksumError: if it sends other bytes than the archive signed; they are not kept.
    :raises CommandError: if it cannot be reached.
    """
    files = {package: cache.root / "downloads" / package.sha256 / package.file_name for package in packages}
    with _fetching:
        missing = {package: path for package, path in files.items() if not _is_whole(path, package)}
        total, done = sum(package.size for package in missing), 0
        for batch in _batches(missing):
            tell = functools.partial(_tell_arrived, before=done, total=total, making=making)
            _fetch({package: missing[package] for package in batch}, origin, making=making, tell=tell)
            done += sum(package.size for package in batch)
    return list(files.values())


def _is_whole(path: Path, package: Package) -> bool:
    try:
        return path.stat().st_size == package.size and file_digest(path) == package.sha256
    except FileNotFoundError:
        return False


def _tell_arrived(folder: Path, *, before: int, total: int, making: Making) -> None:
    """Report how much of all has arrived: apt-helper writes each file as it comes."""
    arrived = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    making.report("fetching packages", before + arrived, total)


def _batches(packages: Iterable[Package]) -> Iterator[list[Package]]:
    batch: list[Package] = []
    for package in packages:
        batch.append(package)
        if sum(each.size for each in batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _fetch(files: Mapping[Package, Path], origin: Origin, *, making: Making, tell: Callable[[Path], None]) -> None:
    """Fetch packages and publish those that are whole, even if others fail.

    :param tell: is called now and then with the folder into which they are fetched.
    """
    mirror = origin.mirror()
    with tempfile.TemporaryDirectory(dir=making.scratch) as name:
        root = make_apt_root(Path(name) / "apt", arch=origin.wanted.arch, options=mirror.options)
        fetched = {package: Path(name) / package.sha256 for package in files}
        words = [word for package, path in fetched.items() for word in (_address(mirror, package), path)]
        try:
            with watched(lambda: tell(Path(name))):
                root.run([APT_HELPER, "download-file", *words], timeout=_TIMEOUT, network=True, log=making.log)
        except CommandError as error:
            if gone := next(filter(None, map(_GONE.search, error.tail)), None):
                raise PackageGoneError(gone[1], origin) from error
            raise
        finally:
            damaged = [package for package, path in fetched.items() if not _is_whole(path, package)]
            for package in files.keys() - set(damaged):
                with publish(files[package]) as temporary:
                    fetched[package].replace(temporary)
    if damaged:
        raise ChecksumError(
            f"the mirror sent a damaged {damaged[0].file_name}",
            details=f"{_address(mirror, damaged[0])} does not have the digest {damaged[0].sha256}",
            resolution="build again; if it stays so, take another mirror (docs/how-to/choose-the-mirror.md)",
        )


def _address(mirror: Mirror, package: Package) -> str:
    archive = mirror.security if package.is_security_update else mirror.archive
    if archive is None:
        raise PrerequisiteError(
            f"the mirror of security updates is not known, but {package.file_name} is one",
            details="the snapshot was taken with one",
            resolution="set PVMLAB_DEBIAN_SECURITY_MIRROR, or run `apt-get update`",
        )
    # apt would make a link to a file:, and take a + for a space on some mirrors
    return re.sub(r"^file:", "copy:", archive) + "/" + urllib.parse.quote(package.path)
