"""From one mirror into a part: asked, resumed, asked again, until all is there or the mirror is given up.

What is resumed is exactly one answer: by ``Range`` with ``If-Range`` on its strong ETag (RFC 9110, 13.1.5 and 14). All
else begins anew. Nothing here decides whether the bytes are right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterator, Mapping

from pipeline.errors import HostError
from pipeline.fetch.addresses import scrubbed
from pipeline.fetch.answers import (
    ChangedError,
    is_at_the_end,
    require_no_page,
    require_rest,
    require_whole,
)
from pipeline.fetch.asset import Algorithm, Asset
from pipeline.fetch.connection import Answer, ask
from pipeline.fetch.failure import FullDiskError, MirrorError, StoppedError
from pipeline.fetch.part import Origin, Part, Tally
from pipeline.fetch.patience import Patience
from pipeline.progress import Progress, ProgressListener

_PIECE = 1 << 18  # bytes that are read at once
_MARGIN = 1 << 20  # bytes that stay free on the disk
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrived:
    """What is in the part now.

    :ivar digests: SHA-256 and those that were promised, in hex. :ivar size: in bytes.
    :ivar is_whole: whether the mirror said how long it is, and it is that long.
    :ivar is_certain: whether it is one answer, received just now, whose end was known. If it is not, wrong bytes need
        not be the mirror's fault.
    """

    digests: Mapping[Algorithm, str]
    size: int
    is_whole: bool
    is_certain: bool


class Transfer:
    """One asset from one mirror."""

    def __init__(self, url: str, asset: Asset, part: Part, *, patience: Patience, listener: ProgressListener) -> None:
        self._url, self._asset, self._part = url, asset, part
        self._patience, self._listener = patience, listener
        self._tally = self._new_tally()
        self._is_resumed = False

    def run(self) -> Arrived:
        """Have the part hold all that the mirror sends.

        :raises MirrorError: if that does not come to an end. :raises StoppedError: on Ctrl-C.
        :raises FullDiskError: if the disk is full. :raises HostError: if it cannot be written.
        """
        patience, failures = self._patience, 0
        for number in range(1, patience.most + 1):
            before = self._kept()
            try:
                return self._try()
            except MirrorError as error:
                self._require_wanted()
                failures = 1 if self._kept() - before >= patience.worth else failures + 1
                is_last = failures >= patience.tries or number == patience.most
                if not error.is_passing or is_last or (error.wait or 0) > patience.longest:
                    raise
                if not patience.sleep(patience.delay(failures, error.wait)):
                    self._require_wanted()
        raise AssertionError("unreachable: the last try raises")

    def _kept(self) -> int:
        """Return how many bytes need not come again."""
        return self._part.size if self._part.origin() is not None else 0

    def _require_wanted(self) -> None:
        if self._patience.is_stopping():
            raise StoppedError(self._asset.name)

    def _try(self) -> Arrived:
        origin = self._resumable()
        if origin is None:
            return self._from_the_start()
        self._recount()
        if self._tally.size == origin.length:  # we were killed between the last byte and the comparison
            return self._arrived(is_certain=False)
        try:
            return self._resume(origin)
        except ChangedError:
            self._part.forget()
            raise
        except MirrorError as error:
            if error.is_passing or origin.source is None:
                raise
            return self._from_the_start()  # where we were sent to then is no place any more

    def _resumable(self) -> Origin | None:
        origin = self._part.origin()
        is_ours = origin is not None and origin.url == scrubbed(self._url) and self._part.size <= self._asset.limit
        return origin if is_ours else None

    def _recount(self) -> None:
        """Have the tally be that of the part, which may be of an earlier run."""
        if self._tally.size != self._part.size:
            self._tally = self._new_tally()
            for piece in self._part.pieces():
                self._tally.add(piece)

    def _from_the_start(self) -> Arrived:
        self._part.forget()
        with ask(self._url, self._patience) as answer:
            return self._take_whole(answer)

    def _resume(self, origin: Origin) -> Arrived:
        have = self._tally.size
        headers = {"Range": f"bytes={have}-", "If-Range": str(origin.etag)}
        with ask(origin.source or self._url, self._patience, headers) as answer:
            if answer.status == 416:
                if is_at_the_end(answer, have):
                    return self._arrived(is_certain=False)
                raise ChangedError(answer.url, "the file is shorter now", is_passing=True)
            if answer.status != 206:
                return self._take_whole(answer)
            whole = require_rest(answer, origin, have, self._asset)
            self._is_resumed = True
            return self._receive(answer, whole)

    def _take_whole(self, answer: Answer) -> Arrived:
        require_whole(answer, self._asset)
        with self._disk(answer.length):
            self._part.begin(Origin.of(self._url, answer))
        self._tally, self._is_resumed = self._new_tally(), False
        return self._receive(answer, answer.length)

    def _receive(self, answer: Answer, whole: int | None) -> Arrived:
        """Append the body to the part. *whole*: the bytes that the part will then have, if they are known."""
        limit, total = self._asset.limit, whole or self._asset.size
        self._require_room(total)
        with self._disk(total), self._part.appending() as descriptor:
            while data := answer.read(min(_PIECE, limit + 1 - self._tally.size)):
                self._judge(answer, data)
                left = memoryview(data)
                while left:
                    left = left[os.write(descriptor, left) :]
                self._tally.add(data)
                self._listener(Progress(step=f"fetching {self._asset.name}", done=self._tally.size, total=total))
        if total is not None and self._tally.size != total:
            reason = f"it closed the connection after {self._tally.size:,} of {total:,} bytes"
            raise MirrorError(answer.url, reason, is_passing=True)
        return self._arrived(is_whole=whole is not None)

    def _judge(self, answer: Answer, data: bytes) -> None:
        """Refuse what cannot be right before it is written."""
        if self._tally.size == 0:
            require_no_page(answer, data)
        if self._tally.size + len(data) > self._asset.limit:
            self._part.forget()
            raise MirrorError(answer.url, f"it sends more than the {self._asset.limit:,} bytes that are taken")

    def _arrived(self, *, is_whole: bool = True, is_certain: bool = True) -> Arrived:
        is_certain = is_certain and is_whole and not self._is_resumed
        return Arrived(digests=self._tally.digests(), size=self._tally.size, is_whole=is_whole, is_certain=is_certain)

    def _new_tally(self) -> Tally:
        return Tally(digest.algorithm for digest in self._asset.digests)

    def _require_room(self, total: int | None) -> None:
        """Refuse to begin what cannot be ended."""
        if total is not None and total - self._tally.size > self._free() - _MARGIN:
            raise self._full(total)

    @contextlib.contextmanager
    def _disk(self, total: int | None) -> Iterator[None]:
        """Say what the system refuses."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise self._full(total) from None
            if HostError.knows(error):
                raise HostError(error) from None
            raise

    def _full(self, total: int | None) -> FullDiskError:
        if self._part.origin() is None:  # it cannot be resumed: better to give the room back
            self._part.forget()
        needed = total - self._part.size if total is not None else None
        return FullDiskError(self._asset.name, needed=needed, free=self._free())

    def _free(self) -> int:
        space = os.statvfs(self._part.data.parent)
        return space.f_bavail * space.f_frsize
