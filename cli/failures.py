"""Turns whatever went wrong into one message and one exit code. Standard library only."""

from __future__ import annotations

import dataclasses
import json
import textwrap

from pipeline.errors import ExitCode, HostError, PvmlabError


@dataclasses.dataclass(frozen=True)
class Failure:
    """What people and programs are told.

    :ivar message: one sentence. :ivar details: why, possibly several lines. :ivar hint: what to do next.
    """

    code: ExitCode
    message: str
    details: str = ""
    hint: str = ""

    @property
    def text(self) -> str:
        """The message for people, with the final newline."""
        parts = [f"pvmlab: error: {self.message}" if self.code != ExitCode.INTERRUPTED else f"pvmlab: {self.message}"]
        if self.details:
            parts.append(textwrap.indent(self.details.rstrip(), "  "))
        if self.hint:
            parts.append(f"  what to do: {self.hint}")
        return "\n".join(parts) + "\n"

    @property
    def document(self) -> str:
        """The message for programs: a JSON object on one line, so that it may end a stream of such."""
        error = {"code": int(self.code), "message": self.message, "details": self.details, "hint": self.hint}
        return json.dumps({"schema": 1, "error": error}, ensure_ascii=False) + "\n"


def describe(error: BaseException) -> Failure:
    """Return what to say about *error*."""
    if isinstance(error, PvmlabError):
        return Failure(error.exit_code, error.brief, error.details, error.resolution)
    if isinstance(error, KeyboardInterrupt):
        return Failure(ExitCode.INTERRUPTED, "interrupted", hint="the same command again carries on")
    if isinstance(error, OSError) and HostError.knows(error):
        return describe(HostError(error))
    return Failure(
        ExitCode.FAILED,
        f"unexpected {type(error).__name__}: {error}",
        hint="this is a fault of pvmlab; the same command with --debug shows where, please report it",
    )
