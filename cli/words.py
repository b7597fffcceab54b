"""Words of a command line into values."""

from __future__ import annotations

import enum
from typing import TypeVar

from pipeline.errors import UsageError

E = TypeVar("E", bound=enum.StrEnum)


def choice(kind: type[E], text: str, option: str) -> E:
    """Return the member of *kind* that *text* names. :raises UsageError: if there is none."""
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is unknown", resolution=f"use one of: {', '.join(kind)}") from None
