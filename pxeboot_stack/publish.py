"""Publish a file whole: written beside its name, flushed to the disk, renamed, the directory flushed.

The container's counterpart of ``pipeline.commit``, which does not ship into it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def publish_text(path: Path, text: str, *, mode: int = 0o644, flush: bool = True) -> None:
    """Make *text* the content of *path*: a reader sees the old file or the new one, also after a crash.

    There must be one writer per file: the temporary name is fixed, so that a killed writer leaves at most one.

    :param flush: False does not wait for the disk: whole for every reader also then, but not after a power failure.
    :raises OSError: if it cannot be written; *path* is then what it was.
    """
    temporary = f"{path.parent}/.{path.name}.partial"
    try:
        # The mode is given here, not changed later: on the host's directories, files belong to the person who runs the
        # lab, and the container's root has not the capability to change other people's files.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            write_all(descriptor, text.encode())
            if flush:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 (each is done thousands of times in a storm of machines)
        if flush:
            flush_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of *data*: one call may take less than it was given, as the last one before a disk is full.

    :raises OSError: if it cannot be written; some of it may have been.
    """
    while data:
        data = data[os.write(descriptor, data) :]


def flush_file(path: Path) -> None:
    """Wait until what is in a file that was published without a flush is on the disk; nothing if it is gone.

    Its name is there after a :func:`flush_directory`.

    :raises OSError: if it cannot be flushed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_directory(path: Path) -> None:
    """Wait until the names in the directory *path* are on the disk.

    :raises OSError: if it cannot be flushed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
