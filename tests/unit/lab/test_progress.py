from __future__ import annotations

import io

from lab.progress import PlainReporter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_timed_from_the_start() -> None:
    stream, clock = io.StringIO(), Clock()
    reporter = PlainReporter(stream, clock=clock)
    reporter.say("one")
    clock.now += 61.25
    reporter.say("two")
    assert stream.getvalue() == "[   0.0 s] one\n[  61.2 s] two\n"


def test_same_thing_is_told_once_and_percents_in_steps() -> None:
    stream = io.StringIO()
    reporter = PlainReporter(stream, clock=Clock())
    for percent in (10, 12, 29, 30, 55):
        reporter.show("web1: 5/7 system", percent)
    reporter.show("web1: boots")
    reporter.show("web1: boots")
    lines = [line.partition("] ")[2] for line in stream.getvalue().splitlines()]
    assert lines == ["web1: 5/7 system, 10 %", "web1: 5/7 system, 30 %", "web1: 5/7 system, 55 %", "web1: boots"]
