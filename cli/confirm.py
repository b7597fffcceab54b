"""Asking before something is gone for good."""

from __future__ import annotations

import sys

from pipeline.errors import ConflictError, UsageError


def require_yes(question: str, *, yes: bool) -> None:
    """Return if the person agrees: by ``--yes``, or by answering on the terminal.

    :raises UsageError: without ``--yes`` where nobody can be asked. :raises ConflictError: if the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} This cannot be asked without a terminal.", resolution="--yes says yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ConflictError("nothing was done")
