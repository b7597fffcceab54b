"""One large body over HTTP, piece by piece: resumed when it is cut off, and its digest compared at the end."""

from __future__ import annotations

import hashlib
import http.client
import re
import time
from collections.abc import Callable

from contracts.install import PayloadSource
from installer import client
from installer.errors import InstallError

_CHUNK = 1 << 18  # bytes
_MAX_RESUMES = 5  # of a connection that gave something and was cut
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")

OnProgress = Callable[[int], None]


def download(
    source: PayloadSource, *, what: str, write: Callable[[bytes], object], on_progress: OnProgress
) -> None:  # fmt: skip
    """Hand the bytes of *source* to *write*, each once and in order, whatever happens to the connection.

    A server that is away is waited for, as long as a restart of the provisioner takes.

    :param what: what it is, for errors: "the root filesystem".
    :param on_progress: called with the number of bytes taken so far, after each piece.
    :raises InstallError: if the server refuses, has another size, is cut off too often, or the digest is wrong.
    """
    digest = hashlib.sha256()
    taken = 0

    def take(piece: bytes) -> None:
        nonlocal taken
        digest.update(piece)
        write(piece)
        taken += len(piece)
        on_progress(taken)

    cuts, last, pauses = 0, time.monotonic(), client.pauses()
    while True:
        before = taken
        try:
            _read_from(source, offset=taken, take=take)
            break
        except (OSError, http.client.HTTPException, client.HttpError) as error:
            if isinstance(error, client.HttpError) and error.status < 500:
                raise
            if taken > before:
                cuts, last, pauses = cuts + 1, time.monotonic(), client.pauses()
            if cuts > _MAX_RESUMES or time.monotonic() - last > client.RESTART_WITHIN:
                after = f"{_MAX_RESUMES} resumptions" if cuts > _MAX_RESUMES else f"{client.RESTART_WITHIN:g} s"
                reason = error.cause if isinstance(error, client.HttpError) else client.describe(error)
                raise InstallError(
                    f"{what} stopped at {taken} of {source.size} bytes, and after {after} still: {reason}"
                ) from None
        time.sleep(next(pauses))
    if digest.hexdigest() != source.sha256:
        raise InstallError(
            f"{what} is not the one promised",
            lines=(f"expected sha256 {source.sha256}", f"received sha256 {digest.hexdigest()}", f"url {source.url}"),
        )


def _read_from(source: PayloadSource, *, offset: int, take: Callable[[bytes], None]) -> None:
    """Read *source* from *offset* to its end.

    :raises ConnectionError: if the connection ends early.
    """
    with client.open_url(source.url, offset=offset) as response:
        _check_size(response, source, offset=offset)
        missing = source.size - offset
        while missing > 0:
            piece = response.read(min(_CHUNK, missing))
            if not piece:
                raise ConnectionError("the connection was cut")
            take(piece)
            missing -= len(piece)


def _check_size(response: http.client.HTTPResponse, source: PayloadSource, *, offset: int) -> None:
    if offset:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        start, size = (int(match[1]), int(match[2])) if match else (-1, -1)
    else:
        start, size = 0, response.length if response.length is not None else -1
    if (start, size) != (offset, source.size):
        raise InstallError(
            f"{source.url} offers {size} bytes from {start}, the configuration says {source.size} from {offset}"
        )
