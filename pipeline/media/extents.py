"""Runs of bytes of one file copied to others by the kernel: as fast as ``cp``, and as sparse as they were."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from pipeline.media.disc_tree import Extent

_CHUNK = 64 << 20  # bytes between two reports
_BUFFER = 1 << 20
# Not between these file systems, not on this kernel, or forbidden by a sandbox: then by reading and writing.
_UNABLE = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF}


class ShortFileError(Exception):
    """The file ended before the run of bytes did."""


def copy_extents(source: int, output: int, extents: tuple[Extent, ...], *, tell: Callable[[int], None]) -> int:
    """Write the bytes in *extents* of *source*, one after the other, to the empty file *output*; return how many.

    Holes stay holes. :param tell: is called with the number of bytes done, each time.

    :raises ShortFileError: if *source* is shorter. :raises OSError: if it cannot be read, or *output* written.
    """
    place = 0
    for extent in extents:
        for start, size in _data_runs(source, extent):
            _copy(source, start, output, place + start - extent.start, size=size, tell=tell)
        place += extent.size
    os.ftruncate(output, place)  # a hole at the end
    return place


def _data_runs(source: int, extent: Extent) -> Iterator[tuple[int, int]]:
    """Yield where in *extent* there is data, as start and size, in chunks; the rest are holes, which read as zeros."""
    place, end = extent.start, extent.start + extent.size
    if end > os.fstat(source).st_size:
        raise ShortFileError
    while place < end:
        try:
            place = os.lseek(source, place, os.SEEK_DATA)
            stop = min(os.lseek(source, place, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end of the file
                return
            stop = end  # this file system does not tell
        while place < stop:
            size = min(_CHUNK, stop - place)
            yield place, size
            place += size


def _copy(source: int, start: int, output: int, place: int, *, size: int, tell: Callable[[int], None]) -> None:
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(source, output, size - done, start + done, place + done)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            count = _copy_by_hand(source, start + done, output, place + done, size=size - done)
        if not count:
            raise ShortFileError
        done += count
        tell(count)


def _copy_by_hand(source: int, start: int, output: int, place: int, *, size: int) -> int:
    data = os.pread(source, min(size, _BUFFER), start)
    return os.pwrite(output, data, place) if data else 0
