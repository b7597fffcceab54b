"""Telling people what goes on, on standard error: live on a terminal, as plain timed lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # 0.1 s that only a terminal pays
    from rich.progress import Progress, TaskID

_STEP = 20  # percent between two plain lines about the same thing


class Reporter(Protocol):
    """Takes what there is to tell."""

    def say(self, text: str) -> None:
        """Tell what has happened; it stays on the screen."""

    def show(self, text: str, percent: int | None = None) -> None:
        """Tell what goes on now; the next word replaces it."""


class Sink(Protocol):
    """Takes text: a stream, or what stands before one."""

    def write(self, text: str, /) -> int:
        """Take *text*."""

    def flush(self) -> None:
        """Pass on what was taken."""


class PlainReporter:
    """One line for each thing told, with the seconds since the start; percents only now and then."""

    def __init__(
        self, stream: Sink, *, clock: Callable[[], float] = time.monotonic, start: float | None = None
    ) -> None:  # fmt: skip
        self._stream = stream
        self._clock = clock
        self._start = clock() if start is None else start
        self._shown = ("", -_STEP)

    def say(self, text: str) -> None:
        """Print a line."""
        self._stream.write(f"[{self._clock() - self._start:6.1f} s] {text}\n")
        self._stream.flush()

    def show(self, text: str, percent: int | None = None) -> None:
        """Print a line if it tells much more than the last one did."""
        last_text, last_percent = self._shown
        if text == last_text and (percent is None or percent < last_percent + _STEP):
            return
        self._shown = (text, percent or 0)
        self.say(text if percent is None else f"{text}, {percent} %")


class LiveReporter:
    """One moving line at the bottom of a terminal, what happened above it. Close it at the end."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._live: tuple[Progress, TaskID, str] | None = None

    def say(self, text: str) -> None:
        """Print a line above the moving one."""
        line = f"[{time.monotonic() - self._start:6.1f} s] {text}"
        if self._live is None:
            sys.stderr.write(f"{line}\n")
        else:
            self._live[0].console.print(line, markup=False, highlight=False)

    def show(self, text: str, percent: int | None = None) -> None:
        """Change the moving line."""
        description = text if percent is None else f"{text}, {percent} %"
        progress, task, shown = self._live or (open_progress(), None, "")
        if task is None or text != shown:  # a new task: rich cannot take a task's total away again
            if task is not None:
                progress.remove_task(task)
            task = progress.add_task(description, total=None if percent is None else 100)
        progress.update(task, description=description, completed=percent or 0)
        self._live = progress, task, text

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live[0].stop()
            self._live = None


@contextlib.contextmanager
def open_reporter() -> Iterator[Reporter]:
    """Yield the reporter that fits standard error."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield PlainReporter(sys.stderr)
        return
    with contextlib.closing(LiveReporter()) as reporter:
        yield reporter


def open_progress() -> Progress:
    """Return a started display of moving lines on standard error; whoever asks for it stops it."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.start()
    return progress
