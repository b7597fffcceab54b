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
    temporary = path.with_name(f".{path.name}.partial")
    try:
        # The mode is given here, not changed later: on the host's directories, files belong to the person who runs the
        # lab, and the container's root has not the capability to change other people's files.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123 (a descriptor, not a path)
            stream.write(text)
            stream.flush()
            if flush:
                os.fsync(stream.fileno())
        temporary.replace(path)
        if flush:
            _flush_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def flush_file(path: Path) -> None:
    """Wait until a file that was published without a flush is on the disk, with its name; nothing if it is gone.

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
    _flush_directory(path.parent)


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
