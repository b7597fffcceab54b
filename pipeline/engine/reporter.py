"""One line when a task starts, one when it ends: what, why, how long, how big."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import IO, Any

from pipeline.artifact import Artifact
from pipeline.engine.interrupts import Interrupts
from pipeline.engine.session import build_session
from pipeline.errors import ExitCode, PvmlabError
from pipeline.workspace import Cache


def format_size(size: int) -> str:
    """Return a size in bytes for people, in binary units: ``118 MiB``."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


class Reporter:
    """doit's reporter interface; collects what was executed.

    Each event is one whole line, so parallel tasks never mix.
    """

    desc = "what is built, why, how long it took"

    def __init__(self, outstream: IO[str], options: dict[str, Any]) -> None:  # noqa: ARG002 (doit's signature)
        self._out = outstream
        self._started: dict[str, float] = {}
        self.executed: list[str] = []
        self.up_to_date: list[str] = []
        self.failures: list[PvmlabError] = []

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Take note of the run's tasks: nothing to prepare."""

    def get_status(self, task: Any) -> None:
        """doit is about to check *task*."""

    def execute_task(self, task: Any) -> None:
        """*task* starts."""
        artifact = _artifact(task)
        if artifact is None:
            return
        self._started[task.name] = time.monotonic()
        self._line(f"building   {task.name}  ({artifact.reason() or 'asked for'})")

    def add_success(self, task: Any) -> None:
        """*task* ended well."""
        artifact = _artifact(task)
        if artifact is None:
            return
        self.executed.append(task.name)
        size = format_size(sum(target.stat().st_size for target in artifact.targets))
        self._line(f"built      {task.name}  {time.monotonic() - self._started[task.name]:.1f} s, {size}")

    def add_failure(self, task: Any, fail: Any) -> None:
        """*task* failed, or what it needs did."""
        error = getattr(fail, "pvmlab_error", None)
        if error is None and fail.get_name() == "UnmetDependency":
            return  # the cause was reported
        self.failures.append(error or PvmlabError(f"{task.name} failed", details=fail.get_msg()))
        self._line(f"failed     {task.name}")

    def skip_uptodate(self, task: Any) -> None:
        """*task* is up to date."""
        if _artifact(task) is not None:
            self.up_to_date.append(task.name)

    def skip_ignore(self, task: Any) -> None:
        """*task* is ignored by the user's wish (``doit ignore``)."""
        self._line(f"ignored    {task.name}")

    def cleanup_error(self, exception: Any) -> None:
        """A teardown failed."""
        self._line(f"failed     {exception.get_msg()}")

    def runtime_error(self, msg: str) -> None:
        """doit itself failed."""
        self.failures.append(PvmlabError(msg))

    def teardown_task(self, task: Any) -> None:
        """*task*'s teardown starts: no task has one."""

    def complete_run(self) -> None:
        """Print the failures, last, where they are seen; one line if there was nothing to do."""
        for error in self.failures:
            self._line(f"error: {error.brief}")
            for line in f"{error.details}\n{error.resolution}".strip().splitlines():
                self._line(f"  {line}")
        if not self.executed and not self.failures:
            self._line(f"all {len(self.up_to_date)} artifacts are up to date")

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class CommandLineReporter(Reporter):
    """For ``doit`` itself: also holds the cache for the run, and ends the run as people expect of a command.

    :ivar cache: set by the class that the dodo file makes for its cache.
    """

    cache: Cache

    def __init__(self, outstream: IO[str], options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self._session = contextlib.ExitStack()
        self._interrupts = Interrupts()

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Take the cache; SIGTERM is from now on as gentle as Ctrl-C."""
        super().initialize(tasks, selected_tasks)
        try:
            self._interrupts = self._session.enter_context(build_session(self.cache))
        except PvmlabError as error:
            self.failures.append(error)
            super().complete_run()
            sys.exit(error.exit_code)

    def complete_run(self) -> None:
        """Give the cache back. Called by doit in a ``finally``, so an interrupt is still on its way."""
        self._session.close()
        if self._interrupts.seen:
            self._line("interrupted; what was built stays, the next run carries on")
            sys.exit(ExitCode.INTERRUPTED)
        if not isinstance(sys.exc_info()[1], SystemExit):
            super().complete_run()


def _artifact(task: Any) -> Artifact | None:
    """Return the task's artifact; a group task has none."""
    return (task.meta or {}).get("artifact")
