"""Which Debian packages there are, which of them a set consists of, and their files.

::

    snapshot:<suite>:<arch> ──> packages:<set>:<arch> ──> all that is made of packages

A snapshot is taken once and stays; a set that is the same in the next one has the same bytes, and nothing that was made
of it is made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.arch import Arch
from pipeline.artifact import Artifact, Making
from pipeline.debian.apt_snapshot import make_snapshot
from pipeline.debian.apt_sources import host_mirror
from pipeline.debian.deb_store import Origin, ensure_debs
from pipeline.debian.package_set import Package, PackageSet, read_manifest, render_manifest
from pipeline.debian.package_solver import resolve
from pipeline.sidecar import read_sidecar
from pipeline.workspace import Cache, in_repository

_SNAPSHOT_FORMAT = 1  # of the file; another number has all snapshots taken anew


def snapshot_path(suite: str, arch: Arch, cache: Cache) -> Path:
    """Return where the snapshot of a suite is."""
    return cache.root / "snapshots" / suite / f"{arch}.tar.zst"


def manifest_path(wanted: PackageSet, cache: Cache) -> Path:
    """Return where the manifest of a set is."""
    return cache.root / "packages" / wanted.name / f"{wanted.arch}.deb822"


def package_artifacts(sets: Iterable[PackageSet], cache: Cache) -> Iterator[Artifact]:
    """Yield the manifests of *sets* and the snapshots they come from."""
    wanted = tuple(sets)
    for suite, arch in dict.fromkeys((each.suite, each.arch) for each in wanted):
        yield snapshot(suite, arch, cache)
    for each in wanted:
        yield packages(each, cache)


def snapshot(suite: str, arch: Arch, cache: Cache) -> Artifact:
    """Return the snapshot of a suite, taken from the host's mirror."""

    def make(making: Making) -> Mapping[str, Any]:
        return make_snapshot(suite, arch, host_mirror(), making=making)

    return Artifact(
        name=f"snapshot:{suite}:{arch}",
        doc=f"package lists of Debian {suite}, {arch}, of the day they were fetched",
        cache=cache,
        targets=(snapshot_path(suite, arch, cache),),
        options={"format": _SNAPSHOT_FORMAT},  # and no sources: an edit there is no reason for other packages
        make=make,
    )


def packages(wanted: PackageSet, cache: Cache) -> Artifact:
    """Return the manifest of a set."""
    lists = snapshot_path(wanted.suite, wanted.arch, cache)

    def make(making: Making) -> Mapping[str, Any]:
        found = resolve(wanted, lists, making=making)
        making.output.write_text(render_manifest(found))
        return {"count": len(found), "size": sum(package.size for package in found), "date": _facts(lists)["date"]}

    return Artifact(
        name=f"packages:{wanted.name}:{wanted.arch}",
        doc=f"which packages {wanted.name} consists of, {wanted.arch}",
        cache=cache,
        targets=(manifest_path(wanted, cache),),
        inputs=(lists,),
        sources=in_repository("pipeline/debian/package_set.py", "pipeline/debian/package_solver.py"),
        options={"wanted": wanted.wanted()},
        tools=("apt-get",),
        make=make,
    )


def fetch(wanted: PackageSet, cache: Cache, making: Making) -> tuple[list[Package], list[Path]]:
    """Return the packages of the set's manifest and their files, fetched if need be.

    :raises PvmlabError: see :func:`pipeline.debian.deb_store.ensure_debs`.
    """
    manifest = manifest_path(wanted, cache)
    origin = Origin(wanted=wanted, date=_facts(manifest)["date"], mirror=host_mirror)
    found = read_manifest(manifest)
    return found, ensure_debs(found, origin, cache=cache, making=making)


def package_facts(found: Sequence[Package], epoch: int) -> dict[str, Any]:
    """Return what the sidecar of an artifact says of the packages in it, and of the time all of it has."""
    return {"packages": [package.fact() for package in found], "epoch": epoch}


def inherited_facts(*inputs: Path, others: Iterable[Mapping[str, str]] = ()) -> dict[str, Any]:
    """Return the packages and the time of the artifacts that another is made of, as facts of that one.

    :param others: more packages in it.
    """
    facts = [_facts(path) for path in inputs]
    known = [dict(package) for package in (*(each for fact in facts for each in fact.get("packages", ())), *others)]
    unique = {tuple(package.items()): package for package in known}.values()
    ordered = sorted(unique, key=lambda package: (package["type"], package["name"], package["version"]))
    return {"packages": ordered, "epoch": max((fact["epoch"] for fact in facts if "epoch" in fact), default=0)}


def _facts(path: Path) -> dict[str, Any]:
    sidecar = read_sidecar(path) or {}
    facts: dict[str, Any] = sidecar.get("facts", {})
    return facts
