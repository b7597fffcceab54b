"""Waiting: every wait has a name, an end, and says what it last saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import WaitTimeoutError

T = TypeVar("T")


class Deadline:
    """A moment on the monotonic clock.

    :ivar seconds: how long after its making it is.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds until it, never negative."""
        return max(self._end - self._clock(), 0.0)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self.left == 0

    def sooner(self, seconds: float) -> Deadline:
        """Return the deadline in *seconds* from now, or this one's moment if that comes first."""
        return Deadline(min(seconds, self.left), clock=self._clock)


def wait_for(
    what: str,
    probe: Callable[[], T | None],
    *,
    deadline: Deadline,
    interval: float = 0.1,
    last_seen: Callable[[], str] = lambda: "",
    resolution: str = "",
) -> T:
    """Return the first result of *probe* that is not None.

    *probe* ends the wait early by raising. It is asked at least once, also after the deadline.

    :param what: completes "waited for". :param interval: seconds between two probes.
    :param last_seen: asked at the end, what there was to see instead.
    :raises WaitTimeoutError: if the deadline passes.
    """
    while (result := probe()) is None:
        if deadline.passed:
            raise WaitTimeoutError(
                f"waited {deadline.seconds:.0f} s in vain for {what}", details=last_seen(), resolution=resolution
            )
        time.sleep(min(interval, max(deadline.left, 0.001)))
    return result
