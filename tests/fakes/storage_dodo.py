"""A dodo file with the toys of :mod:`tests.fakes.storage_toys`, for tests that record what a build does to the disk.

``TOY_CACHE`` is its cache, ``TOY_SALT`` an option of all artifacts. ``TOY_FAULT`` takes the flushing of ``files`` or of
``folders`` out of publishing, to show that the tests notice.
"""

import os
from pathlib import Path

import pipeline.commit
from pipeline.engine.settings import doit_settings
from pipeline.workspace import Cache
from tests.fakes.storage_toys import graph_of

CACHE = Cache(Path(os.environ["TOY_CACHE"]))
GRAPH = graph_of(CACHE, os.environ["TOY_SALT"])
DOIT_CONFIG = doit_settings(CACHE)
_flush = pipeline.commit._fsync


def flush_others(path: Path, flags: int) -> None:
    """Flush a file or folder, but not if it is what ``TOY_FAULT`` names."""
    if ("folders" if flags & os.O_DIRECTORY else "files") != os.environ.get("TOY_FAULT"):
        _flush(path, flags)


pipeline.commit._fsync = flush_others


def task_toy():  # type: ignore[no-untyped-def]  # doit's task creators have no types
    """Make the toys."""
    yield from GRAPH.tasks("toy")
