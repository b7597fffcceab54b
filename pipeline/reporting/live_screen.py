"""A table at the bottom of a terminal and lines above it, drawn at their own pace. Imports rich: import it late."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import IO, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from pipeline.reporting.outlet import Outlet

_PAUSE = 0.2  # seconds between two drawings: one costs some milliseconds, and tasks may be shorter than that


class LiveScreen:
    """Takes the terminal until it is closed. Lines come with the next drawing, so telling costs a task nothing.

    rich's own thread would redraw the table for each line, and again five times a second.

    :param table: gives what to draw on a terminal of that width; called in a thread, must not wait for anybody.
    """

    def __init__(self, outlet: Outlet, table: Callable[[int], RenderableType]) -> None:
        self._console = console = Console(file=cast(IO[str], outlet), force_terminal=True)
        # warnings printed meanwhile go above the table; a stream that leads elsewhere is left alone
        self._live = Live(
            get_renderable=lambda: table(console.width), console=console, auto_refresh=False, transient=True,
            redirect_stdout=sys.stdout.isatty(), redirect_stderr=sys.stderr.isatty(),
        )  # fmt: skip
        self._lines: list[Text] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._painter = threading.Thread(target=self._paint, name="live screen", daemon=True)
        self._live.start()
        self._painter.start()

    def say(self, line: Text) -> None:
        """Put a line above the table."""
        with self._lock:
            self._lines.append(line)

    def close(self) -> None:
        """Put the last lines, wipe the table off and give the terminal back."""
        self._closing.set()
        self._painter.join()
        self._print_lines()
        self._live.stop()

    def _paint(self) -> None:
        while not self._closing.wait(_PAUSE):
            self._print_lines()
            self._live.refresh()

    def _print_lines(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            self._console.print(Text("\n").join(lines), soft_wrap=True)
