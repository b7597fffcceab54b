"""How long a download waits, and how often it asks again."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable

from pipeline.run import is_ending

_LOOK = 0.25  # seconds between two looks whether we are still wanted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """Limits in time. The defaults are for mirrors on the internet.

    :ivar connect: seconds to wait for a connection. :ivar read: seconds to wait for the next bytes.
    :ivar floor: bytes a second; who stays below it over *window* seconds, waiting for an answer included, is given up.
    :ivar tries: requests in a row that bring less than *worth* bytes that can be kept, until a mirror is given up.
    :ivar most: requests to one mirror, whatever they bring.
    :ivar pause: seconds before the second try; doubled before each further one, up to *longest*, give or take a half.
    :ivar longest: seconds that are waited at most, also if a mirror asks for more.
    """

    connect: float = 10.0
    read: float = 30.0
    floor: float = 1000.0
    window: float = 60.0
    tries: int = 5
    worth: int = 1 << 20
    most: int = 100
    pause: float = 1.0
    longest: float = 60.0
    is_stopping: Callable[[], bool] = is_ending

    def delay(self, failures: int, asked: float | None) -> float:
        """Return the seconds to wait after so many failures in a row.

        :param asked: what the mirror asks for.
        """
        if asked is not None:
            return min(asked, self.longest)
        jitter = random.uniform(0.5, 1.5)  # noqa: S311 (so that many do not come back at once)
        return min(self.pause * 2.0 ** (failures - 1), self.longest) * jitter

    def sleep(self, seconds: float) -> bool:
        """Wait; return whether we are still wanted."""
        end = time.monotonic() + seconds
        while not self.is_stopping():
            left = end - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, _LOOK))
        return False
