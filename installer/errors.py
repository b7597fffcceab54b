"""How a phase fails."""

from __future__ import annotations

from collections.abc import Sequence


class InstallError(Exception):
    """A phase cannot go on.

    :ivar cause: one sentence for people.
    :ivar lines: the last output of whatever failed, if there was any.
    """

    def __init__(self, cause: str, *, lines: Sequence[str] = ()) -> None:
        super().__init__(cause)
        self.cause = cause
        self.lines = tuple(lines)
