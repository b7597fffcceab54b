"""A terminal: what runs, live at its bottom; what has happened, as plain lines above it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.reporting.events import (
    Event,
    RunFinished,
    RunStarted,
    TaskDone,
    TaskFailed,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    TaskUpToDate,
)
from pipeline.reporting.outlet import Outlet
from pipeline.reporting.wording import said

if TYPE_CHECKING:  # 0.1 s that only a run that builds on a terminal pays
    from rich.console import RenderableType

    from pipeline.reporting.live_screen import LiveScreen
    from pipeline.reporting.live_table import Row

_STYLES: dict[type[Event], str] = {TaskDone: "green", TaskFailed: "bold red", TaskSkipped: "yellow"}


class LiveView:
    """A table of the running tasks, from the first that runs to the end of the run, and gone without a trace then.

    The table is drawn in a thread of its own, which reads ``_rows`` and ``_counts``: they are replaced, never changed.
    """

    def __init__(self, outlet: Outlet, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._outlet = outlet
        self._clock = clock
        self._zero = clock()
        self._rows: dict[str, Row] = {}
        self._counts = (0, 0)  # artifacts done, artifacts in all
        self._screen: LiveScreen | None = None

    def tell(self, event: Event) -> None:
        """Print a line for what has happened, change the table for what goes on."""
        self._zero = self._clock() - event.time
        match event:
            case RunStarted():
                self._counts = (0, event.artifacts)
            case TaskStarted():
                self._rows = {**self._rows, event.task: (event, None)}
                self._open()
            case TaskProgressed() if event.task in self._rows:
                self._rows = {**self._rows, event.task: (self._rows[event.task][0], event)}
            case TaskDone() | TaskFailed():
                self._rows = {task: row for task, row in self._rows.items() if task != event.task}
            case RunFinished():
                self.close()
        if isinstance(event, TaskDone | TaskUpToDate):
            self._counts = (self._counts[0] + 1, self._counts[1])
        self._print(event)

    def close(self) -> None:
        """Wipe the table off."""
        if self._screen is not None:
            self._screen.close()
            self._screen = None

    def table(self, width: int) -> RenderableType:
        """Return what to draw now on a terminal of *width* columns."""
        from pipeline.reporting.live_table import draw  # noqa: PLC0415

        return draw(self._rows.values(), self._counts, now=self._clock() - self._zero, width=width)

    def _open(self) -> None:
        from pipeline.reporting.live_screen import LiveScreen  # noqa: PLC0415

        if self._screen is None:
            self._screen = LiveScreen(self._outlet, self.table)

    def _print(self, event: Event) -> None:
        text = said(event)
        if not text:
            return
        if self._screen is None:
            self._outlet.line(text)
            return
        from rich.text import Text  # noqa: PLC0415

        line = Text(text)
        if style := _STYLES.get(type(event)):
            stamp = text.index("]") + 2
            line.stylize(style, stamp, text.index(" ", stamp))
        self._screen.say(line)
