"""What is known of the distributions and what is here of each: for people as tables, for programs as data."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.output import emit
from contracts.arch import Arch
from distros import registry
from distros.release import Medium, MediumKind, Release
from pipeline.artifact import Artifact
from pipeline.errors import NotFoundError
from pipeline.graph import Graph
from pipeline.reporting.wording import format_size
from pipeline.sidecar import files_of, read_sidecar
from pipeline.workspace import Workspace

FETCHED, MADE = "fetch", ("rootfs", "kernel", "modules", "native")  # kinds of tasks, see docs/reference/files.md
_PACKAGES = "packages"


class State(enum.StrEnum):
    """How much of something is here."""

    ABSENT = "not fetched"
    FETCHED = "fetched"
    UNBUILT = "not built"
    BUILT = "built"
    OUTDATED = "outdated"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceView:
    """A medium, or the Debian packages. :ivar verified_by: what says which bytes are right; empty if nothing does.

    :ivar urls: where it is fetched from. :ivar size: bytes on disk. :ivar missing: why it cannot be fetched.
    """

    kind: str
    state: State
    verified_by: str
    urls: tuple[str, ...] = ()
    size: int = 0
    missing: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArtifactView:
    """A task of a release. :ivar reason: why it is not up to date. :ivar facts: what its recipe found out."""

    task: str
    state: State
    size: int
    reason: str | None
    facts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchView:
    """A release for one architecture. :ivar size: bytes of all that is here of it."""

    arch: Arch
    state: State
    rootfs: str
    installer: str
    sources: tuple[SourceView, ...]
    artifacts: tuple[ArtifactView, ...]
    size: int

    @property
    def missing(self) -> list[str]:
        """What stands in the way of fetching it, if anything does."""
        return [f"{source.kind}: {source.missing}" for source in self.sources if source.missing]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleaseView:
    """A release. :ivar file: its definition. :ivar is_shipped: whether it is one of this project's."""

    name: str
    title: str
    family: str
    suite: str
    file: str
    is_shipped: bool
    arches: tuple[ArchView, ...]


def list_distros(*, output: str) -> None:
    """Print all releases. :raises UsageError: for an unknown *output*. :raises PvmlabError: if a file is broken."""
    views = view_releases(registry.releases().values())
    headings = ("NAME", "TITLE", "ARCH", "SOURCES", "STATE", "SIZE", "MISSING")
    rows = [_row(view, of_arch) for view in views for of_arch in view.arches]
    emit({"distributions": views}, output=output, table=[headings, *rows])


def show_distro(name: str, *, output: str) -> None:
    """Print all that is known of one release.

    :raises NotFoundError: if there is none of that name. :raises UsageError: for an unknown *output*.
    """
    (view,) = view_releases([registry.find_release(name)])
    emit({"distribution": view}, output=output, table=_details(view))


def view_releases(wanted: Iterable[Release]) -> list[ReleaseView]:
    """Return how *wanted* stand."""
    from pipeline.recipes.graph import graph

    return [
        ReleaseView(
            name=release.name,
            title=release.title,
            family=release.family,
            suite=release.suite,
            file=str(registry.definition_file(release.name)),
            is_shipped=is_shipped(release.name),
            arches=tuple(_view_arch(release, arch, graph()) for arch in release.arches),
        )
        for release in wanted
    ]


def is_shipped(name: str) -> bool:
    """Tell whether the release *name* is one of this project's, as far as its folder tells."""
    return registry.definition_file(name).parent == registry.SHIPPED


def tasks_of(graph: Graph, name: str, arch: Arch, kinds: Sequence[str]) -> list[str]:
    """Return the tasks of *kinds* that *graph* has for a release, in its order."""
    return [task for task in graph.artifacts if task.split(":")[1:3] == [name, arch] and task.split(":")[0] in kinds]


def missing_for(release: Release, arch: Arch, medium: Medium) -> str:
    """Return why a medium cannot be fetched; nothing if it can."""
    if medium.checksums is not None:
        absent = [key for key in medium.checksums.keys if not _has_key(key)]
        return f"no key {absent[0]}" if len(absent) == len(medium.checksums.keys) else ""
    if (arch, medium.kind) not in release.locked:
        return "no digest known"
    return ""


def _has_key(fingerprint: str) -> bool:
    try:
        registry.key_file(fingerprint)
    except NotFoundError:
        return False
    return True


def _view_arch(release: Release, arch: Arch, graph: Graph) -> ArchView:
    sources = release.sources[arch]
    made = [_view_artifact(graph.artifacts[task]) for task in tasks_of(graph, release.name, arch, MADE)]
    media = tuple(_view_medium(release, arch, medium, graph) for medium in sources.media.values())
    packaged = sources.kernel_package is not None
    from_packages = SourceView(kind=_PACKAGES, state=State.UNBUILT, verified_by="apt, by the host's keyring")
    return ArchView(
        arch=arch,
        state=_total_state(made, media),
        rootfs=_PACKAGES if packaged else str(sources.rootfs or ""),
        installer=sources.installer_package or (str(MediumKind.ISO) if _is_driven(release, arch) else ""),
        sources=((from_packages,) if packaged else ()) + media,
        artifacts=tuple(made),
        size=sum(view.size for view in made) + sum(view.size for view in media),
    )


def _is_driven(release: Release, arch: Arch) -> bool:
    return release.family.native is not None and MediumKind.ISO in release.sources[arch].media


def _view_medium(release: Release, arch: Arch, medium: Medium, graph: Graph) -> SourceView:
    artifact = graph.artifacts.get(f"{FETCHED}:{release.name}:{arch}:{medium.kind}")
    locked = release.locked.get((arch, medium.kind))
    if medium.checksums is not None:
        verified_by = f"{medium.checksums.file}, signed by {' or '.join(medium.checksums.keys)}"
    else:
        verified_by = f"the lock: sha256 {locked.sha256}" if locked is not None else ""
    here = _view_artifact(artifact) if artifact is not None else None
    as_medium = {State.BUILT: State.FETCHED, State.OUTDATED: State.OUTDATED}
    return SourceView(
        kind=medium.kind,
        state=as_medium.get(here.state, State.ABSENT) if here is not None else State.ABSENT,
        verified_by=verified_by,
        urls=tuple(f"{mirror}{medium.file}" for mirror in medium.mirrors),
        size=here.size if here is not None else 0,
        missing=missing_for(release, arch, medium),
    )


def _view_artifact(artifact: Artifact) -> ArtifactView:
    reason = artifact.reason()
    record = read_sidecar(artifact.targets[0])
    here = record is not None and all(target.is_file() for target in artifact.targets)
    return ArtifactView(
        task=artifact.name,
        state=State.UNBUILT if not here else State.BUILT if reason is None else State.OUTDATED,
        size=sum(_size(path) for target in artifact.targets for path in files_of(target)),
        reason=reason,
        facts={}
        if record is None
        else {key: record["facts"][key] for key in ("kernel", "file") if key in record["facts"]},
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _total_state(made: Sequence[ArtifactView], media: Sequence[SourceView]) -> State:
    states = {view.state for view in made}
    if State.OUTDATED in states or any(medium.state is State.OUTDATED for medium in media):
        return State.OUTDATED
    if states == {State.BUILT}:
        return State.BUILT
    if any(medium.state is State.FETCHED for medium in media):
        return State.FETCHED
    return State.ABSENT if media else State.UNBUILT


def _row(view: ReleaseView, of_arch: ArchView) -> Sequence[str]:
    kinds = ", ".join(source.kind for source in of_arch.sources)
    size = format_size(of_arch.size) if of_arch.size else ""
    return view.name, view.title, of_arch.arch, kinds, of_arch.state, size, "; ".join(of_arch.missing)


def _details(view: ReleaseView) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("WHAT", "VALUE"),
        ("name", view.name),
        ("title", view.title),
        ("family", view.family),
        *([("suite", view.suite)] if view.suite else []),
        ("definition", view.file + (" (shipped with pvmlab)" if view.is_shipped else "")),
        ("cache", str(Workspace.from_environment().cache.root)),
    ]
    for of_arch in view.arches:
        rows += [
            ("", ""),
            (of_arch.arch, str(of_arch.state) + (f", {format_size(of_arch.size)}" if of_arch.size else "")),
        ]
        rows.append(
            ("  root filesystem", f"from {of_arch.rootfs}" if of_arch.rootfs else "none: nothing here holds one")
        )
        rows.append(("  own installer", of_arch.installer or "none that pvmlab can drive"))
        for source in of_arch.sources:
            rows += _source_rows(source)
        rows += [(f"  {artifact.task.partition(':')[0]}", _artifact_words(artifact)) for artifact in of_arch.artifacts]
    return rows


def _source_rows(source: SourceView) -> list[Sequence[str]]:
    size = f", {format_size(source.size)}" if source.size else ""
    state = "fetched as they are needed" if source.kind == _PACKAGES else f"{source.state}{size}"
    rows: list[Sequence[str]] = [(f"  {source.kind}", state)]
    rows += [("    from", url) for url in source.urls] or (
        [] if source.kind == _PACKAGES else [("    from", "no mirror")]
    )
    rows.append(("    verified by", source.verified_by or "nothing yet: distro.pull --lock"))
    return rows + ([("    missing", source.missing)] if source.missing else [])


def _artifact_words(artifact: ArtifactView) -> str:
    if artifact.state is State.UNBUILT:
        return str(artifact.state)
    words = [
        str(artifact.state),
        format_size(artifact.size),
        *([f"kernel {artifact.facts['kernel']}"] if "kernel" in artifact.facts else []),
    ]
    return ", ".join([*words, *([artifact.reason] if artifact.reason else [])])
