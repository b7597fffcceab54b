"""Phase 5: stream the root filesystem onto the disk.

    HTTP --sha256, size limit--> zstd --> tar

Nothing is stored on the way, so a wrong digest is known only when all is written: the caller then wipes the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import time
from collections.abc import Callable
from pathlib import Path

from contracts.install import RootfsSource
from installer import client
from installer.command import Pipeline
from installer.errors import InstallError

_CHUNK = 1 << 18  # bytes
_MAX_RESUMES = 5  # after a connection that was cut
_STALL = 180.0  # seconds without a byte taken by the disk, or given by the server
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")

OnProgress = Callable[[int], None]


def unpack(source: RootfsSource, root: Path, *, on_progress: OnProgress) -> None:
    """Unpack the archive *source* into *root*, with owners, modes and extended attributes.

    :param on_progress: called with the number of compressed bytes taken so far, after each piece.
    :raises InstallError: if the archive cannot be had, or is not the one promised.
    :raises CommandError: if it cannot be unpacked.
    """
    extract = [
        "tar", "--extract", "--directory", str(root),
        "--numeric-owner", "--same-permissions",
        "--xattrs", "--xattrs-include=*",  # file capabilities, as ping's
    ]  # fmt: skip
    _let_memory_buffer()
    with Pipeline(["zstd", "--decompress", "--stdout", "--quiet"], extract, stall=_STALL) as pipeline:
        download(source, write=pipeline.write, on_progress=on_progress)
        pipeline.finish()


def _let_memory_buffer() -> None:
    """Have the kernel start writing early and block late, so that the disk and the unpacking work at the same time.

    By default (vm.dirty_ratio) whoever writes is stopped at a fifth of the memory: a quarter of what is unpacked.
    """
    for name, percent in (("dirty_background_ratio", 2), ("dirty_ratio", 60)):
        with contextlib.suppress(OSError):  # slower, but no reason to fail
            Path(f"/proc/sys/vm/{name}").write_text(f"{percent}\n")


def download(source: RootfsSource, *, write: Callable[[bytes], None], on_progress: OnProgress) -> None:
    """Hand the bytes of *source* to *write*, each once and in order, whatever happens to the connection.

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

    for attempt, pause in enumerate(client.pauses()):
        try:
            _read_from(source, offset=taken, take=take)
        except (OSError, http.client.HTTPException, client.HttpError) as error:
            if isinstance(error, client.HttpError) and error.is_final:
                raise
            if attempt == _MAX_RESUMES:
                reason = error.cause if isinstance(error, client.HttpError) else client.describe(error)
                raise InstallError(
                    f"the root filesystem stopped at {taken} of {source.size} bytes, "
                    f"and after {_MAX_RESUMES} resumptions still: {reason}"
                ) from None
            time.sleep(pause)
        else:
            break
    if digest.hexdigest() != source.sha256:
        raise InstallError(
            "the root filesystem is not the one promised",
            lines=(f"expected sha256 {source.sha256}", f"received sha256 {digest.hexdigest()}", f"url {source.url}"),
        )


def _read_from(source: RootfsSource, *, offset: int, take: Callable[[bytes], None]) -> None:
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


def _check_size(response: http.client.HTTPResponse, source: RootfsSource, *, offset: int) -> None:
    if offset:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        start, size = (int(match[1]), int(match[2])) if match else (-1, -1)
    else:
        start, size = 0, response.length if response.length is not None else -1
    if (start, size) != (offset, source.size):
        raise InstallError(
            f"{source.url} offers {size} bytes from {start}, the configuration says {source.size} from {offset}"
        )
