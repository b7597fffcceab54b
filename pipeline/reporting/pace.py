"""How fast a step goes, and so how long it still takes."""

from __future__ import annotations

import dataclasses

_WINDOW = 15.0  # seconds looked back: a pause shows soon, one slow moment does not shake the figure
_SPACING = 0.5  # seconds between two samples that are kept
_MINIMUM = 1.0  # seconds before the first figure: earlier ones are wild


@dataclasses.dataclass(frozen=True)
class Pace:
    """Where a step stood at some moments of the last seconds. Immutable, so that threads may share it.

    :ivar samples: pairs of seconds and amount done, oldest first; none before the first report.
    """

    samples: tuple[tuple[float, int], ...] = ()

    def advanced(self, now: float, done: int) -> Pace:
        """Return the pace with one more sample; a step that went back (a download begun anew) starts over."""
        if not self.samples or done < self.samples[-1][1]:
            return Pace(((now, done),))
        kept = self.samples
        if len(kept) > 2 and kept[-1][0] - kept[-2][0] < _SPACING:
            kept = kept[:-1]
        # one sample older than the window stays, it is where the window begins
        first = max((index for index, (time, _) in enumerate(kept) if time <= now - _WINDOW), default=0)
        return Pace((*kept[first:], (now, done)))

    def rate(self, now: float) -> float | None:
        """Return how much is done per second, None if it is too early to say. It falls while nothing is reported."""
        if not self.samples or now - self.samples[0][0] < _MINIMUM:
            return None
        (start, before), (_, done) = self.samples[0], self.samples[-1]
        return (done - before) / (now - start)

    def seconds_left(self, now: float, total: int) -> float | None:
        """Return how long the step will still take, None if nobody can say."""
        rate = self.rate(now)
        return max(0, total - self.samples[-1][1]) / rate if rate else None
