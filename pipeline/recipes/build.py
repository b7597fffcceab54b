"""Builds artifacts from within a program, the way ``doit`` does from the command line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import IO, Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from pipeline.engine.lock import lock_wait
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build.

    :ivar jobs: tasks at once. :ivar wait: seconds to wait for another build of the same cache.
    :ivar keep_going: after a failure go on with what does not depend on it.
    :ivar output: ``text`` for people, ``json`` for one object a line on standard output.
    """

    jobs: int = PARALLEL_TASKS
    wait: float = 0
    keep_going: bool = False
    output: str = "text"


def ensure(tasks: Sequence[str], options: BuildOptions | None = None) -> BuildSummary:
    """Build what is missing or out of date of *tasks* and all they need; tell what happens on stderr.

    Nothing is started, not even doit, when all is up to date.

    :raises PvmlabError: the first failure. :raises ConflictError: if another build writes to the cache.
    """
    options = options or BuildOptions(wait=lock_wait())
    wanted = graph().closure(tasks)
    if all(artifact.reason() is None for artifact in wanted):
        return BuildSummary((), tuple(artifact.name for artifact in wanted))
    with build_session(Workspace.from_environment().cache, wait=options.wait, tell=_tell):
        return _run_doit(tasks, options)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _run_doit(tasks: Sequence[str], options: BuildOptions) -> BuildSummary:
    reporters: list[Reporter] = []

    class Collecting(Reporter):
        def __init__(self, _outstream: IO[str], options: dict[str, Any]) -> None:
            super().__init__(sys.stderr, options)
            reporters.append(self)

        def complete_run(self) -> None:
            """Leave the telling of failures to our caller."""

    namespace = doit_namespace(Collecting)
    code = DoitMain(ModuleTaskLoader(namespace)).run(["run", "-n", str(options.jobs), *(["-c"] if options.keep_going else []), *tasks])
    failures = [failure for reporter in reporters for failure in reporter.failures]
    if failures:
        raise failures[0]
    if code != 0:
        raise PvmlabError(f"doit ended with exit status {code}", resolution="its message is above")
    (reporter,) = reporters
    return BuildSummary(tuple(reporter.executed), tuple(reporter.up_to_date))
