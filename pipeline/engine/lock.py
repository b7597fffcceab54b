"""One writer to a cache at a time. The kernel holds the lock, so it vanishes with the process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from pipeline.errors import ConflictError
from pipeline.workspace import Cache


@contextlib.contextmanager
def cache_lock(cache: Cache) -> Iterator[None]:
    """Hold the cache's lock.

    :raises ConflictError: if another build holds it, saying which process.
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
        yield
