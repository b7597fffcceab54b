"""Showing the logs of machines, and following them while they grow."""

from __future__ import annotations

import codecs
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lab.logs import LIMIT, strip_control
from lab.machine import MachineLogs
from pipeline.errors import NotFoundError, UsageError

KINDS = ("serial", "qemu", "lab")
_POLL = 0.2  # seconds


def choose_log(logs: MachineLogs, which: str) -> Path:
    """Return the log *which*: of the serial console, of QEMU, or of what the lab did.

    :raises UsageError: for any other word.
    """
    paths = dict(zip(KINDS, (logs.serial, logs.qemu, logs.ours), strict=True))
    if which not in paths:
        raise UsageError(f"--which {which!r} is unknown", resolution=f"use one of: {', '.join(KINDS)}")
    return paths[which]


def read_log(log: Path) -> list[str]:
    """Return the lines of *log*, without control sequences.

    :raises NotFoundError: if there is none.
    """
    if not log.exists():
        raise NotFoundError(f"there is no log {log.name} yet", details=str(log), resolution="start the machine first")
    with log.open("rb") as stream:
        return strip_control(stream.read(2 * LIMIT).decode(errors="replace")).splitlines()


def follow_log(log: Path) -> Iterator[str]:
    """Yield what is added to *log* from now on, without control sequences; ends only by being interrupted.

    A log that is started anew, or cut, is read from its beginning.
    """
    inode, position = None, 0
    with contextlib.suppress(FileNotFoundError):
        facts = log.stat()
        inode, position = facts.st_ino, facts.st_size
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a character may be half written yet
    while True:
        data = b""
        with contextlib.suppress(FileNotFoundError), log.open("rb") as stream:  # gone: it is just being started anew
            facts = os.fstat(stream.fileno())
            if facts.st_ino != inode or facts.st_size < position:
                inode, position = facts.st_ino, 0
                decoder.reset()
            stream.seek(position)
            data = stream.read(1 << 20)
            position += len(data)
        if text := strip_control(decoder.decode(data)):
            yield text
        if not data:
            time.sleep(_POLL)
