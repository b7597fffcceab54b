"""Events as people and programs see them: the words, the plain lines, the NDJSON, the table on a terminal."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from pipeline.errors import ChecksumError, CommandError, UsageError
from pipeline.progress import Progress
from pipeline.reporting.events import (
    Event,
    Outcome,
    RunFailed,
    RunFinished,
    RunNoted,
    RunStarted,
    TaskDone,
    TaskFailed,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    TaskUpToDate,
    View,
)
from pipeline.reporting.failure import Failure, failure_of
from pipeline.reporting.json_view import JsonView
from pipeline.reporting.live_table import draw
from pipeline.reporting.live_view import LiveView
from pipeline.reporting.outlet import Outlet
from pipeline.reporting.pace import Pace
from pipeline.reporting.plain_view import PlainView
from pipeline.reporting.views import open_view, wanted_output
from pipeline.reporting.wording import format_duration, format_size, printable, said_progress
from pipeline.workspace import REPOSITORY

MIB = 1024**2
LOG = Path("/cache/logs/rootfs.debian-12.x86_64.log")
FAILED_COMMAND = CommandError(
    ["mmdebstrap", "--variant=minbase", "bookworm", "a name"], returncode=25, log=LOG,
    tail=["I: running apt-get update...", "\x1b[31mE:\x1b[0m Temporary failure\rE: the archive is not there"],
    how="failed with exit status 25",
)  # fmt: skip
DAMAGED = ChecksumError("vmlinuz is damaged", details="expected aa\nfound bb", resolution="remove it, build again")


class Terminal(io.StringIO):
    """A stream with people in front of it."""

    def isatty(self) -> bool:
        return True


def failures() -> tuple[Failure, ...]:
    return (
        failure_of(FAILED_COMMAND, task="rootfs:debian-12:x86_64"),
        failure_of(DAMAGED, task="kernel:debian-12:x86_64"),
    )


def a_run() -> Iterable[Event]:
    """Return every kind of event."""
    first, second = failures()
    yield RunStarted(time=0.0, tasks=("rootfs",), artifacts=5)
    yield RunNoted(time=0.1, text="waiting for another build to end: process 7")
    yield TaskUpToDate(time=0.2, task="ipxe:x86_64")
    yield TaskStarted(time=0.25, task="initrd:x86_64", reasons=("initrd.gz is not built",), log=LOG)
    yield TaskStarted(
        time=0.3, task="rootfs:debian-12:x86_64", reasons=("option a is new: 1", "tool b changed: 1 -> 2", "c"),
        expected_seconds=61.2, log=LOG,
    )  # fmt: skip
    yield progressed(0.4, 0)
    yield progressed(20.4, 50 * MIB)
    yield TaskDone(time=31.04, task="initrd:x86_64", seconds=30.79, size=118 * MIB, targets=(Path("/cache/initrd.gz"),))
    yield TaskFailed(time=40.0, task="rootfs:debian-12:x86_64", failure=first, seconds=39.7)
    yield TaskFailed(time=40.0, task="kernel:debian-12:x86_64", failure=second, seconds=None)
    yield TaskSkipped(time=40.1, task="modules:debian-12:x86_64", why="needs rootfs:debian-12:x86_64")
    yield RunFailed(time=40.2, failure=failure_of(DAMAGED))
    yield RunFinished(
        time=40.3, outcome=Outcome.FAILED, built=("initrd:x86_64",), up_to_date=("ipxe:x86_64",), failures=failures()
    )  # fmt: skip


def progressed(time: float, done: int, *, step: str = "fetching packages", total: int | None = 118 * MIB) -> Any:
    pace = Pace().advanced(0.4, 0).advanced(time, done) if done else Pace().advanced(time, 0)
    progress = Progress(step=step, done=done, total=total)
    return TaskProgressed(time=time, task="rootfs:debian-12:x86_64", progress=progress, pace=pace)


def drawn_on(width: int, drawing: RenderableType) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(drawing)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def told_by(view: View, events: Iterable[Event]) -> None:
    for event in events:
        view.tell(event)
    view.close()


PLAIN = """\
[   0.1 s] note       waiting for another build to end: process 7
[   0.2 s] building   initrd:x86_64  (initrd.gz is not built)
[   0.3 s] building   rootfs:debian-12:x86_64  (option a is new: 1; and 2 more reasons; about 1:01)
[   0.4 s] progress   rootfs:debian-12:x86_64  fetching packages: 118 MiB
[  20.4 s] progress   rootfs:debian-12:x86_64  fetching packages: 42 %, 50 of 118 MiB, 2.5 MiB/s, 0:27 left
[  31.0 s] built      initrd:x86_64  30.8 s, 118 MiB
[  40.0 s] failed     rootfs:debian-12:x86_64  after 39.7 s
[  40.0 s] failed     kernel:debian-12:x86_64
[  40.1 s] skipped    modules:debian-12:x86_64  (needs rootfs:debian-12:x86_64)
2 failed, 1 built, 1 up to date, after 40.3 s
error: mmdebstrap failed with exit status 25
  task: rootfs:debian-12:x86_64
  command: mmdebstrap --variant=minbase bookworm 'a name'
  | I: running apt-get update...
  | E: the archive is not there
  log: /cache/logs/rootfs.debian-12.x86_64.log
  repeat: doit rootfs:debian-12:x86_64
error: vmlinuz is damaged
  task: kernel:debian-12:x86_64
  expected aa
  found bb
  what to do: remove it, build again
  repeat: doit kernel:debian-12:x86_64
"""


def test_plain_lines_tell_the_whole_run() -> None:
    stream = io.StringIO()
    told_by(PlainView(Outlet(stream)), a_run())
    assert stream.getvalue() == PLAIN


@pytest.mark.parametrize(
    ("outcome", "built", "up_to_date", "text"),
    [
        (Outcome.DONE, ("a",), ("b", "c"), "1 built, 2 up to date, after 7.0 s\n"),
        (Outcome.DONE, (), ("a", "b"), "all 2 artifacts are up to date\n"),
        (Outcome.DONE, (), ("a",), "the artifact is up to date\n"),
        (Outcome.DONE, (), (), ""),
        (Outcome.FAILED, (), ("a",), ""),  # whoever asked for the run tells why
        (Outcome.INTERRUPTED, (), ("a",), "interrupted; what was built stays, the next run carries on\n"),
    ],
)
def test_the_last_line_of_a_run(
    outcome: Outcome, built: tuple[str, ...], up_to_date: tuple[str, ...], text: str
) -> None:
    stream = io.StringIO()
    PlainView(Outlet(stream)).tell(RunFinished(time=7.0, outcome=outcome, built=built, up_to_date=up_to_date))
    assert stream.getvalue() == text


@pytest.mark.parametrize(
    ("progress", "samples", "text"),
    [
        (Progress(step="compressing"), [(0, 0)], "compressing"),
        (Progress(step="fetching", done=3 * MIB // 2), [(0, 0), (4, 3 * MIB // 2)], "fetching: 1.5 MiB, 384 KiB/s"),
        (Progress(step="fetching", done=MIB, total=3 * MIB), [(0, 0)], "fetching: 33 %, 1.0 of 3.0 MiB"),
        (Progress(step="fetching", done=5, total=4), [(0, 0), (4, 5)], "fetching: 100 %, 5 of 4 B, 1 B/s"),
        (
            Progress(step="unpacking", done=12, total=310, unit="packages"), [(0, 0), (4, 12)],
            "unpacking: 3 %, 12 of 310 packages, 3.0 packages/s, 1:39 left",
        ),
        (Progress(step="unpacking", total=310, unit="packages"), [(0, 0)], "unpacking: 310 packages"),
        (Progress(step="reading", done=12, unit="files"), [(0, 0)], "reading: 12 files"),
    ],
)  # fmt: skip
def test_progress_in_words(progress: Progress, samples: list[tuple[float, int]], text: str) -> None:
    pace = Pace()
    for time, done in samples:
        pace = pace.advanced(time, done)
    event = TaskProgressed(time=samples[-1][0], task="toy:a", progress=progress, pace=pace)
    assert said_progress(event) == f"[{event.time:6.1f} s] progress   toy:a  {text}"


def test_a_long_step_is_told_every_ten_seconds_and_ten_percent_at_most() -> None:
    stream = io.StringIO()
    view = PlainView(Outlet(stream))
    view.tell(TaskStarted(time=0.0, task="rootfs:debian-12:x86_64", log=LOG))
    for second in range(1000):  # 1 % in 10 s
        view.tell(progressed(second, second * MIB, total=1000 * MIB))
    times = [float(time) for time in re.findall(r"\[ *([\d.]+) s\] progress", stream.getvalue())]
    assert times == [0, *range(60, 1000, 60)]
    stream.truncate(0)
    view.tell(TaskStarted(time=1000.0, task="rootfs:debian-12:x86_64", log=LOG))
    for tenth in range(100):  # 1 % in 0.1 s
        view.tell(progressed(1000 + tenth / 10, tenth * MIB, total=100 * MIB))
    assert stream.getvalue().count("progress") == 1


def test_steps_in_turn_do_not_flood_a_log() -> None:
    stream = io.StringIO()
    view = PlainView(Outlet(stream))
    view.tell(TaskStarted(time=0.0, task="rootfs:debian-12:x86_64", log=LOG))
    for tenth in range(100):
        view.tell(progressed(tenth / 10, 0, step=("unpacking", "configuring")[tenth % 2], total=None))
    assert stream.getvalue().count("progress") == 2


def test_ndjson_has_one_object_for_each_event() -> None:
    stream = io.StringIO()
    told_by(JsonView(Outlet(stream)), a_run())
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == [
        "run_started", "run_noted", "task_up_to_date", "task_started", "task_started", "task_progressed",
        "task_progressed", "task_done", "task_failed", "task_failed", "task_skipped", "run_failed", "run_finished",
    ]  # fmt: skip
    assert events[0] == {"event": "run_started", "time": 0.0, "tasks": ["rootfs"], "artifacts": 5, "schema": 1}
    assert events[4] == {
        "event": "task_started", "time": 0.3, "task": "rootfs:debian-12:x86_64",
        "reasons": ["option a is new: 1", "tool b changed: 1 -> 2", "c"], "expected_seconds": 61.2, "log": str(LOG),
    }  # fmt: skip
    assert events[6] == {
        "event": "task_progressed", "time": 20.4, "task": "rootfs:debian-12:x86_64", "step": "fetching packages",
        "done": 50 * MIB, "total": 118 * MIB, "unit": "B", "rate": 2621440.0, "seconds_left": 27.2,
    }  # fmt: skip
    assert events[7] == {
        "event": "task_done", "time": 31.04, "task": "initrd:x86_64", "seconds": 30.8, "size": 118 * MIB,
        "targets": ["/cache/initrd.gz"],
    }  # fmt: skip
    assert events[8] == {
        "event": "task_failed", "time": 40.0, "task": "rootfs:debian-12:x86_64", "seconds": 39.7,
        "failure": {
            "brief": "mmdebstrap failed with exit status 25", "details": "", "resolution": "", "exit_code": 1,
            "command": "mmdebstrap --variant=minbase bookworm 'a name'", "command_status": 25,
            "tail": list(FAILED_COMMAND.tail), "log": str(LOG), "repeat": "doit rootfs:debian-12:x86_64",
        },
    }  # fmt: skip
    assert events[9]["failure"]["exit_code"] == 7
    assert events[11]["failure"]["repeat"] is None
    assert events[12] == {
        "event": "run_finished", "time": 40.3, "outcome": "failed", "built": ["initrd:x86_64"],
        "up_to_date": ["ipxe:x86_64"],
    }  # fmt: skip


def test_ndjson_tells_progress_once_a_second_and_always_the_end_of_a_step() -> None:
    stream = io.StringIO()
    told_by(JsonView(Outlet(stream)), (progressed(tenth / 10, tenth, total=100) for tenth in range(101)))
    assert [json.loads(line)["done"] for line in stream.getvalue().splitlines()] == list(range(0, 101, 10))
    told_by(JsonView(Outlet(stream)), [progressed(0.1, 1, total=2), progressed(0.2, 2, total=2)])
    assert json.loads(stream.getvalue().splitlines()[-1])["done"] == 2


def test_the_events_are_documented() -> None:
    page = (REPOSITORY / "docs/reference/build-events.md").read_text()
    stream = io.StringIO()
    told_by(JsonView(Outlet(stream)), a_run())
    sections = {
        text.partition("`")[0]: text for text in re.split(r"^`(?=run_|task_)|^## A (?=f)", page, flags=re.MULTILINE)
    }
    failure_keys = set(
        re.findall(r"^\| `(\w+)`", sections.pop("failure\n\n| key | value |\n|---|---|\n| "), re.MULTILINE)
    )
    for line in stream.getvalue().splitlines():
        event = json.loads(line)
        assert set(event) - {"event", "time"} <= set(re.findall(r"`(\w+)`", sections[event["event"]])), line
        assert "failure" not in event or set(event["failure"]) == failure_keys


def test_what_a_terminal_shows_while_tasks_run() -> None:
    view = LiveView(Outlet(Terminal()), clock=lambda: 0.0)
    for event in itertools.takewhile(lambda event: not isinstance(event, TaskDone), a_run()):
        view.tell(event)
    drawn = drawn_on(80, view.table(80))
    view.close()
    assert drawn == [
        "initrd:x86_64                                                         0:20",
        "rootfs:debian-12:x86_64  fetching packages  50 of 118 MiB  2.5 MiB/s  0:27 left",
        "1 of 5 artifacts, 2 running, 0:20",
    ]


def test_a_terminal_is_left_with_the_plain_lines_alone() -> None:
    stream = Terminal()
    told_by(LiveView(Outlet(stream)), a_run())
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0, "the cursor is back"
    kept = re.sub(r"\x1b\[[\d;?]*m", "", text)
    for line in PLAIN.splitlines():
        assert line in kept or " progress " in line
    assert kept.endswith(PLAIN[PLAIN.index("2 failed") :])


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_the_table_fits_any_width(width: int) -> None:
    started = TaskStarted(time=0.0, task="rootfs:debian-12:x86_64", expected_seconds=61.2, log=LOG)
    rows = [(started, None), (started, progressed(20.4, 50 * MIB)), (started, progressed(1.0, 0, total=None))]
    lines = drawn_on(width, draw(rows, (0, 5), now=20.4, width=width))
    assert len(lines) == 4, "a line is cut, not wrapped"
    assert all(len(line) <= width for line in lines)
    if width >= 80:
        assert "0:20 of about 1:01" in lines[0]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    stream = Terminal()
    told_by(LiveView(Outlet(stream)), a_run())
    colours = re.findall(r"\x1b\[(?:\d+;)*[34][0-8](?:;\d+)*m", stream.getvalue())
    assert bool(colours) is not bool(no_color)


@pytest.mark.parametrize(
    ("stream", "output", "term", "view"),
    [
        (Terminal(), "text", "xterm", LiveView),
        (Terminal(), "text", "dumb", PlainView),
        (Terminal(), "plain", "xterm", PlainView),
        (Terminal(), "json", "xterm", JsonView),
        (io.StringIO(), "text", "xterm", PlainView),
        (io.StringIO(), "json", "dumb", JsonView),
    ],
)
def test_the_view_fits_the_stream(stream: io.StringIO, output: str, term: str, view: type[View]) -> None:
    assert type(open_view(stream, output=output, environment={"TERM": term})) is view


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(UsageError, match="'xml'"):
        open_view(io.StringIO(), output="xml")
    with pytest.raises(UsageError, match="PVMLAB_OUTPUT is 'xml'"):
        wanted_output({"PVMLAB_OUTPUT": "xml"})
    assert wanted_output({}) == "text"
    assert wanted_output({"PVMLAB_OUTPUT": "json"}) == "json"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("plain\ttext größer", "plain\ttext größer"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07after", "after"),
        ("10 %\r20 %\r100 %", "100 %"),
        ("from DOS\r", "from DOS"),
        ("a\x07b\x00c\x9b2J", "abc2J"),
    ],
)
def test_what_programs_print_cannot_command_the_terminal(line: str, text: str) -> None:
    assert printable(line) == text


def test_sizes_and_durations() -> None:
    assert [format_size(size) for size in (0, 1023, 1536, 118 * MIB, 5 * 1024**4)] == [
        "0 B", "1023 B", "1.5 KiB", "118 MiB", "5120 GiB",
    ]  # fmt: skip
    assert [format_duration(seconds) for seconds in (0.4, 23, 59.6, 3723)] == ["0:00", "0:23", "1:00", "1:02:03"]
