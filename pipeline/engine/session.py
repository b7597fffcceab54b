"""A build from its start to its end: alone on its cache, swept before, and ended whole when it is interrupted."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.commit import sweep
from pipeline.disk_image import as_root
from pipeline.engine.interrupts import Interrupts, interrupts_end_programs
from pipeline.engine.lock import end_orphans, hold, is_held, lock_wait
from pipeline.run import end_all, run
from pipeline.state import state_of
from pipeline.workspace import Cache

_REMOVAL = 300.0  # seconds to remove scratch: whole root file systems
_GRACE = 15.0  # seconds for interrupted recipes to remove what they had half made
_idle = threading.Condition()
_running_recipes = 0
_for_good = contextlib.ExitStack()  # held until the process ends


@contextlib.contextmanager
def build_session(
    cache: Cache, *, wait: float = 0, tell: Callable[[str], None] = lambda _text: None
) -> Iterator[Interrupts]:
    """Hold the cache for one build.

    What killed builds left is removed first. When the block is left, no recipe runs any more, in whatever thread: after
    Ctrl-C they are ended and have cleaned up.

    :param wait: seconds to wait for another build to end; see :func:`lock_wait`.
    :param tell: takes a sentence that says who is waited for.
    :raises ConflictError: if another build holds the cache, and still does after *wait*, saying which process.
    """
    with hold(cache, wait=wait, tell=tell):
        _sweep(cache)
        with interrupts_end_programs() as interrupts:
            try:
                yield interrupts
            finally:
                _end_recipes()
                state_of(cache).close()


@contextlib.contextmanager
def recipe_running(cache: Cache) -> Iterator[None]:
    """Count a recipe as running while the block does.

    :raises ConflictError: if this process does not hold the cache, and cannot get it (doit run with a reporter of its
        own, ``doit -r console``, opens no session).
    """
    global _running_recipes  # noqa: PLW0603 (recipes run in threads that doit makes, a session is in none of them)
    with _idle:
        if not is_held(cache):
            _for_good.enter_context(hold(cache, wait=lock_wait()))
        _running_recipes += 1
    try:
        yield
    finally:
        with _idle:
            _running_recipes -= 1
            _idle.notify_all()


def _end_recipes() -> None:
    """End the programs of recipes that still run, and wait until they have cleaned up."""
    if _running_recipes:
        end_all()
        with _idle:
            _idle.wait_for(lambda: _running_recipes == 0, timeout=_GRACE)


def remove_scratch(cache: Cache, folders: Sequence[Path]) -> None:
    """Remove working directories of builds that were killed, after ending the programs that still write there.

    Call it while holding the cache.

    :raises CommandError: if one cannot be removed.
    """
    if folders:
        end_orphans(cache)
        # As root: files in them may belong to the ids of a user namespace. And never into a file system that a build
        # had mounted there: /dev of the host, at worst.
        run(as_root(["rm", "--recursive", "--force", "--one-file-system", "--", *folders]), timeout=_REMOVAL)


def _sweep(cache: Cache) -> None:
    """Remove scratch directories and half-written files of builds that were killed."""
    remove_scratch(cache, sorted(cache.scratch.iterdir()) if cache.scratch.is_dir() else [])
    for folder, _, names in os.walk(cache.root):  # a tenth of the time of Path.rglob
        if any(name.endswith(".partial") for name in names):
            sweep(Path(folder))
