"""What the boot handler counts, as text for Prometheus (its exposition format, version 0.0.4).

Written by hand: a few counters, gauges and a histogram, for which a library would cost the container's start more
than they do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds


class Metrics:
    """Counts requests."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0
        self.denied = 0

    def count(self, route: str, status: int, seconds: float) -> None:
        """Take note of an answered request. :param route: its pattern, never its path: that may hold a token."""
        self._requests[route, status] += 1
        self._seconds += seconds
        self._buckets[next((bound for bound in BUCKETS if seconds <= bound), float("inf"))] += 1
        self.denied += status == 403

    def render(self, gauges: Mapping[str, tuple[str, float]], states: Mapping[str, int]) -> str:
        """Return everything as text.

        :param gauges: by name without ``pvmlab_``, what it is and the value; a name that ends in ``_total`` is a
            counter's. :param states: how many machines are in which state.
        """
        lines = _family("http_requests_total", "counter", "Requests answered, by route and status.", (
            (f'{{route="{_escape(route)}",status="{status}"}}', count)
            for (route, status), count in sorted(self._requests.items())
        ))  # fmt: skip
        lines += self._histogram()
        lines += _family("denied_total", "counter", "Requests for what is another machine's.", [("", self.denied)])
        lines += _family("machines", "gauge", "Machines by install state.", (
            (f'{{state="{_escape(state)}"}}', count) for state, count in sorted(states.items())
        ))  # fmt: skip
        for name, (about, value) in sorted(gauges.items()):
            lines += _family(name, "counter" if name.endswith("_total") else "gauge", about, [("", value)])
        return "".join(f"{line}\n" for line in lines)

    def _histogram(self) -> list[str]:
        name = "http_request_seconds"
        total = 0
        samples: list[tuple[str, float]] = []
        for bound in (*BUCKETS, float("inf")):
            total += self._buckets[bound]
            samples.append((f'_bucket{{le="{_number(bound)}"}}', total))
        samples += [("_sum", self._seconds), ("_count", total)]
        return _family(name, "histogram", "Seconds from a request's head to its answer's.", samples)


def _family(name: str, kind: str, about: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    full = f"pvmlab_{name}"
    values = [f"{full}{labels} {_number(value)}" for labels, value in samples]
    return [f"# HELP {full} {about}", f"# TYPE {full} {kind}", *values]


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else f"{value:.10g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
