"""What the reporter is made of: the pace of a step, the sieve for progress, the writer, what is told of a failure."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from pipeline.errors import CommandError, PvmlabError
from pipeline.progress import Progress
from pipeline.reporting.events import TaskProgressed
from pipeline.reporting.failure import TAIL_LINES, failure_of, read_tail
from pipeline.reporting.listener import TaskListener
from pipeline.reporting.outlet import Outlet
from pipeline.reporting.pace import Pace


def pace_of(*samples: tuple[float, int]) -> Pace:
    pace = Pace()
    for now, done in samples:
        pace = pace.advanced(now, done)
    return pace


def test_a_steady_pace_tells_rate_and_time_left() -> None:
    pace = pace_of(*((second / 10, second * 10) for second in range(51)))
    assert pace.rate(5.0) == pytest.approx(100)
    assert pace.seconds_left(5.0, 1500) == pytest.approx(10)
    assert len(pace.samples) <= 12, "samples are thinned"


def test_no_figure_before_there_is_one_to_trust() -> None:
    assert Pace().rate(5.0) is None
    assert pace_of((0, 0), (0.4, 4000)).rate(0.4) is None
    assert Pace().seconds_left(5.0, 10) is None


def test_a_resumed_download_is_judged_by_what_it_adds() -> None:
    assert pace_of((0, 900), (2, 920)).seconds_left(2, 1000) == pytest.approx(8)


def test_the_rate_follows_the_last_seconds_and_falls_when_nothing_comes() -> None:
    pace = pace_of(*((float(second), second * 100) for second in range(30)))
    assert pace.rate(29.0) == pytest.approx(100)
    slower = pace
    for second in range(30, 60):
        slower = slower.advanced(float(second), 2900 + (second - 29) * 10)
    assert slower.rate(59.0) == pytest.approx(10)
    late = pace.rate(60.0)
    assert late is not None
    assert late < 40


def test_a_step_that_goes_back_starts_over() -> None:
    assert pace_of((0, 0), (5, 500), (6, 0)).samples == ((6, 0),)


def listen(*reports: tuple[float, Progress]) -> list[TaskProgressed]:
    times = iter([time for time, _ in reports])
    told: list[TaskProgressed] = []
    listener = TaskListener("toy:a", clock=lambda: next(times), tell=told.append)
    for _, progress in reports:
        listener(progress)
    return told


def test_of_many_reports_few_become_events() -> None:
    told = listen(*((number / 1024, Progress(step="fetching", done=number, total=2000)) for number in range(1025)))
    assert 9 <= len(told) <= 11


def test_a_new_step_and_the_end_of_one_are_always_told() -> None:
    told = listen(
        (0.00, Progress(step="fetching", done=0, total=10)),
        (0.01, Progress(step="fetching", done=10, total=10)),
        (0.02, Progress(step="fetching", done=10, total=10)),
        (0.03, Progress(step="unpacking")),
    )
    assert [(event.progress.step, event.progress.done) for event in told] == [
        ("fetching", 0), ("fetching", 10), ("unpacking", 0),
    ]  # fmt: skip
    assert told[-1].pace.samples == ((0.03, 0),)


def test_nobody_is_bothered_when_the_reader_has_gone() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    outlet = Outlet(stream)
    outlet.line("one")
    assert os.read(reading, 100) == b"one\n"
    os.close(reading)
    outlet.line("two")
    outlet.line("three")
    stream.close()  # what the interpreter does at its exit: nothing is stuck, nothing raised


def test_a_stream_that_cannot_be_written_is_given_up() -> None:
    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(28, "No space left on device")

    Outlet(Full()).line("one")


def test_what_the_encoding_lacks_becomes_an_escape() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Outlet(stream).line("größer")
    assert raw.getvalue() == rb"gr\xf6\xdfer" + b"\n"


def test_a_failed_command_is_told_by_its_parts_only(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    log.write_text("first\nlast\n")
    error = CommandError(["tar", "a b"], returncode=2, tail=["last"], log=log, how="failed with exit status 2")
    failure = failure_of(error, task="toy:a", log=log)
    assert (failure.command, failure.command_status, failure.tail) == ("tar 'a b'", 2, ("last",))
    assert failure.details == ""
    assert failure.repeat == "doit toy:a"


def test_another_failure_is_told_with_the_end_of_the_tasks_log(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    log.write_text("first\nlast\n")
    failure = failure_of(PvmlabError("no kernel", details="in the archive"), task="toy:a", log=log)
    assert (failure.details, failure.tail, failure.log) == ("in the archive", ("first", "last"), log)
    quoting = failure_of(PvmlabError("no kernel", details="it said: last"), task="toy:a", log=log)
    assert quoting.tail == (), "not twice"


@pytest.mark.parametrize("content", [None, ""])
def test_a_log_with_nothing_in_it_is_not_named(tmp_path: Path, content: str | None) -> None:
    log = tmp_path / "task.log"
    if content is not None:
        log.write_text(content)
    assert failure_of(PvmlabError("no kernel"), task="toy:a", log=log).log is None


def test_the_tail_of_a_long_log_has_whole_lines_only(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    log.write_text("".join(f"{number:>1000}\n" for number in range(100)))
    tail = read_tail(log)
    assert 0 < len(tail) <= TAIL_LINES
    assert all(len(line) == 1000 for line in tail)
    assert tail[-1].endswith(" 99")
