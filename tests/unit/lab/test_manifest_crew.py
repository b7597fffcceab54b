"""Many at once: the order, the cap, failures, interrupts; the work is a few lines of Python here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NoReturn

import pytest

from lab.bringup import Milestone
from lab.manifest_crew import Crew, InterruptedWorkError, State
from lab.manifest_machines import Dependency
from pipeline.errors import PvmlabError

Reached = Callable[[Milestone], None]
GoOn = Callable[[], None]


def after(**conditions: str) -> list[Dependency]:
    return [Dependency(name=name, condition=Milestone(text)) for name, text in conditions.items()]


class Log:
    """What happened, in its order, and how many were at work at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.most = 0
        self._lock, self._now = threading.Lock(), 0

    def work(self, name: str, reached: Reached, go_on: GoOn) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.lines.append(f"{name} begins")
        for milestone in Milestone:
            go_on()
            if name == "bad" and milestone is Milestone.SSH:
                with self._lock:
                    self._now -= 1
                raise PvmlabError("no SSH")
            reached(milestone)
            time.sleep(0.01)
        with self._lock:
            self._now -= 1
            self.lines.append(f"{name} ends")


def test_each_begins_when_what_it_waits_for_is_so() -> None:
    log = Log()
    waits = {"c": after(b="cloud-init"), "b": after(a="cloud-init"), "a": []}
    outcomes = Crew(waits, log.work, jobs=9).run()
    assert [outcome.state for outcome in outcomes.values()] == [State.UP] * 3
    assert list(outcomes) == ["c", "b", "a"]
    assert [line for line in log.lines if "begins" in line] == ["a begins", "b begins", "c begins"]


def test_one_may_begin_while_the_other_is_still_on_its_way() -> None:
    began = threading.Event()

    def work(name: str, reached: Reached, _go_on: GoOn) -> None:
        reached(Milestone.STARTED)
        if name == "a":
            assert began.wait(10), "b has to begin while a works"
        began.set()

    outcomes = Crew({"a": [], "b": after(a="started")}, work, jobs=2).run()
    assert {outcome.state for outcome in outcomes.values()} == {State.UP}


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_no_more_than_the_cap_are_at_work(jobs: int) -> None:
    log = Log()
    Crew({f"m{number}": [] for number in range(7)}, log.work, jobs=jobs).run()
    assert log.most == jobs


def test_a_failure_holds_up_only_those_that_wait_for_what_was_not_reached() -> None:
    log, skipped = Log(), dict[str, str]()
    waits = {
        "bad": [], "needs-start": after(bad="installed"), "needs-ssh": after(bad="ssh"), "alone": [],
        "second": after(**{"needs-ssh": "started"}),
    }  # fmt: skip
    outcomes = Crew(waits, log.work, jobs=2, skipped=skipped.__setitem__).run()
    assert {name: outcome.state.value for name, outcome in outcomes.items()} == {
        "bad": "failed", "needs-start": "up", "needs-ssh": "skipped", "alone": "up", "second": "skipped",
    }  # fmt: skip
    assert isinstance(outcomes["bad"].error, PvmlabError)
    assert skipped == {
        "needs-ssh": "it waits for bad (ssh), which failed",
        "second": "it waits for needs-ssh (started), which was skipped",
    }
    assert "needs-ssh begins" not in log.lines


def test_a_fault_of_ours_is_this_machines_failure() -> None:
    def work(name: str, _reached: Reached, _go_on: GoOn) -> NoReturn:
        raise ZeroDivisionError(name)

    (outcome,) = Crew({"a": []}, work, jobs=1).run().values()
    assert (outcome.state, str(outcome.error), outcome.why) == (State.FAILED, "a", "a")


def test_an_interrupt_ends_all_work_before_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    working = threading.Barrier(3, timeout=10)

    def work(name: str, _reached: Reached, go_on: GoOn) -> None:
        working.wait()
        try:
            while True:
                go_on()
                time.sleep(0.01)
        except InterruptedWorkError:
            ended.append(name)
            raise

    crew = Crew({"a": [], "b": [], "c": after(a="ssh")}, work, jobs=2)
    listen = crew._listen

    def interrupted() -> None:
        listen()
        working.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(crew, "_listen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        crew.run()
    assert sorted(ended) == ["a", "b"]


def test_one_that_does_not_come_to_its_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.manifest_crew._JOIN", 0.05)
    release = threading.Event()

    def work(*_: object) -> None:
        release.wait(10)

    crew = Crew({"a": []}, work, jobs=1)

    def interrupt() -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(crew, "_listen", interrupt)
    with pytest.raises(KeyboardInterrupt):
        crew.run()
    release.set()


def test_who_comes_to_an_end_without_what_is_waited_for_holds_nobody_up_for_ever() -> None:
    def work(_name: str, reached: Reached, _go_on: GoOn) -> None:
        reached(Milestone.STARTED)  # and no more: it is up without

    outcomes = Crew({"a": [], "b": after(a="ssh"), "c": after(a="started")}, work, jobs=2).run()
    assert [outcome.state for outcome in outcomes.values()] == [State.UP, State.SKIPPED, State.UP]
    assert outcomes["b"].why == "it waits for a (ssh), which never comes to that"
