"""One JSON object per event and line (NDJSON), for programs; docs/reference/build-events.md describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.reporting.events import (
    Event,
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
from pipeline.reporting.failure import Failure
from pipeline.reporting.outlet import Outlet

SCHEMA = 1  # goes up when a reader would have to change; new keys and events do not count
_APART = 1.0  # seconds between two objects about the same step

# What an event is called, and which of its attributes are told under their own names.
_DESCRIBED: dict[type[Event], tuple[str, tuple[str, ...]]] = {
    RunStarted: ("run_started", ("tasks", "artifacts")),
    RunNoted: ("run_noted", ("text",)),
    RunFailed: ("run_failed", ("failure",)),
    RunFinished: ("run_finished", ("outcome", "built", "up_to_date")),
    TaskStarted: ("task_started", ("task", "reasons", "expected_seconds", "log")),
    TaskProgressed: ("task_progressed", ("task",)),
    TaskDone: ("task_done", ("task", "seconds", "size", "targets")),
    TaskFailed: ("task_failed", ("task", "seconds", "failure")),
    TaskUpToDate: ("task_up_to_date", ("task",)),
    TaskSkipped: ("task_skipped", ("task", "why")),
}


class JsonView:
    """NDJSON, each object in one write."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._told: dict[str, TaskProgressed] = {}  # of each task, what was told last

    def tell(self, event: Event) -> None:
        """Print one object."""
        if isinstance(event, TaskProgressed):
            if not self._is_news(event):
                return
            self._told[event.task] = event
        name, keys = _DESCRIBED[type(event)]
        document = {"event": name, "time": round(event.time, 3)} | {key: _plain(getattr(event, key)) for key in keys}
        if isinstance(event, RunStarted):
            document["schema"] = SCHEMA
        if isinstance(event, TaskProgressed):
            document |= _progress(event)
        self._outlet.line(json.dumps(document))

    def close(self) -> None:
        """Do nothing: nothing was taken."""

    def _is_news(self, event: TaskProgressed) -> bool:
        last = self._told.get(event.task)
        if last is None or last.progress.step != event.progress.step or event.time - last.time >= _APART:
            return True
        return event.progress.done == event.progress.total != last.progress.done


def _progress(event: TaskProgressed) -> dict[str, Any]:
    progress = event.progress
    left = event.pace.seconds_left(event.time, progress.total) if progress.total is not None else None
    return {
        "step": progress.step, "done": progress.done, "total": progress.total, "unit": progress.unit,
        "rate": _plain(event.pace.rate(event.time)), "seconds_left": _plain(left),
    }  # fmt: skip


def _failure(failure: Failure) -> dict[str, Any]:
    error = failure.error
    return {
        "brief": error.brief, "details": failure.details, "resolution": error.resolution,
        "exit_code": int(error.exit_code), "command": failure.command, "command_status": failure.command_status,
        "tail": failure.tail, "log": _plain(failure.log), "repeat": failure.repeat,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """Return *value* as what JSON has."""
    match value:
        case Failure():
            return _failure(value)
        case Path():
            return str(value)
        case float():
            return round(value, 1)
        case tuple():
            return [_plain(item) for item in value]
    return value
