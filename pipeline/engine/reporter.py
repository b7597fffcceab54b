"""What doit says about a run, made into events for a view: what is built, why, how far it is, how long it took."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import IO, Any, NoReturn

from pipeline.artifact import Artifact
from pipeline.engine.interrupts import Interrupts
from pipeline.engine.lock import lock_wait
from pipeline.engine.session import build_session
from pipeline.errors import ExitCode, HostError, PvmlabError, UsageError
from pipeline.progress import ProgressListener
from pipeline.reporting.events import (
    Event,
    Outcome,
    RunFailed,
    RunFinished,
    RunNoted,
    RunStarted,
    TaskDone,
    TaskFailed,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    TaskUpToDate,
)
from pipeline.reporting.failure import Failure, failure_of
from pipeline.reporting.listener import TaskListener
from pipeline.reporting.views import open_view, wanted_output
from pipeline.workspace import Cache


class Reporter:
    """doit's reporter interface.

    doit calls ``execute_task`` in the thread of the task, everything else in the main thread; recipes report from any.

    :ivar output: see :func:`pipeline.reporting.views.open_view`.
    :ivar tells_failures: whether failures are told at the end; not if whoever asked for the run does.
    :ivar executed: the tasks that were built. :ivar up_to_date: those that had nothing to do.
    :ivar failures: what went wrong, in the order it did.
    """

    desc = "what is built, why, how long it took"
    output = "text"
    tells_failures = True

    def __init__(self, outstream: IO[str], options: dict[str, Any]) -> None:  # noqa: ARG002 (doit's signature)
        self._begun = time.monotonic()
        self._view = open_view(outstream, output=self.output)
        self._lock = threading.Lock()
        self._started: dict[str, float] = {}
        self._failures: list[Failure] = []
        self._finished = False
        self.executed: list[str] = []
        self.up_to_date: list[str] = []

    @property
    def failures(self) -> list[PvmlabError]:
        """What went wrong, in the order it did."""
        return [failure.error for failure in self._failures]

    def progress_of(self, task_name: str) -> ProgressListener:
        """Return what takes the progress of a task's recipe."""
        return TaskListener(task_name, clock=self._now, tell=self._progressed)

    def note(self, text: str) -> None:
        """Tell something about the run as a whole."""
        self._tell(RunNoted(time=self._now(), text=text))

    def initialize(self, tasks: Mapping[str, Any], selected_tasks: list[str]) -> None:
        """Give each task a listener for its recipe's progress."""
        involved = [task for task in _closure(tasks, selected_tasks) if _artifact(task) is not None]
        for task in involved:
            task.meta["listener"] = self.progress_of(task.name)
        self._tell(RunStarted(time=self._now(), tasks=tuple(selected_tasks), artifacts=len(involved)))

    def get_status(self, task: Any) -> None:
        """doit is about to check *task*."""

    def execute_task(self, task: Any) -> None:
        """*task* starts."""
        artifact = _artifact(task)
        if artifact is None:
            return
        reasons, expected = tuple(map(str, artifact.reasons())), artifact.expected_seconds()
        self._started[task.name] = now = self._now()
        self._tell(
            TaskStarted(time=now, task=task.name, reasons=reasons, expected_seconds=expected, log=artifact.log)
        )  # fmt: skip

    def add_success(self, task: Any) -> None:
        """*task* ended well."""
        artifact = _artifact(task)
        if artifact is None:
            return
        self.executed.append(task.name)
        now = self._now()
        size = sum(target.stat().st_size for target in artifact.targets)
        seconds = now - self._started.pop(task.name)
        self._tell(TaskDone(time=now, task=task.name, seconds=seconds, size=size, targets=artifact.targets))

    def add_failure(self, task: Any, fail: Any) -> None:
        """*task* failed, or what it needs did."""
        now, artifact = self._now(), _artifact(task)
        error = getattr(fail, "pvmlab_error", None)
        if error is None and fail.get_name() == "UnmetDependency":
            if artifact is not None:
                self._tell(TaskSkipped(time=now, task=task.name, why=f"needs {fail.message}"))
            return
        started = self._started.pop(task.name, None)
        log = artifact.log if artifact is not None and started is not None else None
        failure = failure_of(error or _unexpected(task, fail), task=task.name, log=log)
        self._failures.append(failure)
        seconds = now - started if started is not None else None
        self._tell(TaskFailed(time=now, task=task.name, failure=failure, seconds=seconds))

    def skip_uptodate(self, task: Any) -> None:
        """*task* is up to date."""
        if _artifact(task) is not None:
            self.up_to_date.append(task.name)
            self._tell(TaskUpToDate(time=self._now(), task=task.name))

    def skip_ignore(self, task: Any) -> None:
        """*task* is ignored by the user's wish (``doit ignore``), or needs one that is."""
        self._tell(TaskSkipped(time=self._now(), task=task.name, why="ignored by `doit ignore`"))

    def cleanup_error(self, exception: Any) -> None:
        """A teardown failed."""
        self._fail(PvmlabError("a teardown failed", details=exception.get_msg()))

    def runtime_error(self, msg: str) -> None:
        """doit itself failed."""
        self._fail(PvmlabError(msg))

    def teardown_task(self, task: Any) -> None:
        """*task*'s teardown starts: no task has one."""

    def complete_run(self) -> None:
        """Tell how the run ended. Called by doit in a ``finally``: an exception may be on its way."""
        ended_by = sys.exc_info()[1]
        if isinstance(ended_by, KeyboardInterrupt):
            self._finish(Outcome.INTERRUPTED)
        else:
            self._finish(Outcome.FAILED if self._failures or ended_by is not None else Outcome.DONE)

    def _finish(self, outcome: Outcome) -> None:
        """Tell the end, once."""
        if self._finished:
            return
        self._finished = True
        failures = tuple(self._failures) if self.tells_failures else ()
        built, up_to_date = tuple(self.executed), tuple(self.up_to_date)
        event = RunFinished(
            time=self._now(), outcome=outcome, built=built, up_to_date=up_to_date, failures=failures
        )  # fmt: skip
        self._tell(event)
        self._view.close()

    def _fail(self, error: PvmlabError) -> None:
        failure = failure_of(error)
        self._failures.append(failure)
        self._tell(RunFailed(time=self._now(), failure=failure))

    def _progressed(self, event: TaskProgressed) -> None:
        with self._lock:
            if event.task in self._started:  # a straggling thread may report after its task has ended
                self._view.tell(event)

    def _tell(self, event: Event) -> None:
        with self._lock:
            self._view.tell(event)

    def _now(self) -> float:
        return time.monotonic() - self._begun


class CommandLineReporter(Reporter):
    """For ``doit`` itself: also holds the cache for the run, and ends the run as people expect of a command.

    :ivar cache: set by the class that is made for a cache.
    """

    cache: Cache

    def __init__(self, outstream: IO[str], options: dict[str, Any]) -> None:
        try:
            self.output = wanted_output()
        except UsageError as error:
            sys.stderr.write(f"error: {error.brief}\n  what to do: {error.resolution}\n")
            sys.exit(error.exit_code)
        super().__init__(outstream, options)
        self._session = contextlib.ExitStack()
        self._interrupts = Interrupts()

    def initialize(self, tasks: Mapping[str, Any], selected_tasks: list[str]) -> None:
        """Take the cache; SIGTERM is from now on as gentle as Ctrl-C."""
        super().initialize(tasks, selected_tasks)
        try:
            session = build_session(self.cache, wait=lock_wait(), tell=self.note)
            self._interrupts = self._session.enter_context(session)
        except PvmlabError as error:
            self._refuse(error)
        except OSError as error:
            if not HostError.knows(error):
                raise
            self._refuse(HostError(error))

    def _refuse(self, error: PvmlabError) -> NoReturn:
        """End a run that cannot have the cache."""
        self._fail(error)
        self._finish(Outcome.FAILED)
        sys.exit(error.exit_code)

    def add_failure(self, task: Any, fail: Any) -> None:
        """*task* failed. If that is because it was interrupted, people know."""
        if not self._interrupts.seen:
            super().add_failure(task, fail)

    def complete_run(self) -> None:
        """Give the cache back. Called by doit in a ``finally``, so an interrupt is still on its way."""
        self._session.close()
        if self._interrupts.seen or isinstance(sys.exc_info()[1], KeyboardInterrupt):
            self._finish(Outcome.INTERRUPTED)
            sys.exit(ExitCode.INTERRUPTED)
        super().complete_run()
        if self.failures and sys.exc_info()[1] is None:
            sys.exit(self.failures[0].exit_code)  # doit's own codes do not tell failures apart


def _artifact(task: Any) -> Artifact | None:
    """Return the task's artifact; a group task has none."""
    return (task.meta or {}).get("artifact")


def _closure(tasks: Mapping[str, Any], selected: Iterable[str]) -> list[Any]:
    """Return the selected tasks and all they need, each once."""
    found: dict[str, Any] = {}
    waiting = list(selected)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = tasks[name]
            waiting += [*tasks[name].task_dep, *tasks[name].setup_tasks]
    return list(found.values())


def _unexpected(task: Any, fail: Any) -> PvmlabError:
    """Return an error for what is a fault of ours: an exception that no recipe should raise."""
    what = "".join(fail.traceback[-1:]).strip() or fail.message
    return PvmlabError(
        f"{task.name} failed: {what}",
        details="".join(fail.traceback).strip(),
        resolution="this is a fault of pvmlab, please report it",
    )
