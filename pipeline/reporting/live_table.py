"""The table of running tasks on a terminal, as a pure function of what is known. Imports rich: import it late."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.reporting.events import TaskProgressed, TaskStarted
from pipeline.reporting.wording import amount, format_duration, rate, time_left, time_spent

Row = tuple[TaskStarted, TaskProgressed | None]

_ROOM_FOR_BAR, _ROOM_FOR_RATE = 90, 70  # columns of a terminal


def draw(rows: Collection[Row], counts: tuple[int, int], *, now: float, width: int) -> RenderableType:
    """Return a line for each running task and one for the run.

    :param counts: artifacts done, artifacts in all. :param now: seconds since the run began.
    :param width: of the terminal; what matters less is left out if it is narrow.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*_cells(row, now=now, width=width))
    done, total = counts
    summary = _text(f"{done} of {total} artifacts, {len(rows)} running, {format_duration(now)}", "dim")
    return Group(table, summary)


def _cells(row: Row, *, now: float, width: int) -> list[RenderableType]:
    started, progressed = row
    step = progressed.progress.step if progressed is not None else ""
    done = amount(progressed) if progressed is not None else ""
    speed = rate(progressed, now) if progressed is not None else ""
    left = time_left(progressed, now) if progressed is not None else ""
    return [
        _text(started.task, "bold"),
        _text(step),
        *([_bar(progressed, now, min(24, width // 6))] if width >= _ROOM_FOR_BAR else []),
        _text(done, "green"),
        *([_text(speed)] if width >= _ROOM_FOR_RATE else []),
        _text(left or time_spent(started, now), "cyan"),
    ]


def _bar(progressed: TaskProgressed | None, now: float, width: int) -> ProgressBar:
    progress = progressed.progress if progressed is not None else None
    if progress is None or not progress.total:
        return ProgressBar(total=None, width=width, animation_time=now)
    return ProgressBar(total=progress.total, completed=min(progress.done, progress.total), width=width)


def _text(text: str, style: str = "") -> Text:
    """Return a cell of one line: one that is too long is cut, not wrapped."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
