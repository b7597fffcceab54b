"""One writer for each cache: a lock that the kernel holds, and the end of programs whose build was killed."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pipeline.errors import ConflictError, UsageError
from pipeline.run import inherited
from pipeline.workspace import Cache

_LOOK = 0.2  # seconds between two looks at a lock that another build holds
_LONGEST_COMMAND = 120  # characters of it that are told
_ORPHANS_END = 10.0  # seconds for killed orphans to be gone
_held: set[Path] = set()  # roots of the caches that this process holds


@contextlib.contextmanager
def hold(cache: Cache, *, wait: float = 0, tell: Callable[[str], None] = lambda _text: None) -> Iterator[None]:
    """Be the only one who writes to the cache while the block runs.

    The lock is flock(2)'s, so it vanishes with the process, however that ends. Programs that recipes run hold a
    descriptor of the cache's marker file meanwhile: by it :func:`end_orphans` knows them.

    :param wait: seconds to wait for another build to end. :param tell: takes a sentence that says who is waited for.
    :raises ConflictError: if somebody else holds it, and still does after *wait* seconds.
    """
    cache.root.mkdir(parents=True, exist_ok=True)
    with cache.lock.open("a+") as stream, cache.children_marker.open("a") as marker:
        _lock(stream, cache, wait, tell)
        stream.truncate(0)
        stream.write(f"process {os.getpid()} ({_command()}) since {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        stream.flush()
        _held.add(cache.root)
        try:
            with inherited(marker.fileno()):
                yield
        finally:
            _held.discard(cache.root)
            stream.truncate(0)


def is_held(cache: Cache) -> bool:
    """Return whether this process holds the cache."""
    return cache.root in _held


def lock_wait() -> float:
    """Return how long to wait for another build, in seconds: ``PVMLAB_WAIT_LOCK``, 0 (not at all) by default.

    :raises UsageError: if the variable is no number of seconds.
    """
    text = os.environ.get("PVMLAB_WAIT_LOCK") or "0"
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"PVMLAB_WAIT_LOCK is {text!r}", resolution="set it to a number of seconds, or unset it")
    return float(text)


def end_orphans(cache: Cache) -> list[int]:
    """End the programs of builds of *cache* that were killed; return their process ids.

    Call it while holding the cache: then no build lives, and whoever still has the marker open belongs to a dead one.
    """
    ended: list[int] = []
    deadline = time.monotonic() + _ORPHANS_END
    while (orphans := _with_open(cache.children_marker)) and time.monotonic() < deadline:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended += [pid for pid in orphans if pid not in ended]
        time.sleep(_LOOK / 10)
    return ended


def _lock(stream: IO[str], cache: Cache, wait: float, tell: Callable[[str], None]) -> None:
    deadline, told = time.monotonic() + wait, False
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(cache)
        else:
            return
        if time.monotonic() >= deadline:
            raise ConflictError(
                "another build is writing to this cache",
                details=f"{holder} holds {cache.lock}",
                resolution="wait for it with --wait-lock SECONDS (doit: PVMLAB_WAIT_LOCK), or use a cache of your own "
                "with PVMLAB_CACHE",
            )
        if not told:
            tell(f"waiting for another build to end: {holder}")
            told = True
        time.sleep(_LOOK)


def _command() -> str:
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])[:_LONGEST_COMMAND]


def _holder(cache: Cache) -> str:
    with contextlib.suppress(OSError):
        if text := cache.lock.read_text(errors="replace").strip():
            return text
    return "a process that did not say its name"


def _with_open(path: Path) -> list[int]:
    """Return the ids of the other processes that have the file open, as far as we may look into them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and any(_is_same(fd, path) for fd in (process / "fd").iterdir()):
                found.append(int(process.name))
    return found


def _is_same(descriptor: Path, path: Path) -> bool:
    try:
        return descriptor.samefile(path)
    except OSError:
        return False
