"""Events in words, for people: the same on a terminal, in a pipe and in a CI log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.reporting.events import (
    Event,
    Outcome,
    RunFinished,
    RunNoted,
    TaskDone,
    TaskFailed,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
)
from pipeline.reporting.failure import Failure

_UNITS = ("B", "KiB", "MiB", "GiB")
# what a log may hold and a terminal would obey: control sequences (ECMA-48), and all other control characters but tabs
_CONTROL = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def said(event: Event) -> str:
    """Return the lines that tell *event*, without the last line's end; empty if it is not worth one.

    Progress is not told here: how often depends on who watches, see :func:`said_progress`.
    """
    if isinstance(event, RunFinished):
        return "\n".join(_farewell(event))
    match event:
        case TaskStarted():
            verb, rest = "building", f"{event.task}  ({_why(event)})"
        case TaskDone():
            verb, rest = "built", f"{event.task}  {event.seconds:.1f} s, {format_size(event.size)}"
        case TaskFailed():
            verb, rest = "failed", event.task
            rest += f"  after {event.seconds:.1f} s" if event.seconds is not None else ""
        case TaskSkipped():
            verb, rest = "skipped", f"{event.task}  ({event.why})"
        case RunNoted():
            verb, rest = "note", event.text
        case _:
            return ""
    return _stamped(event, verb, rest)


def said_progress(event: TaskProgressed) -> str:
    """Return the line that tells how far a task is."""
    if event.progress.done:
        words = [percent(event), amount(event), rate(event, event.time), time_left(event, event.time)]
    else:
        words = [_whole(event)]
    facts = ", ".join(word for word in words if word)
    return _stamped(event, "progress", f"{event.task}  {event.progress.step}{': ' if facts else ''}{facts}")


def said_failure(failure: Failure) -> Iterator[str]:
    """Yield the lines about a failure: what, why, what ran, what it printed last, and how to run it again."""
    error = failure.error
    yield f"error: {printable(error.brief)}"
    if failure.task is not None:
        yield f"  task: {failure.task}"
    yield from (f"  {printable(line)}".rstrip() for line in failure.details.strip().splitlines())
    if failure.command is not None:
        yield f"  command: {failure.command}"
    yield from (f"  | {printable(line)}".rstrip() for line in failure.tail)
    if failure.log is not None:
        yield f"  log: {failure.log}"
    if error.resolution:
        yield f"  what to do: {error.resolution}"
    if failure.repeat is not None:
        yield f"  repeat: {failure.repeat}"


def percent(event: TaskProgressed) -> str:
    """Return how much of the step is done: ``42 %``; empty if nobody knows how much there is."""
    progress = event.progress
    return f"{min(100, progress.done * 100 // progress.total)} %" if progress.total else ""


def amount(event: TaskProgressed) -> str:
    """Return how much is done: ``50 of 118 MiB``, ``120 of 310 packages``; empty if nothing was counted."""
    done, total, unit = event.progress.done, event.progress.total, event.progress.unit
    if not total:
        return (format_size(done) if unit == "B" else f"{done} {unit}") if done else ""
    if unit != "B":
        return f"{done} of {_whole(event)}"
    value, shared = format_size(total).split()
    fine = "." in value
    return f"{done / 1024 ** _UNITS.index(shared):.{1 if fine else 0}f} of {_whole(event)}"


def rate(event: TaskProgressed, now: float) -> str:
    """Return how fast the step goes: ``12 MiB/s``, ``3.2 packages/s``; empty if it is too early to say."""
    per_second = event.pace.rate(now)
    if per_second is None or not (event.progress.total or event.progress.done):
        return ""
    if event.progress.unit == "B":
        return f"{format_size(round(per_second))}/s"
    return f"{per_second:.{0 if per_second >= 10 else 1}f} {event.progress.unit}/s"


def time_left(event: TaskProgressed, now: float) -> str:
    """Return how long the step will take: ``0:07 left``; empty if nobody can say."""
    progress = event.progress
    if not progress.total or progress.done >= progress.total:
        return ""
    left = event.pace.seconds_left(now, progress.total)
    return f"{format_duration(left)} left" if left is not None else ""


def time_spent(started: TaskStarted, now: float) -> str:
    """Return how long a task has taken: ``0:23``, and how long last time: ``0:23 of about 1:00``."""
    spent, expected = format_duration(now - started.time), _expected(started)
    return f"{spent} of {expected}" if expected else spent


def format_size(size: int) -> str:
    """Return a size in bytes for people, in binary units: ``118 MiB``."""
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """Return minutes and seconds, with hours if there are any: ``0:23``, ``1:02:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def printable(text: str) -> str:
    """Return a line that a program printed, without what a terminal would take as a command."""
    return _CONTROL.sub("", text.rpartition("\r")[2] if not text.endswith("\r") else text)


def _stamped(event: Event, verb: str, rest: str) -> str:
    return f"[{event.time:6.1f} s] {verb:<10} {rest}"


def _whole(event: TaskProgressed) -> str:
    total, unit = event.progress.total, event.progress.unit
    if not total:
        return ""
    return format_size(total) if unit == "B" else f"{total} {unit}"


def _why(event: TaskStarted) -> str:
    first, *others = event.reasons or ("asked for",)
    more = f"; and {counted(len(others), 'more reason')}" if others else ""
    expected = _expected(event)
    return f"{first}{more}{'; ' if expected else ''}{expected}"


def _expected(event: TaskStarted) -> str:
    seconds = event.expected_seconds
    return f"about {format_duration(seconds)}" if seconds is not None and seconds >= 1 else ""


def _farewell(event: RunFinished) -> Iterator[str]:
    """Yield the last lines of a run; what failed comes last, where it is seen."""
    failed = [failure for failure in event.failures if failure.task is not None]
    counts = ((len(failed), "failed"), (len(event.built), "built"), (len(event.up_to_date), "up to date"))
    if event.built or failed:
        yield f"{', '.join(f'{number} {word}' for number, word in counts if number)}, after {event.time:.1f} s"
    elif event.up_to_date and event.outcome is Outcome.DONE:
        all_of_them = f"all {counted(len(event.up_to_date), 'artifact')} are"
        yield f"{all_of_them if len(event.up_to_date) > 1 else 'the artifact is'} up to date"
    for failure in event.failures:
        yield from said_failure(failure)
    if event.outcome is Outcome.INTERRUPTED:
        yield "interrupted; what was built stays, the next run carries on"


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 file``, ``2 files``."""
    return f"{number} {noun}{'s' if number != 1 else ''}"
