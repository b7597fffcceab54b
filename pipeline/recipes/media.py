"""Media of distributions: what is downloaded as it is, each under its own task.

::

    fetch:<distro>:<arch>:<kind> ──> media/<distro>/<arch>/installer.iso, cloud.img, rootfs.tarball

Which bytes come is decided by the lock (``distros/lock.yaml``), else by the list of checksums that the distribution
signs. A medium that is here stays: with a pattern in its definition (``ubuntu-24.04*-live-server-amd64.iso``) a newer
point release is no reason to fetch anything. It is taken after ``doit clean fetch:ubuntu-24.04:x86_64:iso``, or when
:func:`renew` found that there is one.

The file is in the store, ``downloads/<sha256>/<its own name>``, and its target is another name (a hard link) of it: the
bytes are there once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.arch import Arch
from distros.registry import key_file
from distros.release import Checksums, Medium, MediumKind, Release
from pipeline.artifact import Artifact, Making
from pipeline.commit import give_second_name
from pipeline.errors import PrerequisiteError, UsageError
from pipeline.fetch.addresses import scrubbed
from pipeline.fetch.asset import Algorithm, Asset, Digest, require_file_name
from pipeline.fetch.offline import is_offline
from pipeline.sidecar import read_sidecar
from pipeline.state import state_of
from pipeline.workspace import Cache

if TYPE_CHECKING:
    from pipeline.fetch.signed_list import Promise, SignedList
    from pipeline.fetch.store import Stored

__all__ = ["fetch", "is_offline", "medium_path", "renew"]

_FORMAT = 1  # another number has all media looked at anew


def medium_path(release: Release, arch: Arch, kind: MediumKind, cache: Cache) -> Path:
    """Return where a medium is once it was fetched."""
    return cache.root / "media" / release.name / arch / kind.file_name


def fetch(release: Release, arch: Arch, kind: MediumKind, cache: Cache) -> Artifact:
    """Return the task that downloads a medium of *release*. The code that downloads it is no reason to do it again.

    :raises UsageError: if the release has no such medium, or its name is none for a file.
    """
    medium = _medium(release, arch, kind)
    name = _task(release, arch, kind)

    def make(making: Making) -> Mapping[str, Any]:
        return _make(release, arch, medium, cache, task=name, making=making)

    return Artifact(
        name=name,
        doc=f"{kind.value.replace('_', ' ')} of {release.title}, {arch}, as it is published",
        cache=cache,
        targets=(medium_path(release, arch, kind, cache),),
        options=_options(release, arch, medium),
        make=make,
    )


def renew(release: Release, arch: Arch, kind: MediumKind, cache: Cache) -> bool:
    """Ask whether another file is published now than the one that is here; if so, have the next build fetch it.

    :return: whether there is. What is in the lock is never another one.
    :raises PvmlabError: see :func:`pipeline.fetch.signed_list.read_promise`.
    """
    from pipeline.fetch.signed_list import read_promise  # noqa: PLC0415 (imports requests: 0.1 s)

    medium, artifact = _medium(release, arch, kind), fetch(release, arch, kind, cache)
    record = read_sidecar(artifact.targets[0])
    if medium.checksums is None or (arch, kind) in release.locked or record is None:
        return False
    promise = read_promise(artifact.name, _signed_list(medium, medium.checksums), artifact.state)
    digests = record["facts"]["digests"]
    if all(digests.get(each.algorithm) == each.value for each in promise.digests):
        return False
    artifact.remove()
    return True


def _medium(release: Release, arch: Arch, kind: MediumKind) -> Medium:
    try:
        medium = release.sources[arch].media[kind]
    except KeyError:
        raise UsageError(f"{release.name} has no {kind.value} for {arch}") from None
    require_file_name(medium.file.replace("*", "x"))
    return medium


def _task(release: Release, arch: Arch, kind: MediumKind) -> str:
    return f"fetch:{release.name}:{arch}:{kind.value}"


def _options(release: Release, arch: Arch, medium: Medium) -> dict[str, Any]:
    """Return what decides which bytes come: the lock alone, or all that leads to the list and says who signs it."""
    if (locked := release.locked.get((arch, medium.kind))) is not None:
        return {"format": _FORMAT, "file": locked.file, "sha256": locked.sha256, "size": locked.size}
    checksums = medium.checksums
    signed = {"list": checksums.file, "signature": checksums.signature, "keys": checksums.keys} if checksums else None
    return {"format": _FORMAT, "file": medium.file, "mirrors": medium.mirrors, "checksums": signed}


def _make(release: Release, arch: Arch, medium: Medium, cache: Cache, *, task: str, making: Making) -> dict[str, Any]:
    from pipeline.fetch.signed_list import address  # noqa: PLC0415 (imports requests: 0.1 s)
    from pipeline.fetch.store import Store, obtain  # noqa: PLC0415

    promise = _promise(release, arch, medium, cache, task=task, making=making)
    asset = Asset(
        name=promise.file,
        urls=tuple(address(mirror, promise.file) for mirror in medium.mirrors),
        digests=promise.digests,
        size=promise.size,
        max_size=max(medium.max_size, promise.size or 0),
    )
    stored = obtain(asset, store=Store(cache), listener=making.listener, task=task)
    making.note(f"{stored.path.name}: {stored.size:,} bytes, SHA-256 {stored.sha256}, from {stored.url or 'the store'}")
    give_second_name(stored.path, making.output)
    return _facts(promise, stored, scrubbed(asset.urls[0]) if asset.urls else "")


def _promise(release: Release, arch: Arch, medium: Medium, cache: Cache, *, task: str, making: Making) -> Promise:
    """Return what must come.

    :raises PrerequisiteError: if nobody promises anything. :raises PvmlabError: if the list cannot be had or trusted.
    """
    from pipeline.fetch.signed_list import Promise, read_promise  # noqa: PLC0415 (imports requests: 0.1 s)

    if (locked := release.locked.get((arch, medium.kind))) is not None:
        digests = (Digest(Algorithm.SHA256, locked.sha256),)
        return Promise(file=locked.file, digests=digests, size=locked.size)
    if medium.checksums is None:
        raise PrerequisiteError(
            f"no digest of {medium.file} is known",
            details=f"{release.name} names no signed list of checksums for it, and there is no entry in the lock",
            resolution=f"`./pvmlab distro.pull --distro {release.name} --arch {arch} --lock` locks what the mirror has "
            "now; or write its name, sha256 and size into lock.yaml, from a page of the distribution that you trust",
        )
    making.report(f"asking for the checksums of {medium.file}")
    return read_promise(task, _signed_list(medium, medium.checksums), state_of(cache))


def _signed_list(medium: Medium, checksums: Checksums) -> SignedList:
    from pipeline.fetch.signed_list import SignedList  # noqa: PLC0415 (imports requests: 0.1 s)

    names = (checksums.file, checksums.signature or "")
    if "*" in medium.file and any("{file}" in name for name in names):
        raise UsageError(
            f"the list of checksums of {medium.file} cannot be named after it: which file that is, only the list tells"
        )
    name, signature = (each.replace("{file}", medium.file) for each in names)
    keys = {fingerprint: key_file(fingerprint) for fingerprint in checksums.keys}
    return SignedList(mirrors=medium.mirrors, file=medium.file, name=name, signature=signature or None, keys=keys)


def _facts(promise: Promise, stored: Stored, published: str) -> dict[str, Any]:
    """Return what the sidecar says: of equal media the same, whichever mirror they came from (the log tells that)."""
    facts: dict[str, Any] = {
        "file": stored.path.name,
        "url": published,
        "digests": {"sha256": stored.sha256, **{digest.algorithm.value: digest.value for digest in promise.digests}},
    }
    if promise.signed_by:
        signed_at = dt.datetime.fromtimestamp(promise.signed_at, dt.UTC)
        facts |= {"signed_by": promise.signed_by, "signed_at": f"{signed_at:%Y-%m-%dT%H:%M:%SZ}"}
    return facts
