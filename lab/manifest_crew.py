"""Many machines on their way at once, under a cap; each begins when what it waits for is so.

Who fails holds up nobody but those that wait for what it did not reach; they are told as skipped. Knows nothing of
machines: the work is a function.
"""

from __future__ import annotations

import dataclasses
import enum
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from lab.bringup import Milestone
from lab.manifest_machines import Dependency

_LOOK = 0.2  # seconds: a Ctrl-C is seen within them
_JOIN = 30.0  # seconds for all that were interrupted: whatever they wait for asks twice a second whether to go on


class State(enum.StrEnum):
    """What became of a machine."""

    UP = "up"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a machine. :ivar why: not up. :ivar error: it failed with. :ivar seconds: it took."""

    state: State
    why: str = ""
    error: Exception | None = None
    seconds: float = 0.0


class InterruptedWorkError(Exception):
    """Somebody wants everything to stop."""


Work = Callable[[str, Callable[[Milestone], None], Callable[[], None]], None]
"""Brings the machine of this name up: tells each milestone, and calls the last argument often, which may raise."""


class Crew:
    """Works on many machines.

    :param waits: what each waits for; the order is that in which they begin, if there is a choice.
    :param jobs: how many may be on their way at once. :param skipped: is told who is left out, and why.
    """

    def __init__(
        self, waits: Mapping[str, Sequence[Dependency]], work: Work, *, jobs: int,
        skipped: Callable[[str, str], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._waits, self._work, self._jobs, self._skipped = waits, work, jobs, skipped
        self._reached: dict[str, int] = {}  # ranks
        self._outcomes: dict[str, Outcome] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._told: queue.SimpleQueue[tuple[str, Milestone | Outcome]] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def run(self) -> dict[str, Outcome]:
        """Return what became of each, when all have come to an end.

        Whatever is raised meanwhile, such as by Ctrl-C, ends all work first.
        """
        pending = list(self._waits)
        try:
            while pending or self._threads:
                pending = self._begin(pending)
                self._listen()
        except BaseException:
            self._stop()
            raise
        return {name: self._outcomes[name] for name in self._waits}

    def _begin(self, pending: Sequence[str]) -> list[str]:
        """Begin what can begin now; return what cannot."""
        left = []
        for name in pending:
            if why := self._never(name):
                self._outcomes[name] = Outcome(state=State.SKIPPED, why=why)
                self._skipped(name, why)
            elif len(self._threads) < self._jobs and self._may_begin(name):
                # a daemon: the end of this process must not hang on one that does not come to its end
                thread = threading.Thread(target=self._labour, args=(name,), name=f"up {name}", daemon=True)
                self._threads[name] = thread
                thread.start()
            else:
                left.append(name)
        return left

    def _may_begin(self, name: str) -> bool:
        return all(self._has_reached(one) for one in self._waits[name])

    def _has_reached(self, dependency: Dependency) -> bool:
        return self._reached.get(dependency.name, -1) >= dependency.condition.rank

    def _never(self, name: str) -> str:
        """Return why what *name* waits for will not come any more, or nothing if it may."""
        for one in self._waits[name]:
            outcome = self._outcomes.get(one.name)
            if outcome is not None and not self._has_reached(one):
                return f"it waits for {one.name} ({one.condition}), which {_AS[outcome.state]}"
        return ""

    def _labour(self, name: str) -> None:
        begun = time.monotonic()

        def reached(milestone: Milestone) -> None:
            self._told.put((name, milestone))

        try:
            self._work(name, reached, self._go_on)
            outcome = Outcome(state=State.UP, seconds=time.monotonic() - begun)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is this machine's, and told at the end)
            why = str(error) or type(error).__name__
            outcome = Outcome(state=State.FAILED, why=why, error=error, seconds=time.monotonic() - begun)
        self._told.put((name, outcome))

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise InterruptedWorkError

    def _listen(self) -> None:
        """Wait a moment for news, and take in all there are."""
        try:
            news = self._told.get(timeout=_LOOK)
        except queue.Empty:
            return
        while True:
            name, told = news
            if isinstance(told, Milestone):
                self._reached[name] = max(self._reached.get(name, -1), told.rank)
            else:
                self._outcomes[name] = told
                self._threads.pop(name).join()
            try:
                news = self._told.get_nowait()
            except queue.Empty:
                return

    def _stop(self) -> None:
        self._stopping.set()
        end = time.monotonic() + _JOIN
        for thread in self._threads.values():
            thread.join(timeout=max(0.0, end - time.monotonic()))


_AS = {State.FAILED: "failed", State.SKIPPED: "was skipped", State.UP: "never comes to that"}
