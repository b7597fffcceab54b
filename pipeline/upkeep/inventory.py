"""What is in a cache: each of its files, and what it is there for. Looking changes nothing.

A file is known by the graph, by the sealed sidecar beside it, or by its place (a download, a log, scratch). Whatever is
known by none of them is somebody else's. Links are never followed, and never ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from contracts.sidecar import SUFFIX
from pipeline.graph import Graph
from pipeline.sidecar import files_of, read_sidecar
from pipeline.workspace import Cache

DOWNLOADS = "downloads"
_MANIFESTS = "packages"  # the kind of task whose files name downloads by their digests
_MEDIA = "fetch"  # the kind of task whose file is another name of a download
_PART = re.compile(rf"{DOWNLOADS}/parts/[0-9a-f]{{64}}\.(?:part|json|lock)")  # pipeline.fetch.store
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# in the shell, on the terminal and in a tar it is what it seems to be
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~:%-]{0,199}")
_JOURNALS = ("", "-wal", "-shm", "-journal")  # what SQLite may have beside its file


class Kind(enum.StrEnum):
    """What something in a cache is."""

    ARTIFACT = "artifact"
    DOWNLOAD = "download"
    LOG = "log"
    HALF_WRITTEN = "half-written file"
    PART = "part of a download"
    SCRATCH = "scratch"
    DAMAGED_STATE = "damaged state file"
    OWN = "the cache's own"
    UNKNOWN = "unknown"

    @property
    def is_leftover(self) -> bool:
        """Whether nothing that runs needs it, if no build does."""
        return self in {Kind.HALF_WRITTEN, Kind.PART, Kind.SCRATCH, Kind.DAMAGED_STATE}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Something in a cache.

    :ivar path: where it is. :ivar files: all that belongs to it and is ours, an artifact's sidecar last; none, if it is
        behind a link.
    :ivar size: of all of them, in bytes.
    :ivar task: who makes it, or made it; None if that cannot be told.
    :ivar in_graph: whether a task of the graph still makes exactly this.
    """

    kind: Kind
    path: Path
    files: tuple[Path, ...]
    size: int
    task: str | None = None
    in_graph: bool = False


def take_inventory(graph: Graph, cache: Cache) -> list[Found]:
    """Return everything that is in *cache*, sorted by path; the graph's artifacts as far as they are there."""
    files, others = _look(cache)
    found = [*_artifacts(graph, files), *_former_artifacts(files, others)]
    logs = {artifact.log.name: artifact.name for artifact in graph.artifacts.values()}
    found += [_by_place(path, size, cache, logs) for path, size in files.items()]
    found += [_alone(Kind.UNKNOWN, path, 0) for path in others]
    found += _scratch(cache)
    return sorted(found, key=lambda each: each.path)


def named_downloads(found: Iterable[Found]) -> set[str]:
    """Return the digests of all downloads that the manifests among *found* name, or that are media among them."""
    artifacts = [each for each in found if each.kind is Kind.ARTIFACT]
    manifests = [each.path for each in artifacts if is_manifest(each.task)]
    media = [read_sidecar(each.path) for each in artifacts if (each.task or "").partition(":")[0] == _MEDIA]
    named = {digest for path in manifests if path.is_file() for digest in digests_in(path)}
    return named | {record["sha256"] for record in media if record is not None}


def is_manifest(task: str | None) -> bool:
    """Return whether the files of *task* name downloads."""
    return task is not None and task.partition(":")[0] == _MANIFESTS


def digests_in(manifest: Path) -> set[str]:
    """Return all SHA-256 digests that stand in a manifest, whatever its format is."""
    return set(_DIGEST.findall(manifest.read_text(errors="replace")))


def is_download(name: str) -> bool:
    """Return whether *name*, a path in the cache, is ``downloads/<sha256>/<file>``."""
    folder, _, rest = name.partition("/")
    digest, _, file = rest.partition("/")
    return folder == DOWNLOADS and bool(_DIGEST.fullmatch(digest)) and bool(_FILE_NAME.fullmatch(file))


def _look(cache: Cache) -> tuple[dict[Path, int], set[Path]]:
    """Return the regular files with their sizes, but scratch, and all else that is no folder."""
    files, others = {}, set()
    for folder, folders, names in os.walk(cache.root):
        for path in (Path(folder) / name for name in [*folders, *names]):
            with contextlib.suppress(FileNotFoundError):  # a build goes on meanwhile
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    files[path] = status.st_size
                elif not stat.S_ISDIR(status.st_mode):
                    others.add(path)
        folders[:] = [name for name in folders if Path(folder) / name != cache.scratch]
    return files, others


def _artifacts(graph: Graph, files: dict[Path, int]) -> Iterator[Found]:
    """Yield what the tasks of the graph make, and take it out of *files*."""
    for artifact in graph.artifacts.values():
        for target in artifact.targets:
            sizes = _take(target, files)
            if sizes or (target.is_file() and not target.is_symlink()):  # it is built, in a folder that is a link
                yield _group(target, sizes, artifact.name, in_graph=True)


def _former_artifacts(files: dict[Path, int], others: set[Path]) -> Iterator[Found]:
    """Yield artifact files that no task makes any more, known by their sidecars, and take them out of *files*."""
    for sidecar in [path for path in files if path.suffix == SUFFIX]:
        target = sidecar.with_suffix("")
        record = read_sidecar(target)
        # other bytes than the sidecar's: somebody put something of theirs there
        if record is not None and target not in others and files.get(target, record["size"]) == record["size"]:
            yield _group(target, _take(target, files), record["task"], in_graph=False)


def _take(target: Path, files: dict[Path, int]) -> dict[Path, int]:
    """Take an artifact file with all that goes with it; the sidecar last, by which it is known until it is gone."""
    return {path: files.pop(path) for path in reversed(files_of(target)) if path in files}


def _group(target: Path, sizes: dict[Path, int], task: str, *, in_graph: bool) -> Found:
    return Found(
        kind=Kind.ARTIFACT, path=target, files=tuple(sizes), size=sum(sizes.values()), task=task, in_graph=in_graph
    )  # fmt: skip


def _by_place(path: Path, size: int, cache: Cache, logs: dict[str, str]) -> Found:
    own = {cache.root / "README.md", cache.lock, cache.children_marker, *_beside(cache.state)}
    name = path.relative_to(cache.root).as_posix()
    if path in own:
        return _alone(Kind.OWN, path, size)
    if path.name.startswith(".") and path.suffix == ".partial":
        return _alone(Kind.HALF_WRITTEN, path, size)
    if path in _beside(cache.state.with_name(f"{cache.state.name}.damaged")):
        return _alone(Kind.DAMAGED_STATE, path, size)
    if (is_part := bool(_PART.fullmatch(name))) or is_download(name):
        return _alone(Kind.PART if is_part else Kind.DOWNLOAD, path, size)
    if path.is_relative_to(cache.logs) and path.suffix == ".log":
        task = logs.get(path.name)
        return dataclasses.replace(_alone(Kind.LOG, path, size), task=task, in_graph=task is not None)
    return _alone(Kind.UNKNOWN, path, size)


def _beside(state: Path) -> set[Path]:
    return {state.with_name(state.name + suffix) for suffix in _JOURNALS}


def _alone(kind: Kind, path: Path, size: int) -> Found:
    return Found(kind=kind, path=path, files=(path,), size=size)


def _scratch(cache: Cache) -> Iterator[Found]:
    """Yield the working directories of builds, each as a whole."""
    if cache.scratch.is_dir() and not cache.scratch.is_symlink():
        for path in cache.scratch.iterdir():
            yield _alone(Kind.SCRATCH, path, _tree_size(path))


def _tree_size(path: Path) -> int:
    """Return the bytes of all files below *path*, as far as we may look into it."""
    size = 0
    is_folder = path.is_dir() and not path.is_symlink()
    inside = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    for file in inside if is_folder else [path]:
        with contextlib.suppress(FileNotFoundError):
            size += file.lstat().st_size
    return size
