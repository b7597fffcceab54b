"""Taking artifacts out of a bundle, which may be cut, damaged or made to harm.

The index is read and judged first: it must name nothing but files that this cache may have, each once, in the order
of a bundle. Then the bundle must be exactly the tar that such an index makes: the header of each file is known before
it is read, so that no link, no device and no path of another kind is understood at all. A file is put in place when its
digest was right; an artifact counts as built when all its files and sidecars are there. A bundle that ends too early
leaves what was whole until then.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from pipeline.artifact import Artifact, scratch_directory
from pipeline.commit import publish
from pipeline.errors import ChecksumError, PvmlabError
from pipeline.graph import Graph
from pipeline.progress import ProgressListener
from pipeline.sidecar import PROVENANCE_SUFFIX, SBOM_SUFFIX, files_of, read_sidecar, sidecar_path
from pipeline.state import state_of
from pipeline.upkeep.bundle import (
    BLOCK,
    INDEX,
    LARGEST_INDEX,
    LARGEST_SIDECAR,
    TRAILER,
    Entry,
    header,
    order_of,
    padding,
    parse_index,
)
from pipeline.upkeep.inventory import is_download
from pipeline.upkeep.transfer import Transfer
from pipeline.workspace import Cache

_MAPPINGS = ("documents", "facts", "inputs", "options", "sources", "tools")  # the parts of a sidecar that are read
_AGAIN = "copy or export the bundle again"


class Fate(enum.StrEnum):
    """What becomes of an artifact in a bundle."""

    IMPORTED = "imported"
    PRESENT = "already there"
    KEPT = "kept as it was"


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did. :ivar fates: by task. :ivar downloads: how many files of packages are new."""

    fates: Mapping[str, Fate]
    downloads: int


class NotABundleError(PvmlabError):
    """The file is something else."""

    def __init__(self) -> None:
        super().__init__("this is no bundle", resolution="./pvmlab cache.export makes one")


class DamagedBundleError(ChecksumError):
    """The bundle is cut, damaged, or was not made by us."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "the bundle is damaged",
            details=f"{why}\nwhat was whole until there is in the cache now, nothing else",
            resolution=_AGAIN,
        )


def import_bundle(
    source: IO[bytes], graph: Graph, cache: Cache, *, replace: bool = False, listener: ProgressListener
) -> Imported:
    """Put the artifacts of a bundle into *cache*. Call it while holding the cache.

    What is there and the same is left alone; so is what differs and is up to date, unless *replace*.

    :raises NotABundleError: if it is none. :raises PvmlabError: if it is of a later format.
    :raises ChecksumError: if it is damaged, or holds what this cache cannot have.
    """
    entries = _read_index(source)
    _judge(entries, graph, cache)
    fates = _decide(entries, graph, cache, replace=replace)
    with scratch_directory(cache, "import") as scratch:
        reader = _Reader(source, entries, graph=graph, cache=cache, fates=fates, scratch=scratch, listener=listener)
        downloads = reader.read_all()
    return Imported(fates, downloads)


def _read_index(source: IO[bytes]) -> list[Entry]:
    try:
        first = _read(source, BLOCK)
        size = int(first[124:135], 8)
    except (DamagedBundleError, ValueError):
        raise NotABundleError from None
    if not 0 <= size <= LARGEST_INDEX or first != header(INDEX, size):
        raise NotABundleError
    data = _read(source, size)
    _expect(source, padding(size), "its index")
    try:
        return parse_index(data)
    except (ValueError, RecursionError) as error:
        raise DamagedBundleError(f"its index cannot be used: {error}") from None


def _judge(entries: Sequence[Entry], graph: Graph, cache: Cache) -> None:
    """Refuse what this cache cannot have, before anything of it is read.

    :raises DamagedBundleError: saying what that is.
    """
    order = order_of(graph, cache)
    sidecars = {_name(sidecar_path(path), cache) for each in graph.artifacts.values() for path in each.targets}
    for entry in entries:
        if entry.path not in order and not (is_download(entry.path) and entry.sha256 == Path(entry.path).parent.name):
            raise DamagedBundleError(f"it holds {entry.path!r}, which no cache of this version of pvmlab has")
        if entry.path in sidecars and entry.size > LARGEST_SIDECAR:
            raise DamagedBundleError(f"it holds a sidecar of {entry.size} bytes: {entry.path}")
    ranks = [order.get(entry.path, (1, entry.path)) for entry in entries]
    if any(one >= other for one, other in itertools.pairwise(ranks)):
        raise DamagedBundleError("its files are not in the order of a bundle, or there twice")
    paths = {entry.path for entry in entries}
    for artifact in graph.artifacts.values():
        whole = {_name(path, cache) for target in artifact.targets for path in (target, sidecar_path(target))}
        parts = {_name(path, cache) for target in artifact.targets for path in files_of(target)}
        if paths & parts and not whole <= paths:
            raise DamagedBundleError(f"it holds {artifact.name} in parts only")


def _decide(entries: Sequence[Entry], graph: Graph, cache: Cache, *, replace: bool) -> dict[str, Fate]:
    """Return what becomes of each artifact, the needed ones first."""
    offered = {entry.path: entry.sha256 for entry in entries}
    coming: dict[str, str] = {}  # digests of what will be another file soon
    fates: dict[str, Fate] = {}
    tasks = [name for name, artifact in graph.artifacts.items() if _name(artifact.targets[0], cache) in offered]
    for artifact in graph.closure(tasks):
        digests = {path: offered.get(_name(path, cache)) for path in artifact.targets}
        if None in digests.values():
            continue  # needed by one that is offered, and not in the bundle itself
        if artifact.reasons() or _will_be_stale(artifact, coming):
            fates[artifact.name] = Fate.IMPORTED
        elif all(state_of(cache).digest_of(path) == digest for path, digest in digests.items()):
            fates[artifact.name] = Fate.PRESENT
        else:
            fates[artifact.name] = Fate.IMPORTED if replace else Fate.KEPT
        if fates[artifact.name] is Fate.IMPORTED:
            coming |= {_name(path, cache): str(digest) for path, digest in digests.items()}
    return fates


def _will_be_stale(artifact: Artifact, coming: Mapping[str, str]) -> bool:
    """Tell whether an artifact that is up to date now is not, once the files *coming* are there."""
    inputs = (read_sidecar(artifact.targets[0]) or {}).get("inputs", {})
    return any(coming.get(path, digest) != digest for path, digest in inputs.items())


class _Reader:
    """Reads the files of a bundle, in their order, and puts in place what is to be imported."""

    def __init__(
        self,
        source: IO[bytes],
        entries: Sequence[Entry],
        *,
        graph: Graph,
        cache: Cache,
        fates: Mapping[str, Fate],
        scratch: Path,
        listener: ProgressListener,
    ) -> None:
        self._source, self._cache, self._fates, self._scratch = source, cache, fates, scratch
        self._offered = {entry.path: entry for entry in entries}
        self._transfer = Transfer("reading the bundle", sum(entry.size for entry in entries), listener)
        self._artifacts = {target: artifact for artifact in graph.artifacts.values() for target in artifact.targets}
        self._places = {path: target for target in self._artifacts for path in files_of(target)}
        self._begun: set[str] = set()  # tasks whose old sidecars are gone

    def read_all(self) -> int:
        """Read to the end; return how many downloads are new."""
        downloads = 0
        for entry in self._offered.values():
            _expect(self._source, header(entry.path, entry.size), f"the header of {entry.path}")
            path = self._cache.root / entry.path
            target = self._places.get(path)
            if target is None:
                downloads += self._take_download(entry, path)
            elif self._fates[self._artifacts[target].name] is not Fate.IMPORTED:
                self._take(entry, None)
            elif path == target:
                self._take_target(entry, target)
            else:
                self._stage(entry, path, target)
            _expect(self._source, padding(entry.size), f"the end of {entry.path}")
        _expect(self._source, TRAILER, "its end")
        if self._source.read(1):
            raise DamagedBundleError("something follows its end")
        return downloads

    def _take(self, entry: Entry, sink: IO[bytes] | None) -> None:
        try:
            digest = self._transfer.move(self._source, entry.size, sink)
        except EOFError:
            raise DamagedBundleError(f"it ends within {entry.path}") from None
        if digest != entry.sha256:
            raise DamagedBundleError(f"the digest of {entry.path} is not the one in the index")

    def _take_into(self, entry: Entry, path: Path) -> None:
        with path.open("wb") as sink:
            self._take(entry, sink)

    def _take_download(self, entry: Entry, path: Path) -> bool:
        """Publish a download, unless it is there; return whether it was not."""
        if path.is_file() and state_of(self._cache).digest_of(path) == entry.sha256:
            self._take(entry, None)
            return False
        with publish(path) as temporary:
            self._take_into(entry, temporary)
        return True

    def _stage(self, entry: Entry, path: Path, target: Path) -> None:
        """Lay a sidecar or a document aside until the file it is about is in place."""
        self._take_into(entry, self._scratch / path.name)
        if path == sidecar_path(target):
            self._require_sidecar(entry, target)

    def _require_sidecar(self, entry: Entry, target: Path) -> None:
        """Refuse an artifact whose bytes are not those that its sidecar is about, before they are read."""
        record = read_sidecar(self._scratch / target.name) or {}
        file, *documents = (
            self._offered.get(_name(target, self._cache) + end) for end in ("", SBOM_SUFFIX, PROVENANCE_SUFFIX)
        )
        assert file is not None  # noqa: S101 (judged with the index)
        told = {
            "task": self._artifacts[target].name,
            "sha256": file.sha256,
            "size": file.size,
            "documents": {each.path.removeprefix(file.path): each.sha256 for each in documents if each is not None},
        }
        is_usable = all(isinstance(record.get(part), dict) for part in _MAPPINGS)
        if not is_usable or any(record.get(key) != value for key, value in told.items()):
            raise DamagedBundleError(f"{entry.path} is not the sidecar of {file.path}")

    def _take_target(self, entry: Entry, target: Path) -> None:
        """Publish an artifact file, the documents about it, and last its sidecar."""
        artifact = self._artifacts[target]
        with publish(target) as temporary:
            self._take_into(entry, temporary)
            self._begin(artifact)
        for path in reversed(files_of(target)[:-1]):  # the sidecar is the first to go, so the last to come
            staged = self._scratch / path.name
            if staged.is_file():
                with publish(path) as temporary:
                    shutil.move(staged, temporary)
            else:
                path.unlink(missing_ok=True)  # a document about the bytes that were there
        state_of(self._cache).learn_digest(target, entry.sha256)

    def _begin(self, artifact: Artifact) -> None:
        """Have an artifact count as not built until all its sidecars are there."""
        if artifact.name not in self._begun:
            self._begun.add(artifact.name)
            for target in artifact.targets:
                sidecar_path(target).unlink(missing_ok=True)


def _name(path: Path, cache: Cache) -> str:
    return path.relative_to(cache.root).as_posix()


def _read(source: IO[bytes], size: int) -> bytes:
    """Return *size* bytes.

    :raises DamagedBundleError: if there are less.
    """
    pieces, left = [], size
    while left and (piece := source.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if left:
        raise DamagedBundleError("it ends too early")
    return b"".join(pieces)


def _expect(source: IO[bytes], data: bytes, what: str) -> None:
    """Read *data* and nothing else.

    :raises DamagedBundleError: if *what* is not as it must be.
    """
    if _read(source, len(data)) != data:
        raise DamagedBundleError(f"{what} is not as it must be")
