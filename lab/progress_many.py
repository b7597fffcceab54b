"""Telling people how several machines come along at once: a moving line for each on a terminal, else plain lines."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Protocol

from lab.progress import PlainReporter, Reporter, open_progress

if TYPE_CHECKING:  # 0.1 s that only a terminal pays
    from rich.progress import Progress, TaskID


class Board(Protocol):
    """Where each machine has a line of its own."""

    def reporter(self, name: str) -> Reporter:
        """Return who tells of the machine *name*; any thread may use it."""

    def done(self, name: str) -> None:
        """Take the line of *name* away: nothing more is told of it."""


class PlainBoard:
    """Plain lines, all with the seconds since one start."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = _Locked(stream)
        self._start = time.monotonic()

    def reporter(self, name: str) -> Reporter:  # noqa: ARG002 (what is told begins with it)
        """Return who tells of the machine *name*."""
        return PlainReporter(self._stream, start=self._start)

    def done(self, name: str) -> None:
        """Do nothing: what was told stays."""


class LiveBoard:
    """A moving line for each machine at the bottom of a terminal. Close it at the end."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._progress: Progress | None = None  # opened late: what builds artifacts writes to the same terminal
        self._tasks: dict[str, TaskID] = {}
        self._closed = False
        self._lock = threading.Lock()

    def reporter(self, name: str) -> Reporter:
        """Return who tells of the machine *name*."""
        return _LiveLine(self, name)

    def done(self, name: str) -> None:
        """Take the line of *name* away."""
        with self._lock:
            task = self._tasks.pop(name, None)
            if task is not None and self._progress is not None:
                self._progress.remove_task(task)

    def close(self) -> None:
        """Give the terminal back, for good: a machine that was interrupted may still tell something."""
        with self._lock:
            self._closed = True
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def say(self, text: str) -> None:
        """Print a line above the moving ones."""
        line = f"[{time.monotonic() - self._start:6.1f} s] {text}"
        with self._lock:
            if self._progress is None:
                sys.stderr.write(f"{line}\n")
            else:
                self._progress.console.print(line, markup=False, highlight=False)

    def show(self, name: str, text: str, percent: int | None) -> None:
        """Change the moving line of *name*."""
        description = text if percent is None else f"{text}, {percent} %"
        with self._lock:
            if self._closed:
                return
            if self._progress is None:
                self._progress = open_progress()
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(description, total=None)
            task = self._tasks[name]
            self._progress.update(
                task, description=description, total=None if percent is None else 100, completed=percent or 0
            )


class _LiveLine:
    def __init__(self, board: LiveBoard, name: str) -> None:
        self._board, self._name = board, name

    def say(self, text: str) -> None:
        self._board.say(text)

    def show(self, text: str, percent: int | None = None) -> None:
        self._board.show(self._name, text, percent)


class _Locked:
    """A stream whose lines do not mix."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


@contextlib.contextmanager
def open_board() -> Iterator[Board]:
    """Yield the board that fits standard error."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield PlainBoard(sys.stderr)
        return
    with contextlib.closing(LiveBoard()) as board:
        yield board
