"""How far a step of a task is, as data; the reporters draw it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


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
