"""What a dodo file sets to have its tasks run by this engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import doit.cmd_base

from pipeline.engine.bookkeeping import Bookkeeping, ContentChecker
from pipeline.engine.reporter import CommandLineReporter, Reporter
from pipeline.workspace import Cache


def doit_settings(
    cache: Cache, reporter: type[Reporter] | None = None, *, default_tasks: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the ``DOIT_CONFIG`` of a dodo file whose tasks work with *cache*.

    :param reporter: None for the one of the ``doit`` command. :param default_tasks: what ``doit`` alone runs; None for
        all.
    """
    # doit finds other databases as plugins only, named in a file of the current folder and importable from anywhere.
    # The dodo file is loaded before doit makes its dependency manager, so the class can be put in its place here.
    doit.cmd_base.Dependency = type("CacheBookkeeping", (Bookkeeping,), {"cache": cache})
    return {
        "reporter": reporter or type("CacheReporter", (CommandLineReporter,), {"cache": cache}),
        "check_file_uptodate": type("CacheChecker", (ContentChecker,), {"cache": cache}),
        "dep_file": str(cache.state),
        "par_type": "thread",  # recipes wait for programs; closures and locks do not travel to other processes
        "verbosity": 0,
        **({} if default_tasks is None else {"default_tasks": list(default_tasks)}),
    }
