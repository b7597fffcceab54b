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
    """What a build did, by task names. :ivar failures: what went wrong, in the order it did."""

    executed: tuple[str, ...]
    up_to_date: tuple[str, ...]
    failures: tuple[PvmlabError, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build.

    :ivar jobs: tasks at once. :ivar wait: seconds to wait for another build of the same cache.
    :ivar keep_going: after a failure go on with what does not depend on it.
    :ivar output: ``text`` for people, on standard error; ``json`` for one object a line on standard output.
    """

    jobs: int = PARALLEL_TASKS
    wait: float = 0
    keep_going: bool = False
    output: str = "text"


def ensure(tasks: Sequence[str]) -> BuildSummary:
    """Build what is missing or out of date of *tasks* and all they need; tell what happens on standard error.

    Nothing is started, not even doit, when all is up to date.

    :raises PvmlabError: the first failure, untold. :raises ConflictError: if another build writes to the cache.
    """
    wanted = graph().closure(tasks)
    if all(artifact.reason() is None for artifact in wanted):
        return BuildSummary((), tuple(artifact.name for artifact in wanted))
    summary = run_build(tasks, BuildOptions(wait=lock_wait()), tells_failures=False)
    if summary.failures:
        raise summary.failures[0]
    return summary


def run_build(tasks: Sequence[str], options: BuildOptions, *, tells_failures: bool = True) -> BuildSummary:
    """Build what is missing or out of date of *tasks* and all they need; tell what happens.

    :param tells_failures: whether the failures are told at the end; not, if the caller does.
    :raises ConflictError: if another build writes to the cache. :raises PvmlabError: if doit itself fails.
    """
    reporters: list[Reporter] = []

    class Collecting(Reporter):
        output = options.output

        def __init__(self, _outstream: IO[str], settings: dict[str, Any]) -> None:
            super().__init__(sys.stdout if options.output == "json" else sys.stderr, settings)
            self.tells_failures = tells_failures
            reporters.append(self)

    words = ["-n", str(options.jobs), *(["--continue"] if options.keep_going else []), *tasks]
    with build_session(Workspace.from_environment().cache, wait=options.wait, tell=_tell):
        code = DoitMain(ModuleTaskLoader(doit_namespace(Collecting))).run(["run", *words])
    if not reporters or (code != 0 and not reporters[0].failures):
        raise PvmlabError(f"doit ended with exit status {code}", resolution="its message is above")
    (reporter,) = reporters
    return BuildSummary(tuple(reporter.executed), tuple(reporter.up_to_date), tuple(reporter.failures))


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
