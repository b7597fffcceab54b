"""Errors people meet: what happened, why, and what to do, with a stable exit code.

One class per kind of failure. Only ``cli``, ``dodo.py`` and ``tasks.py`` turn them into exits.
"""

from __future__ import annotations

import enum
import errno
import shlex
from collections.abc import Sequence
from pathlib import Path


class ExitCode(enum.IntEnum):
    """The exit codes of every command (docs/reference/exit-codes.md)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    PREREQUISITE = 5
    TIMEOUT = 6
    CHECKSUM = 7
    INTERRUPTED = 130


_FULL = "free some space (./pvmlab doctor says how much is there and needed), then run the same command again"
_NOT_YOURS = "made by another user (root, once)? give it to yours, then run the same command again"
# What the system says when there is something to do about it: the sentence, and what to do.
_REFUSALS = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk is full", _FULL),
    errno.EACCES: ("permission denied", _NOT_YOURS),
    errno.EPERM: ("permission denied", _NOT_YOURS),
    errno.EISDIR: ("a folder is in the way", "move it away, then run the same command again"),
    errno.EMFILE: ("too many files are open", "allow more (ulimit -n 4096), then run the same command again"),
    errno.ENFILE: ("too many files are open on this host", "end other programs, then run the same command again"),
    errno.EROFS: ("the file system is read-only", "PVMLAB_CACHE and PVMLAB_HOME move what pvmlab writes elsewhere"),
}


class PvmlabError(Exception):
    """Base of all errors shown to people.

    :ivar brief: one sentence, what failed.
    :ivar details: why, possibly several lines.
    :ivar resolution: what to do next.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution


class UsageError(PvmlabError):
    """The command was called in a way that makes no sense."""

    exit_code = ExitCode.USAGE


class NotFoundError(PvmlabError):
    """Something was named that does not exist."""

    exit_code = ExitCode.NOT_FOUND


class ConflictError(PvmlabError):
    """The thing is busy, exists already, or clashes with another."""

    exit_code = ExitCode.CONFLICT


class PrerequisiteError(PvmlabError):
    """The host lacks something; the resolution says the command that gets it."""

    exit_code = ExitCode.PREREQUISITE


class WaitTimeoutError(PvmlabError):
    """A wait ended without what it waited for."""

    exit_code = ExitCode.TIMEOUT


class ChecksumError(PvmlabError):
    """Bytes are not the ones that were promised."""

    exit_code = ExitCode.CHECKSUM


class HostError(PvmlabError):
    """The host's system refused something: the disk is full, a file may not be read."""

    @staticmethod
    def knows(error: OSError) -> bool:
        """Return whether there is something to do about *error*; else it is a fault of ours."""
        return error.errno in _REFUSALS

    def __init__(self, error: OSError) -> None:
        path = error.filename2 or error.filename
        what, resolution = _REFUSALS.get(error.errno or 0, (str(error), ""))
        super().__init__(f"{what} ({path})" if path else what, resolution=resolution)


class CommandError(PvmlabError):
    """A program failed or ran out of time.

    :ivar argv: what ran. :ivar returncode: its exit status, negative for a signal, None after a timeout.
    :ivar tail: the last lines it printed. :ivar log: where all of its output is, if it was kept.
    """

    def __init__(
        self, argv: Sequence[str], *, returncode: int | None, tail: Sequence[str], log: Path | None, how: str
    ) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.tail = tuple(tail)
        self.log = log
        lines = [f"command: {shlex.join(argv)}", *(f"  | {line}" for line in tail)]
        if log is not None:
            lines.append(f"log: {log}")
        super().__init__(f"{Path(argv[0]).name} {how}", details="\n".join(lines))


class MissingProgramError(PrerequisiteError):
    """A program that a step needs is not on the PATH."""

    def __init__(self, program: str) -> None:
        self.program = program
        super().__init__(
            f"the program {program!r} is not installed",
            resolution="./pvmlab setup installs what is missing; ./pvmlab doctor lists it",
        )
