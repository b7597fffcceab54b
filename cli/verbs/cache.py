"""The verbs of the cache, ``cache.*``."""

from __future__ import annotations

from collections.abc import Sequence

from invoke import Collection, Context, task

from cli.verbs.words import ACTED, OUTPUT, TASKS


@task(name="list", auto_shortflags=False, help={"output": OUTPUT})
def cache_list(_c: Context, output: str = "table") -> None:
    """Show what is in the cache: how big it is, whether it is up to date, who needs it."""
    from cli.cache_verbs import list_cache

    list_cache(output=output)


@task(name="prune", auto_shortflags=False, help={
    "keep-used": "keep only what machines of this lab need",
    "dry-run": "only say what would be removed, and why",
    "yes": "do not ask",
    "output": OUTPUT,
})  # fmt: skip
def cache_prune(
    _c: Context, *, keep_used: bool = False, dry_run: bool = False, yes: bool = False, output: str = "table"
) -> None:  # fmt: skip
    """Remove what killed builds left, what no task makes any more, and package files that nothing is made of."""
    from cli.cache_verbs import prune_cache

    prune_cache(keep_used=keep_used, dry_run=dry_run, yes=yes, output=output)


@task(name="verify", positional=[], iterable=["task"], auto_shortflags=False, help={
    "task": "what to make once more, named as for `build`; a sample at random, if there are none",
    "sample": "how many artifacts to make once more; 0: only read",
    "keep": "a folder for both files, where they differ",
    "output": OUTPUT,
})  # fmt: skip
def cache_verify(
    _c: Context, task: Sequence[str], sample: int = 1, keep: str = "", output: str = "table"
) -> None:  # fmt: skip
    """Read all that is built and compare it with its digests; make a sample once more and compare that."""
    from cli.cache_verbs import verify_cache

    verify_cache(task, sample=sample, keep=keep, output=output)


@task(name="export", positional=["file"], iterable=["task"], auto_shortflags=False, help={
    "file": "the bundle to write (/dev/stdout for a pipe)",
    "task": TASKS,
})  # fmt: skip
def cache_export(_c: Context, file: str, task: Sequence[str]) -> None:
    """Write artifacts, and all they were made from, into one file for another cache."""
    from cli.cache_verbs import export_bundle

    export_bundle([file, *task])


@task(name="import", positional=["file"], auto_shortflags=False, help={
    "file": "the bundle (/dev/stdin for a pipe)",
    "replace": "also what is up to date here and differs",
    "output": ACTED,
})  # fmt: skip
def cache_import(_c: Context, file: str, *, replace: bool = False, output: str = "table") -> None:
    """Put the artifacts of a bundle into the cache, after checking each against its digest."""
    from cli.cache_verbs import import_bundle

    import_bundle(file, replace=replace, output=output)


collection = Collection(cache_list, cache_prune, cache_verify, cache_export, cache_import)
