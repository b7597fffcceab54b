"""The logs of machines: one generation is kept, size is bounded, and their last lines are made readable."""

from __future__ import annotations

import os
import re
from pathlib import Path

LIMIT = 32 << 20  # bytes
_KEPT = 1 << 20  # bytes left of a log that outgrew the limit
_TAIL = 64 << 10  # bytes looked at for the last lines

_CURSOR = re.compile(r"\x1b\[[0-9;]*[Hf]|\r\n|\r")  # to another place on the screen: as good as a new line
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, erasing, modes (ECMA-48 5.4)
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: window titles and the like
    r"|\x1b[ -/]*[0-~]?"  # the other escape sequences, whole or cut off
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def rotate(log: Path) -> None:
    """Start a new log; the one that was there becomes ``<name>.1``, and an older one is gone."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))


def trim(log: Path, *, limit: int = LIMIT) -> None:
    """Cut *log* down to its last part if it is larger than *limit* bytes.

    Its writer may go on meanwhile, if it appends (``O_APPEND``), as QEMU does.
    """
    try:
        if log.stat().st_size <= limit:
            return
    except FileNotFoundError:
        return
    kept = _last_bytes(log, min(_KEPT, limit))
    os.truncate(log, 0)
    with log.open("ab") as stream:
        stream.write(b"[pvmlab: the log was too large, its beginning is gone]\n" + kept)


def tail(log: Path, lines: int, *, end: int | None = None) -> list[str]:
    """Return the last *lines* lines of *log* that say something, without control sequences; none if there is no log.

    :param end: look only at its first *end* bytes.
    """
    try:
        text = _last_bytes(log, _TAIL, end=end).decode(errors="replace")
    except FileNotFoundError:
        return []
    said = [line.rstrip() for line in strip_control(text).splitlines() if line.strip()]
    return said[-lines:] if lines > 0 else []


def strip_control(text: str) -> str:
    """Return *text* as it would read on paper: no colours, no cursor movements, no other control characters."""
    return _CONTROL.sub("", _CURSOR.sub("\n", text))


def _last_bytes(path: Path, count: int, *, end: int | None = None) -> bytes:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        last = size if end is None else min(end, size)
        start = stream.seek(max(last - count, 0))
        return stream.read(last - start)
