"""Proof that a cache holds what its sidecars say: every byte read, and a sample of artifacts made once more."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact, scratch_directory
from pipeline.commit import publish
from pipeline.errors import ConflictError
from pipeline.graph import Graph
from pipeline.progress import Progress, ProgressListener
from pipeline.sidecar import read_sidecar, require_digest, sidecar_path
from pipeline.state import state_of
from pipeline.tool_versions import tool_version
from pipeline.upkeep.inventory import Found, Kind, digests_in, is_manifest
from pipeline.upkeep.transfer import Transfer
from pipeline.workspace import Cache

_TAKEN = {"fetch", "snapshot"}  # kinds of tasks that take what a mirror has, gigabytes of it or never the same twice


@dataclasses.dataclass(frozen=True)
class Damage:
    """A file that is not what it should be. :ivar task: who makes it; None for a download."""

    path: Path
    what: str
    task: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remade:
    """An artifact file that was made once more. :ivar kept: a copy of the new one, if it differs and was to be kept."""

    task: str
    path: Path
    recorded: str
    remade: str
    kept: Path | None = None

    @property
    def is_equal(self) -> bool:
        """Whether the same bytes came out."""
        return self.recorded == self.remade


@dataclasses.dataclass(frozen=True)
class _TrialCache(Cache):
    """A cache for one attempt. Its logs stay where people find them. :ivar of: the cache it is a trial of."""

    of: Cache

    @property
    def logs(self) -> Path:
        return self.of.logs / "verify"


def read_all(inventory: Iterable[Found], cache: Cache, listener: ProgressListener) -> list[Damage]:
    """Read every built artifact and every download, whatever is remembered of them; return what is damaged.

    The state of the cache learns of it: the next build makes again what is damaged.
    """
    files = [found for found in inventory if is_readable(found)]
    transfer = Transfer("reading the cache", sum(found.size for found in files), listener)
    return [damage for found in files if (damage := _read(found, cache, transfer)) is not None]


def candidates(graph: Graph) -> list[Artifact]:
    """Return the artifacts that can be made once more here: up to date, of known inputs, with tools that are there."""
    return [
        artifact
        for artifact in graph.artifacts.values()
        if artifact.name.partition(":")[0] not in _TAKEN
        and not artifact.reasons()
        and all(tool_version(tool, artifact.state) is not None for tool in artifact.tools)
    ]


def choose(graph: Graph, *, number: int) -> list[Artifact]:
    """Return *number* artifacts that can be made once more, or all if they are fewer; at random."""
    found = candidates(graph)
    return random.sample(found, min(number, len(found)))


def require_candidates(graph: Graph, names: Sequence[str]) -> list[Artifact]:
    """Return the artifacts *names*.

    :raises ConflictError: if one of them cannot be made once more here.
    """
    found = {artifact.name: artifact for artifact in candidates(graph)}
    for name in names:
        if name not in found:
            why = graph.artifacts[name].reason() or "it takes what the mirror has today, or a tool for it is missing"
            raise ConflictError(
                f"{name} cannot be made once more to compare it", details=why,
                resolution=f"`./pvmlab explain {name}` says more",
            )  # fmt: skip
    return [found[name] for name in names]


def remake(
    artifact: Artifact,
    graph_of: Callable[[Cache], Graph],
    *,
    keep: Path | None = None,
    listener: ProgressListener,
) -> list[Remade]:
    """Make *artifact* once more in a scratch cache, from the same inputs; return what came out.

    Call it while holding the cache.

    :param graph_of: makes the graph of another cache. :param keep: where both go that differ.
    :raises PvmlabError: if the recipe fails.
    """
    with scratch_directory(artifact.cache, "verify") as scratch:
        trial = _TrialCache(scratch, artifact.cache)
        _lend_inputs(artifact, trial)
        twin = graph_of(trial).artifacts[artifact.name]
        try:
            twin.build(lambda progress: listener(_named(artifact.name, progress)))
        finally:
            state_of(trial).close()
        pairs = list(zip(artifact.targets, twin.targets, strict=True))
        return [_compare(artifact, old, new, keep=keep) for old, new in pairs]


def is_readable(found: Found) -> bool:
    """Return whether there is something to compare the file with."""
    if found.kind is Kind.ARTIFACT:
        return found.in_graph and {found.path, sidecar_path(found.path)} <= set(found.files)
    return found.kind is Kind.DOWNLOAD


def _read(found: Found, cache: Cache, transfer: Transfer) -> Damage | None:
    is_artifact = found.kind is Kind.ARTIFACT
    record: dict[str, Any] | None = read_sidecar(found.path) if is_artifact else {"sha256": found.path.parent.name}
    if record is None:
        return Damage(found.path, "its sidecar is damaged, or of another version of pvmlab", found.task)
    documents: dict[str, str] = record.get("documents", {})
    expected = {"": record["sha256"], **documents}
    for path in found.files:
        wanted = expected.get(path.name.removeprefix(found.path.name))
        digest = _digest(path, transfer) if wanted is not None else None
        if digest is not None and digest != wanted:
            # damage on the disk leaves no trace in the file's times: what is remembered of it would still hold
            state_of(cache).learn_digest(path, digest)
            return Damage(path, f"its digest is {digest}, not {wanted}", found.task)
    return None


def _digest(path: Path, transfer: Transfer) -> str:
    with path.open("rb") as stream:
        return transfer.move(stream, os.fstat(stream.fileno()).st_size)


def _lend_inputs(artifact: Artifact, trial: Cache) -> None:
    """Put what the recipe reads into the scratch cache: its inputs, and the downloads that they name."""
    root = artifact.cache.root
    named = {digest for path in artifact.inputs if _is_manifest_file(path) for digest in digests_in(path)}
    downloads = (file for digest in sorted(named) for file in (root / "downloads" / digest).glob("*"))
    for path in (*artifact.inputs, *map(sidecar_path, artifact.inputs), *downloads):
        _lend(path, trial.root / path.relative_to(root))


def _is_manifest_file(path: Path) -> bool:
    return is_manifest((read_sidecar(path) or {}).get("task"))


def _lend(path: Path, place: Path) -> None:
    """Have the file at *place* too: recipes read their inputs, they never write to them."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, place)
    except OSError:  # another file system, or a file of another user
        shutil.copyfile(path, place)


def _compare(artifact: Artifact, old: Path, new: Path, *, keep: Path | None) -> Remade:
    recorded, remade = require_digest(old), require_digest(new)
    kept = None
    if keep is not None and recorded != remade:
        place = old.relative_to(artifact.cache.root)
        for source, folder in ((old, "recorded"), (new, "remade")):
            with publish(keep / folder / place) as temporary:
                shutil.copyfile(source, temporary)
        kept = keep / "remade" / place
    return Remade(task=artifact.name, path=old, recorded=recorded, remade=remade, kept=kept)


def _named(task: str, progress: Progress) -> Progress:
    return dataclasses.replace(progress, step=f"{task}: {progress.step}")
