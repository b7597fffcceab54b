"""Plain timed lines, for pipes, logs and terminals that can do no more."""

from __future__ import annotations

from pipeline.reporting.events import Event, TaskProgressed, TaskStarted
from pipeline.reporting.outlet import Outlet
from pipeline.reporting.wording import said, said_progress

_APART = 10.0  # seconds between two lines about the same task, at least
_SILENCE = 60.0  # seconds after which a slow step is told even if little was done
_SHARE = 0.1  # of a step: what makes another line worth while


class PlainView:
    """One line for each event; long steps are told now and then."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._steps: dict[str, set[str]] = {}  # of each task, those that were told once
        self._told: dict[str, TaskProgressed] = {}  # of each task, what was told last

    def tell(self, event: Event) -> None:
        """Print what is worth a line."""
        if isinstance(event, TaskProgressed):
            if self._is_news(event):
                self._told[event.task] = event
                self._outlet.line(said_progress(event))
            return
        if isinstance(event, TaskStarted):
            self._steps[event.task] = set()
            self._told.pop(event.task, None)
        if text := said(event):
            self._outlet.line(text)

    def close(self) -> None:
        """Do nothing: nothing was taken."""

    def _is_news(self, event: TaskProgressed) -> bool:
        steps = self._steps[event.task]
        if event.progress.step not in steps:
            steps.add(event.progress.step)
            return True
        last = self._told[event.task]
        silence = event.time - last.time
        if silence >= _SILENCE or last.progress.step != event.progress.step:
            return silence >= _APART
        much = _SHARE * (event.progress.total or 0)
        return silence >= _APART and event.progress.done - last.progress.done >= much > 0
