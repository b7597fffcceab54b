"""What ``distro.pull`` and ``distro.remove`` do: fetching, building and removing all that belongs to a release."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cli.confirm import require_yes
from cli.distro_list import FETCHED, MADE, is_shipped, missing_for, tasks_of
from cli.output import say
from contracts.arch import Arch
from distros import authoring, registry
from distros.release import Locked, Medium, MediumKind, Release
from lab.lab import Lab
from lab.progress import Reporter, open_reporter
from lab.store import DefinitionStore
from pipeline.artifact import Artifact
from pipeline.engine.lock import hold, lock_wait
from pipeline.errors import ConflictError, ExitCode, PrerequisiteError, UsageError
from pipeline.fetch.addresses import Reach, reach_of_name
from pipeline.fetch.store import Store, Stored, fetch_unpinned
from pipeline.progress import Progress, ProgressListener
from pipeline.recipes import build, media
from pipeline.recipes import graph as recipes
from pipeline.reporting.wording import counted, format_size
from pipeline.sidecar import files_of, read_sidecar
from pipeline.workspace import Cache, Workspace

_Wanted = list[tuple[Release, Arch]]


def pull(
    names: Sequence[str], *, everything: bool, arch: str, media_only: bool, offline: bool, newest: bool, lock: bool
) -> int:  # fmt: skip
    """Fetch the media of releases and make of them what installs need.

    :param arch: one, ``all``, or nothing: this host's if the release is there for it.
    :param newest: ask whether there are newer media than those that are here.
    :param lock: trust the mirror once for media of which no digest is known, and put them into the lock.
    :returns: the exit code: of the first failure, which is told.
    :raises PvmlabError: if nothing could be done at all.
    """
    if bool(names) == everything:
        raise UsageError("distro.pull wants the names of distributions, or --all", resolution="./pvmlab distro.ls")
    if offline and (newest or lock):
        raise UsageError("--newest and --lock ask the network, --offline forbids it")
    chosen = list(registry.releases().values()) if everything else [registry.find_release(name) for name in names]
    wanted = [(release, each) for release in chosen for each in _arches(release, arch, everything=everything)]
    with _offline(offline):
        if lock:
            wanted = _lock_unknown(wanted, media_only=media_only)
        tasks = _pullable(wanted, media_only=media_only, everything=everything)
        if newest:
            _renew(tasks)
        options = build.BuildOptions(wait=lock_wait(), keep_going=everything)
        summary = build.run_build(tasks, options) if tasks else build.BuildSummary((), ())
    if summary.failures:
        return summary.failures[0].exit_code
    say(f"{counted(len(summary.executed), 'task')} done, {len(summary.up_to_date)} up to date already")
    return ExitCode.DONE


def remove(name: str, *, yes: bool, with_artifacts: bool) -> None:
    """Remove the definition of a release and what the lock says of it.

    :param with_artifacts: also what was fetched and made of it.
    :raises NotFoundError: if there is none. :raises ConflictError: if a machine of this lab uses it, the answer is no,
        or somebody else works on the cache. :raises UsageError: if it is one of this project's, without *yes*.
    """
    file, lab = registry.definition_file(name), Lab.from_environment()
    if is_shipped(name) and not yes:
        raise UsageError(
            f"{name} is among those that come with pvmlab",
            resolution=f"--yes removes it all the same; `git checkout -- distros/{file.name} distros/lock.yaml` brings "
            "it back, if it was committed",
        )
    if users := _machines_with(name, lab):
        raise ConflictError(
            f"{name} is in use: {', '.join(users)}", resolution=f"./pvmlab vm.clean {users[0]} removes that machine"
        )
    artifacts = [each for arch in Arch for each in _artifacts(name, arch)]
    stored = _stored_media(artifacts, lab.cache)
    # the store's name of a medium is another one of the same bytes, where the file system has hard links
    size = sum(path.stat().st_size for artifact in artifacts for path in _files(artifact))
    also = f" and {format_size(size)} that were fetched and made of it" if with_artifacts and size else ""
    require_yes(f"{file}{also} will be gone.", yes=yes)
    with contextlib.ExitStack() as locks:
        if with_artifacts:
            locks.enter_context(hold(lab.cache, wait=lock_wait(), tell=say))
        if lab.home.root.is_dir():  # nobody makes a machine of it meanwhile
            locks.enter_context(lab.changing_definitions())
        if with_artifacts:
            for path in [*stored, *(path for artifact in artifacts for path in _files(artifact))]:
                path.unlink(missing_ok=True)
        authoring.undefine(name)
    recipes.reload()
    say(f"removed {file}")
    if size and not with_artifacts:
        say(
            f"{format_size(size)} that were fetched and made of it stay in the cache; ./pvmlab cache.prune removes them"
        )


def trust_once(medium: Medium, cache: Cache, *, what: str, reporter: Reporter) -> Locked:
    """Fetch a medium of which nothing is known, and return what it turned out to be.

    :param what: how people call it.
    :raises UsageError: if somebody between here and the mirror could send other bytes.
    :raises PvmlabError: if it cannot be fetched.
    """
    require_private_way(medium.mirrors)
    urls = [f"{mirror}{medium.file}" for mirror in medium.mirrors]
    stored = fetch_unpinned(
        medium.file, urls, store=Store(cache), max_size=medium.max_size, listener=shown_by(reporter)
    )
    reporter.say(f"{what}: {format_size(stored.size)} from {stored.url}, sha256 {stored.sha256}")
    return locked_as(stored)


def locked_as(stored: Stored) -> Locked:
    """Return what the lock says of a stored file."""
    return Locked(file=stored.path.name, sha256=stored.sha256, size=stored.size)


def require_private_way(urls: Iterable[str]) -> None:
    """Refuse addresses to which the way is not protected: who sits on it decides what comes.

    :raises UsageError: for one that is http, unless it does not leave this host.
    """
    for url in urls:
        if not url.startswith("https:") and reach_of_name(url) is not Reach.HOST:
            raise UsageError(
                f"{url} is not fetched without a digest: anybody on the way there could send something else",
                resolution="use an https mirror, or a digest from a page that you trust (--sha256)",
            )


def shown_by(reporter: Reporter) -> ProgressListener:
    """Return what shows progress by *reporter*."""

    def show(progress: Progress) -> None:
        reporter.show(progress.step, progress.done * 100 // progress.total if progress.total else None)

    return show


def _arches(release: Release, words: str, *, everything: bool) -> list[Arch]:
    if words == "all":
        return list(release.arches)
    if words and words not in set(Arch):
        raise UsageError(f"--arch {words!r} is unknown", resolution=f"use one of: {', '.join(Arch)}, all")
    if not words:
        return [Arch.of_host() if Arch.of_host() in release.arches else release.arches[0]]
    if everything and Arch(words) not in release.arches:
        return []
    registry.require_release(release.name, Arch(words))
    return [Arch(words)]


def _pullable(wanted: _Wanted, *, media_only: bool, everything: bool) -> list[str]:
    """Return the tasks to run.

    :raises PrerequisiteError: if the digest of a medium they need is not known; with *everything*, that is only told.
    """
    tasks: list[str] = []
    for release, arch in wanted:
        of_release = _tasks(release, arch, media_only=media_only)
        unknown = _unknown(release, arch, of_release)
        if not unknown:
            tasks += of_release
        elif everything:
            say(f"{release.name}, {arch} is left out: no digest is known of {', '.join(unknown)} (--lock)")
        else:
            raise PrerequisiteError(
                f"no digest is known of what {release.name}, {arch} is made from: {', '.join(unknown)}",
                details="there is no list that the distribution signs, and no entry in the lock",
                resolution=f"`./pvmlab distro.pull {release.name} --arch {arch} --lock` trusts the mirror once and "
                "locks what it has now; or write file, sha256 and size into the lock, from a page that you trust",
            )
    return list(dict.fromkeys(tasks))


def _tasks(release: Release, arch: Arch, *, media_only: bool) -> list[str]:
    """Return the tasks that make all that installs need; or, of them, those that download media."""
    graph = recipes.graph()
    made = tasks_of(graph, release.name, arch, MADE)
    if not media_only and made:
        return made
    needed = [artifact.name for artifact in graph.closure(made)]
    fetching = tasks_of(graph, release.name, arch, (FETCHED,))
    return [task for task in fetching if task in needed] or fetching


def _unknown(release: Release, arch: Arch, tasks: Sequence[str]) -> list[str]:
    """Return the media that *tasks* need and of which no digest is known."""
    kinds = [kind for kind in _media_of(release, arch, tasks) if kind in release.sources[arch].media]
    return [
        kind for kind in kinds if missing_for(release, arch, release.sources[arch].media[kind]) == "no digest known"
    ]


def _media_of(release: Release, arch: Arch, tasks: Sequence[str]) -> list[MediumKind]:
    needed = {artifact.name for artifact in recipes.graph().closure(tasks)}
    return [kind for kind in release.sources[arch].media if f"{FETCHED}:{release.name}:{arch}:{kind}" in needed]


def _lock_unknown(wanted: _Wanted, *, media_only: bool) -> _Wanted:
    """Fetch what no digest is known of, and lock it; return the same releases, as they are now."""
    cache = Workspace.from_environment().cache
    # held: a build's sweep would take what is half-written for a leftover
    with hold(cache, wait=lock_wait(), tell=say), open_reporter() as reporter:
        for release, arch in wanted:
            for kind in _unknown(release, arch, _tasks(release, arch, media_only=media_only)):
                medium = release.sources[arch].media[MediumKind(kind)]
                what = f"{release.name}, {arch}, {kind}"
                locked = trust_once(medium, cache, what=what, reporter=reporter)
                place = authoring.lock_medium(release, arch, medium.kind, locked)
                reporter.say(f"{what}: locked in {place}; compare the digest with what the distribution publishes")
    recipes.reload()
    return [(registry.find_release(release.name), arch) for release, arch in wanted]


def _renew(tasks: Sequence[str]) -> None:
    """Ask for each medium that *tasks* need whether there is a newer one, and have the build fetch that."""
    cache = Workspace.from_environment().cache
    for artifact in recipes.graph().closure(tasks):
        kind, *words = artifact.name.split(":")
        if kind == FETCHED:
            release = registry.require_release(words[0], Arch(words[1]))
            if media.renew(release, Arch(words[1]), MediumKind(words[2]), cache):
                say(f"{artifact.name}: there is a newer one")


@contextlib.contextmanager
def _offline(wanted: bool) -> Iterator[None]:  # noqa: FBT001 (the one thing it is about)
    before = os.environ.get("PVMLAB_OFFLINE")
    if wanted:
        os.environ["PVMLAB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if wanted and before is None:
            del os.environ["PVMLAB_OFFLINE"]
        elif wanted and before is not None:
            os.environ["PVMLAB_OFFLINE"] = before


def _machines_with(name: str, lab: Lab) -> list[str]:
    """Return the machines of *lab* that are installed from a release. :raises PvmlabError: if one is broken."""
    return [definition.name for definition in DefinitionStore(lab).load_all() if definition.distro == name]


def _artifacts(name: str, arch: Arch) -> list[Artifact]:
    graph = recipes.graph()
    return [artifact for task, artifact in graph.artifacts.items() if task.split(":")[1:3] == [name, arch]]


def _files(artifact: Artifact) -> list[Path]:
    return [path for target in artifact.targets for path in files_of(target) if path.is_file()]


def _stored_media(artifacts: Iterable[Artifact], cache: Cache) -> list[Path]:
    """Return the names that the store has for media among *artifacts*."""
    found = []
    for artifact in artifacts:
        record = read_sidecar(artifact.targets[0]) if artifact.name.startswith(f"{FETCHED}:") else None
        if record is not None and (path := Store(cache).place(record["sha256"], record["facts"]["file"])).is_file():
            found.append(path)
    return found
