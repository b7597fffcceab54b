"""What the ``cache.`` verbs do: the cache is the pipeline's, who needs it is the lab's; here both meet."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cli.builds import select
from cli.cache_list import data_of, table_of, view_cache
from cli.confirm import require_yes
from cli.output import emit, say
from contracts.names import PROVISIONER_NAME
from distros.registry import releases
from lab import provisioner
from lab.base_images import base_images
from lab.lab import Lab
from lab.progress import Reporter, open_reporter
from lab.store import BrokenDefinitionError, DefinitionStore
from pipeline.engine.lock import hold, lock_wait
from pipeline.engine.session import build_session
from pipeline.errors import ChecksumError, ConflictError, NotFoundError, UsageError
from pipeline.graph import Graph
from pipeline.progress import Progress, ProgressListener
from pipeline.recipes import graph as recipes
from pipeline.reporting.wording import counted, format_size
from pipeline.upkeep import bundle, bundle_import, verification
from pipeline.upkeep.bundle_import import Fate
from pipeline.upkeep.inventory import take_inventory
from pipeline.upkeep.pruning import PrunePlan, plan_prune, prune
from pipeline.upkeep.verification import Damage, Remade


def list_cache(*, output: str) -> None:
    """Print what is in the cache. :raises UsageError: for an unknown *output*."""
    lab = Lab.from_environment()
    store, machines = DefinitionStore(lab), _provisioner_needs(lab)
    for name in store.names():
        try:
            machines[name] = _needs_of(store, name)
        except BrokenDefinitionError as error:
            say(f"{error.brief}: what it needs is not known")
    expected = {*recipes.default_tasks(), *(task for tasks in machines.values() for task in tasks)}
    view = view_cache(recipes.graph(), lab.cache, machines, expected=expected)
    emit(data_of(view, lab.cache), output=output, table=table_of(view, lab.cache))


def prune_cache(*, keep_used: bool, dry_run: bool, yes: bool, output: str) -> None:
    """Remove what is not needed, after saying what that is.

    :raises ConflictError: if the answer is no, somebody else works on the cache or the lab, or it cannot be told
        what a machine needs.
    """
    lab = Lab.from_environment()
    plan = plan_cache_prune(lab, keep_used=keep_used)
    if output != "json":
        _show_plan(plan, lab, output=output, dry_run=dry_run)
    if plan.removals and not dry_run:
        require_yes(f"{format_size(plan.size)} in {lab.cache.root} will be removed.", yes=yes)
        carry_out_prune(plan, lab, keep_used=keep_used)
    if output == "json":
        _show_plan(plan, lab, output=output, dry_run=dry_run)
    elif plan.removals and not dry_run:
        say(f"freed {format_size(plan.size)}")


def carry_out_prune(plan: PrunePlan, lab: Lab, *, keep_used: bool) -> None:
    """Remove what *plan* says. :raises ConflictError: if somebody else works on the cache, or it has changed."""
    with contextlib.ExitStack() as locks:
        locks.enter_context(hold(lab.cache, wait=lock_wait(), tell=say))
        if lab.home.root.is_dir():  # nobody makes a machine, and with it a need, meanwhile
            locks.enter_context(lab.changing_definitions())
            locks.enter_context(lab.starting(PROVISIONER_NAME))
        if plan_cache_prune(lab, keep_used=keep_used) != plan:
            raise ConflictError("the cache has changed meanwhile; nothing was removed", resolution="try again")
        prune(plan, lab.cache)


def verify_cache(words: Sequence[str], *, sample: int, keep: str, output: str) -> None:
    """Read all that is built, and make some of it once more.

    :param words: what to make once more; if there are none, *sample* artifacts at random.
    :raises ChecksumError: for bytes that are not the recorded ones.
    """
    if sample < 0:
        raise UsageError("--sample is 0 or more")
    graph, cache = recipes.graph(), Lab.from_environment().cache
    tasks = select(words) if words else []  # first: what is no task makes nothing
    remade: list[Remade] = []
    with build_session(cache, wait=lock_wait(), tell=say), open_reporter() as reporter:
        readable = [found for found in take_inventory(graph, cache) if verification.is_readable(found)]
        if damages := verification.read_all(readable, cache, _shown_by(reporter)):
            raise _damaged(damages)
        for artifact in (
            verification.require_candidates(graph, tasks) if tasks else verification.choose(graph, number=sample)
        ):
            reporter.say(f"making {artifact.name} once more")
            remade += verification.remake(
                artifact,
                lambda other: Graph(recipes.artifacts(other)),
                keep=Path(keep).absolute() if keep else None,
                listener=_shown_by(reporter),
            )
    if different := [file for file in remade if not file.is_equal]:
        raise _different(different, keep=keep)
    if sample and not remade:
        say("nothing here can be made once more: nothing that is built is up to date, or tools are missing")
    again = [{"task": file.task, "path": str(file.path.relative_to(cache.root))} for file in remade]
    size = sum(found.size for found in readable)
    emit(
        {"files": len(readable), "size": size, "remade": again},
        output=output,
        table=[
            ("TASK", "FILE", "RESULT"),
            ("", f"{counted(len(readable), 'file')}, {format_size(size)}", "undamaged"),
            *((file["task"], file["path"], "made once more: the same bytes") for file in again),
        ],
    )


def export_bundle(words: Sequence[str]) -> None:
    """Write artifacts, and all they were made from, to a bundle.

    :param words: the file to write, then the tasks; all, if there are none.
    :raises ConflictError: if one is not up to date. :raises UsageError: without a file that can be written.
    """
    if not words:
        raise UsageError("cache.export wants FILE", resolution="./pvmlab cache.export --help shows what it takes")
    file, *tasks = words
    path, cache = Path(file), Lab.from_environment().cache
    if path.is_dir():
        raise UsageError(f"{file} is a folder", resolution="name the file to write")
    content = bundle.plan_bundle(recipes.graph(), select(tasks), cache)
    with open_reporter() as reporter:
        bundle.export_bundle(content, cache, path, _shown_by(reporter))
    if content.absent:
        say(f"not in the cache, so not in the bundle: {counted(len(content.absent), 'package')}")
    files = f"{counted(len(content.entries), 'file')}, {format_size(content.size)}"
    say(f"exported {counted(len(content.tasks), 'artifact')} in {files}: {file}")


def import_bundle(file: str, *, replace: bool, output: str = "table") -> None:
    """Put the artifacts of a bundle into the cache.

    :param output: with ``json``, what became of each artifact is printed at the end.

    :raises NotFoundError: if there is no such file. :raises ChecksumError: if it is damaged.
    """
    path, cache = Path(file), Lab.from_environment().cache
    if not path.exists() or path.is_dir():
        raise NotFoundError(f"there is no file {file}", resolution="./pvmlab cache.export makes a bundle")
    session = build_session(cache, wait=lock_wait(), tell=say)  # it removes what a killed import left
    with session, open_reporter() as reporter, path.open("rb") as source:
        result = bundle_import.import_bundle(
            source, recipes.graph(), cache, replace=replace, listener=_shown_by(reporter)
        )  # fmt: skip
    counts = [f"{list(result.fates.values()).count(fate)} {fate}" for fate in Fate if fate in result.fates.values()]
    say(f"{', '.join(counts) or 'no artifacts'}; {counted(result.downloads, 'new package')}")
    for task, fate in result.fates.items():
        reason = recipes.graph().artifacts[task].reason()
        if fate is Fate.KEPT:
            say(f"{task}: the bundle has another one; --replace takes it")
        if reason is not None:
            say(f"{task}: out of date here: {reason}")
    if output == "json":
        emit({"artifacts": result.fates, "packages": result.downloads}, output=output, table=[])


def _provisioner_needs(lab: Lab) -> dict[str, list[str]]:
    """Return the tasks that the provisioner runs from, by its name; nothing if there is none."""
    exists = provisioner.find_record(lab) is not None or provisioner.overlay_path(lab).exists()
    return {PROVISIONER_NAME: [f"provisioner:{provisioner.ARCH}"]} if exists else {}


def _needs_of(store: DefinitionStore, name: str) -> list[str]:
    definition = store.load(name)
    return recipes.machine_tasks(definition.distro, definition.arch, definition.installer)


def plan_cache_prune(lab: Lab, *, keep_used: bool) -> PrunePlan:
    """Return what of the cache can go. :raises ConflictError: if it cannot be told what a machine needs."""
    store, graph = DefinitionStore(lab), recipes.graph()
    machines = {name: _needs_of(store, name) for name in store.names()} | _provisioner_needs(lab)
    return plan_prune(
        take_inventory(graph, lab.cache),
        graph,
        needed=_with_needs(machines),
        only_needed=keep_used,
        locked={locked.sha256 for release in releases().values() for locked in release.locked.values()},
        base_images=base_images(lab),
    )


def _with_needs(machines: Mapping[str, Collection[str]]) -> set[str]:
    """Return the tasks of all *machines* and what those need; also tasks that the graph does not have (any more)."""
    direct = {task for tasks in machines.values() for task in tasks}
    graph = recipes.graph()
    return direct | {artifact.name for artifact in graph.closure(sorted(direct & graph.artifacts.keys()))}


def _show_plan(plan: PrunePlan, lab: Lab, *, output: str, dry_run: bool) -> None:
    root = lab.cache.root
    rows = [(str(each.found.path.relative_to(root)), each.found.size, each.why) for each in plan.removals]
    data = {
        "dry_run": dry_run,
        "size": plan.size,
        "removed": [{"path": path, "size": size, "why": why} for path, size, why in rows],
        "spared": [str(path.relative_to(root)) for path in plan.spared],
        "unknown": [str(path.relative_to(root)) for path in plan.unknown],
    }
    total = [("in all", format_size(plan.size), "")] if rows else []
    table = [("FILE", "SIZE", "WHY"), *((path, format_size(size), why) for path, size, why in rows), *total]
    emit(data, output=output, table=table)
    if not rows:
        say("there is nothing to remove")
    for path in plan.spared:
        say(f"{path.relative_to(root)} stays: the disk of a machine is an overlay of it")
    for path in plan.unknown:
        say(f"{path.relative_to(root)} stays: it was not made by pvmlab")


def _damaged(damages: Sequence[Damage]) -> ChecksumError:
    tasks = sorted({damage.task for damage in damages if damage.task is not None})
    return ChecksumError(
        f"the cache is damaged: {counted(len(damages), 'file')}",
        details="\n".join(f"{damage.path}: {damage.what}" for damage in damages),
        resolution=f"`./pvmlab build {' '.join(tasks)}` makes them again" if tasks
        else "the next build that needs them fetches them again",
    )  # fmt: skip


def _different(files: Sequence[Remade], *, keep: str) -> ChecksumError:
    lines = [f"{file.path}: recorded {file.recorded}, made once more {file.remade}" for file in files]
    kept = [f"kept: {file.kept}" for file in files if file.kept is not None]
    return ChecksumError(
        f"{counted(len(files), 'file')} came out different when made once more",
        details="\n".join([*lines, *kept]),
        resolution="compare them" if keep else "--keep DIR keeps both, to be compared",
    )


def _shown_by(reporter: Reporter) -> ProgressListener:
    def show(progress: Progress) -> None:
        reporter.show(progress.step, progress.done * 100 // progress.total if progress.total else None)

    return show
