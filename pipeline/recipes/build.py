"""Builds artifacts from within a program, the way ``doit`` does from the command line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import IO, Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from pipeline.engine.reporter import Reporter
from pipeline.engine.session import build_session
from pipeline.errors import PvmlabError
from pipeline.recipes.graph import doit_namespace, graph
from pipeline.workspace import Workspace

PARALLEL_TASKS = 2  # a build is one busy process and one waiting for the mirror, most of the time


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What a build did, by task names."""

    executed: tuple[str, ...]
    up_to_date: tuple[str, ...]


def ensure(tasks: Sequence[str]) -> BuildSummary:
    """Build what is missing or out of date of *tasks* and all they need; print one line per event to stderr.

    Nothing is started, not even doit, when all is up to date.

    :raises PvmlabError: the first failure. :raises ConflictError: if another build writes to the cache.
    """
    wanted = graph().closure(tasks)
    if all(artifact.reason() is None for artifact in wanted):
        return BuildSummary((), tuple(artifact.name for artifact in wanted))
    with build_session(Workspace.from_environment().cache):
        return _run_doit(tasks)


def _run_doit(tasks: Sequence[str]) -> BuildSummary:
    reporters: list[Reporter] = []

    class Collecting(Reporter):
        def __init__(self, _outstream: IO[str], options: dict[str, Any]) -> None:
            super().__init__(sys.stderr, options)
            reporters.append(self)

        def complete_run(self) -> None:
            """Leave the telling of failures to our caller."""

    namespace = doit_namespace(Collecting)
    code = DoitMain(ModuleTaskLoader(namespace)).run(["run", "-n", str(PARALLEL_TASKS), *tasks])
    failures = [failure for reporter in reporters for failure in reporter.failures]
    if failures:
        raise failures[0]
    if code != 0:
        raise PvmlabError(f"doit ended with exit status {code}", resolution="its message is above")
    (reporter,) = reporters
    return BuildSummary(tuple(reporter.executed), tuple(reporter.up_to_date))
