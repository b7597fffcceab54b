"""From a recipe's many words about its progress to few events."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.progress import Progress
from pipeline.reporting.events import TaskProgressed
from pipeline.reporting.pace import Pace

_APART = 0.1  # seconds between two events: recipes may report each chunk of a download


class TaskListener:
    """Takes a task's progress, in whatever thread; a :data:`pipeline.progress.ProgressListener`.

    Threads that report at once may cost each other an event or a sample of the pace, nothing else: so no lock.
    """

    def __init__(self, task: str, *, clock: Callable[[], float], tell: Callable[[TaskProgressed], None]) -> None:
        self._task = task
        self._clock = clock
        self._tell = tell
        self._last: TaskProgressed | None = None

    def __call__(self, progress: Progress) -> None:
        """Tell *progress* if it is a new step, the end of one, or some time after the last."""
        last, now = self._last, self._clock()
        if last is None or last.progress.step != progress.step:
            pace = Pace()
        elif now - last.time >= _APART or progress.done == progress.total != last.progress.done:
            pace = last.pace
        else:
            return
        event = TaskProgressed(time=now, task=self._task, progress=progress, pace=pace.advanced(now, progress.done))
        self._last = event
        self._tell(event)
