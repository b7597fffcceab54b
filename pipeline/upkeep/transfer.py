"""Bytes on their way: hashed as they pass, counted for people, never more than a piece of them in memory."""

from __future__ import annotations

import hashlib
from typing import IO

from pipeline.progress import Progress, ProgressListener

_PIECE = 1 << 20


class Transfer:
    """Many files that are read one after the other; tells how far all of them together are.

    :ivar step: what is being done, as a verb phrase. :ivar total: the bytes of all files.
    """

    def __init__(self, step: str, total: int, listener: ProgressListener) -> None:
        self.step = step
        self.total = total
        self._done = 0
        self._listener = listener

    def move(self, source: IO[bytes], size: int, sink: IO[bytes] | None = None) -> str:
        """Read *size* bytes, write them to *sink* if there is one, and return their SHA-256, in hex.

        :raises EOFError: if there are less. :raises OSError: if they cannot be read or written.
        """
        digest, left = hashlib.sha256(), size
        while left:
            piece = source.read(min(left, _PIECE))
            if not piece:
                raise EOFError(f"{left} of {size} bytes are missing")
            digest.update(piece)
            if sink is not None:
                sink.write(piece)
            left -= len(piece)
            self._done += len(piece)
            self._listener(Progress(step=self.step, done=self._done, total=self.total))
        return digest.hexdigest()
