"""A failure with all that is told about it, gathered when it happens: the log may be gone when the run ends."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path

from pipeline.errors import CommandError, PvmlabError

TAIL_LINES = 25
_TAIL_BYTES = 16_384


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """What failed, why, and how to try it again by hand.

    :ivar task: None if the run itself failed.
    :ivar command: the program that failed, as one would type it; None if it was none.
    :ivar command_status: its exit status, negative for a signal; None after a timeout.
    :ivar details: what the error says beyond command, tail and log.
    :ivar tail: the last lines of the output. :ivar log: where all of it is.
    """

    error: PvmlabError
    task: str | None = None
    command: str | None = None
    command_status: int | None = None
    details: str = ""
    tail: tuple[str, ...] = ()
    log: Path | None = None

    @property
    def repeat(self) -> str | None:
        """The command that runs the failed task again."""
        return f"doit {shlex.quote(self.task)}" if self.task is not None else None


def failure_of(error: PvmlabError, *, task: str | None = None, log: Path | None = None) -> Failure:
    """Return what is to be told about *error*.

    :param log: the task's log, if the task has begun; its last lines are told if the error has none of its own.
    """
    log = log if log is not None and log.is_file() and log.stat().st_size else None
    if isinstance(error, CommandError):  # its details are these attributes once more
        return Failure(
            error=error, task=task, command=shlex.join(error.argv), command_status=error.returncode, tail=error.tail,
            log=error.log or log,
        )  # fmt: skip
    tail = read_tail(log) if log is not None else ()
    if tail and tail[-1].strip() in error.details:
        tail = ()
    return Failure(error=error, task=task, details=error.details, tail=tail, log=log)


def read_tail(log: Path) -> tuple[str, ...]:
    """Return the last lines of a log, however long it is.

    :raises OSError: if it cannot be read.
    """
    with log.open("rb") as stream:
        start = max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES)
        stream.seek(start)
        lines = stream.read().decode(errors="replace").rstrip().splitlines()
    whole = lines[1:] if start and len(lines) > 1 else lines  # the first may have lost its beginning
    return tuple(whole[-TAIL_LINES:])
