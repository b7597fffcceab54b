from __future__ import annotations

import pytest

from lab.wait import Deadline, wait_for
from pipeline.errors import WaitTimeoutError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("lab.wait.time.sleep", clock.sleep)
    return clock


def test_deadline_passes(clock: Clock) -> None:
    deadline = Deadline(5, clock=clock)
    assert (deadline.left, deadline.passed) == (5, False)
    clock.now += 5
    assert (deadline.left, deadline.passed) == (0, True)


def test_sooner_never_goes_beyond(clock: Clock) -> None:
    deadline = Deadline(5, clock=clock)
    assert deadline.sooner(2).left == 2
    assert deadline.sooner(9).left == 5


def test_result_ends_the_wait(clock: Clock) -> None:
    results = iter([None, None, "there"])
    assert wait_for("it", lambda: next(results), deadline=Deadline(5, clock=clock)) == "there"
    assert clock.now == pytest.approx(100.2)


def test_false_and_zero_are_results(clock: Clock) -> None:
    assert wait_for("it", lambda: 0, deadline=Deadline(5, clock=clock)) == 0


def test_timeout_says_what_was_waited_for_and_what_was_seen(clock: Clock) -> None:
    with pytest.raises(WaitTimeoutError, match=r"waited 5 s in vain for rain") as caught:
        wait_for("rain", lambda: None, deadline=Deadline(5, clock=clock), last_seen=lambda: "sun", resolution="dance")
    assert (caught.value.details, caught.value.resolution) == ("sun", "dance")
    assert clock.now == pytest.approx(105, abs=0.01)


def test_probe_can_end_the_wait_early(clock: Clock) -> None:
    def probe() -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        wait_for("it", probe, deadline=Deadline(5, clock=clock))


def test_probe_is_asked_after_the_deadline_too(clock: Clock) -> None:
    assert wait_for("it", lambda: "there", deadline=Deadline(0, clock=clock)) == "there"
