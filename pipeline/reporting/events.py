"""What happens in a run, as data. The reporter makes events; a view tells them to people or programs."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Protocol

from pipeline.progress import Progress
from pipeline.reporting.failure import Failure
from pipeline.reporting.pace import Pace


class Outcome(enum.StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened.

    :ivar time: when, in seconds since the run began.
    """

    time: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The run begins.

    :ivar tasks: what was asked for. :ivar artifacts: how many artifacts that involves, built or not.
    """

    tasks: tuple[str, ...]
    artifacts: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskStarted(Event):
    """A recipe starts.

    :ivar reasons: why; none if it was asked for (``doit --always-execute``).
    :ivar expected_seconds: how long it took last time on this host, None if it is the first time.
    """

    task: str
    reasons: tuple[str, ...] = ()
    expected_seconds: float | None = None
    log: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskProgressed(Event):
    """A recipe told how far it is."""

    task: str
    progress: Progress
    pace: Pace


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskDone(Event):
    """A recipe ended well; its files are in place.

    :ivar size: of all *targets* together.
    """

    task: str
    seconds: float
    size: int
    targets: tuple[Path, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskFailed(Event):
    """A task failed.

    :ivar seconds: since its start, None if it failed before.
    """

    task: str
    failure: Failure
    seconds: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskUpToDate(Event):
    """A task has nothing to do."""

    task: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSkipped(Event):
    """A task was not even tried. :ivar why: in words."""

    task: str
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunNoted(Event):
    """Something about the run that people should know now: whom it waits for, say."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFailed(Event):
    """Something failed that is no task's recipe."""

    failure: Failure


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run is over.

    :ivar failures: to be told now, at the end, where they are seen; none if whoever asked for the run tells them.
    """

    outcome: Outcome
    built: tuple[str, ...]
    up_to_date: tuple[str, ...]
    failures: tuple[Failure, ...] = ()


class View(Protocol):
    """Tells events. The reporter calls it from one thread at a time."""

    def tell(self, event: Event) -> None:
        """Tell one event."""

    def close(self) -> None:
        """Give the terminal back, if it was taken."""
