"""Looks at the lab's files that are shared by all who ask in the same moment.

Whether an install can begin depends on some twenty looks at files, which are the same for all machines of a
distribution, and each is a message to the host on the provisioner's shares. Requests that wait at the same time are
answered in one turn of the event loop: the first of them looks, the others are told the same. Nothing is remembered
from one turn to the next, so nobody is told what was true earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

R = TypeVar("R")


class _Moment:
    def __init__(self) -> None:
        self.seen: dict[Hashable, Any] | None = None


_NOW = _Moment()


def begin() -> bool:
    """Begin a moment, unless one has begun; return whether this call has. Who began it is to :func:`end` it."""
    if _NOW.seen is not None:
        return False
    _NOW.seen = {}
    return True


def end() -> None:
    """End the moment: whoever asks next looks anew."""
    _NOW.seen = None


def once(key: Hashable, look: Callable[[], R]) -> R:
    """Return what *look* returns: in a moment, it is called once for each *key*. What it raises is not kept."""
    seen = _NOW.seen
    if seen is None:
        return look()
    try:
        found: R = seen[key]
    except KeyError:
        found = seen[key] = look()
    return found
