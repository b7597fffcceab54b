"""The one place where a reporter writes: whole texts, one at a time, and no complaint when the reader has gone."""

from __future__ import annotations

import os
import threading
from typing import IO


class Outlet:
    """A text stream on top of another, made for threads; has what rich asks of a file.

    When writing fails (``doit | head -1``, a closed terminal, a full disk under a log) nobody is left to tell; the
    build itself is not the worse for it and goes on, its exit code tells how it went.

    :ivar encoding: of the stream below: rich draws with what it has. :ivar terminal: whether people watch.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._gone = False
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"
        self.terminal = stream.isatty()

    def isatty(self) -> bool:
        """Return whether people watch."""
        return self.terminal

    def fileno(self) -> int:
        """Return the descriptor below. :raises OSError: if there is none."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write *text* as one piece; what the encoding lacks becomes an escape."""
        fitting = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        with self._lock:
            if not self._gone:
                try:
                    self._stream.write(fitting)
                    self._stream.flush()
                except OSError:
                    self._give_up()
        return len(text)

    def line(self, text: str) -> None:
        """Write *text* and the end of its line, as one piece."""
        self.write(f"{text}\n")

    def flush(self) -> None:
        """Do nothing: each write is flushed."""

    def _give_up(self) -> None:
        """Let the bytes that are stuck in the stream go: the interpreter would try them again at its exit, and fail."""
        self._gone = True
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self._stream.fileno())
        except OSError:  # no descriptor below
            pass
        finally:
            os.close(null)
