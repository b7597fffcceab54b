"""Opening files that anybody may have put where they are read, so that none of them holds up its reader."""

from __future__ import annotations

import os
import stat


def open_regular(path: str, flags: int) -> int:
    """Open a file for :func:`open`, as its ``opener``; a named pipe would have us wait until somebody writes.

    :raises ValueError: if it is no regular file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file")
    return descriptor
