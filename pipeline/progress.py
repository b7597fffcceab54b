"""How far a step of a task is, as data; the reporters draw it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_LOOK = 0.25  # seconds between two looks at a program that does not tell how far it is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """A step of a task, at one moment.

    :ivar step: what is being done, as a verb phrase: ``fetching packages``.
    :ivar done: how much is done. :ivar total: how much there is, None if nobody knows.
    :ivar unit: ``B`` for bytes, else a plural noun: ``packages``.
    """

    step: str
    done: int = 0
    total: int | None = None
    unit: str = "B"


ProgressListener = Callable[[Progress], None]
"""Takes progress as it is made, from any thread, as often as it likes; must be quick."""


def ignore_progress(_progress: Progress) -> None:
    """Take progress that nobody looks at."""


@contextlib.contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    """Call *look*, then now and then while the block runs, in a thread, and once more when it has ended well."""
    ended = threading.Event()

    def keep_looking() -> None:
        while not ended.wait(_LOOK):
            look()

    watcher = threading.Thread(target=keep_looking, name="progress", daemon=True)
    look()
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    look()


class LogCounter:
    """Counts the lines of a growing log that match, from its present end on."""

    def __init__(self, log: Path, line: re.Pattern[bytes]) -> None:
        self._log = log
        self._line = line
        self._offset = log.stat().st_size if log.exists() else 0
        self._count = 0

    def count(self) -> int:
        """Return how many matching lines there are by now; one that is not ended yet counts next time."""
        if self._log.exists():
            with self._log.open("rb") as stream:
                stream.seek(self._offset)
                whole, newline, _ = stream.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            self._count += sum(1 for line in whole.split(b"\n") if self._line.match(line))
        return self._count
