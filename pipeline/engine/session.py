"""A build from its start to its end: alone on its cache, swept before, and ended whole when it is interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator

from pipeline.commit import sweep
from pipeline.disk_image import as_root
from pipeline.engine.interrupts import Interrupts, interrupts_end_programs
from pipeline.errors import ConflictError
from pipeline.run import end_all, run
from pipeline.workspace import Cache

_GRACE = 15.0  # seconds for interrupted recipes to remove what they had half made
_idle = threading.Condition()
_running_recipes = 0


@contextlib.contextmanager
def build_session(cache: Cache) -> Iterator[Interrupts]:
    """Hold the cache for one build.

    The kernel holds the lock, so it vanishes with the process. What killed builds left is removed first. When the
    block is left, no recipe runs any more, in whatever thread: after Ctrl-C they are ended and have cleaned up.

    :raises ConflictError: if another build holds the cache, saying which process.
    """
    cache.root.mkdir(parents=True, exist_ok=True)
    with cache.lock.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise ConflictError(
                "another build is writing to this cache",
                details=f"process {stream.read().strip() or 'unknown'} holds {cache.lock}",
                resolution="wait for it to end, or use a cache of your own with PVMLAB_CACHE",
            ) from None
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        _sweep(cache)
        with interrupts_end_programs() as interrupts:
            try:
                yield interrupts
            finally:
                _end_recipes()


@contextlib.contextmanager
def recipe_running() -> Iterator[None]:
    """Count a recipe as running while the block does."""
    global _running_recipes  # noqa: PLW0603 (recipes run in threads that doit makes, a session is in none of them)
    with _idle:
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


def _sweep(cache: Cache) -> None:
    """Remove scratch directories and half-written files of builds that were killed."""
    leftovers = sorted(cache.scratch.iterdir()) if cache.scratch.is_dir() else []
    if leftovers:  # files in them may belong to the ids of a user namespace
        run(as_root(["rm", "--recursive", "--force", "--", *leftovers]), timeout=300)
    for folder in {path.parent for path in cache.root.rglob(".*.partial")}:
        sweep(folder)
