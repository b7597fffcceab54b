"""The one way to publish a file: written beside its name, flushed to the disk, renamed, the folder flushed.

A reader sees the old file or the new one, whole; a crash at any point leaves at most a ``.partial`` file, which
:func:`sweep` removes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIX = ".partial"  # of a file that is not published yet


@contextlib.contextmanager
def publish(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside *path*; when the block ends without an error, it becomes *path*.

    The folder is made if missing. On an error the temporary file is removed and *path* is what it was.

    :param mode: permission bits of the published file.
    """
    _make_folders(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{SUFFIX}")
    try:
        # Made here with its final mode: a secret is never readable by others, not even for a moment.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        yield temporary
        temporary.chmod(mode)
        _fsync(temporary, os.O_RDONLY)
        temporary.replace(path)
        _fsync(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        temporary.unlink(missing_ok=True)


def publish_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Publish *data* at *path*."""
    with publish(path, mode=mode) as temporary:
        temporary.write_bytes(data)


def publish_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Publish *text* at *path*, as UTF-8."""
    publish_bytes(path, text.encode(), mode=mode)


def give_second_name(source: Path, temporary: Path) -> None:
    """Have *temporary*, as :func:`publish` yields it, be another name of *source*; a copy where links cannot be had.

    Then the bytes are there once. Nobody may write into either of them afterwards.
    """
    temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)


def sweep(folder: Path) -> list[Path]:
    """Remove the temporary files that killed processes left in *folder*; return them.

    Call it while nobody publishes there. Who wrote them is no help: numbers of processes begin anew after a crash.
    """
    swept = sorted(folder.glob(f".*{SUFFIX}"))
    for stale in swept:
        stale.unlink(missing_ok=True)
    return swept


def set_aside(path: Path, *, companions: Sequence[str] = ()) -> Path:
    """Rename the damaged file *path* to ``<name>.damaged`` in its folder; return that. An older one is replaced.

    :param companions: suffixes of files that go with it, if they are there.
    :raises OSError: if it cannot be renamed.
    """
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in ("", *companions):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(aside.with_name(aside.name + suffix))
    return aside


def _make_folders(folder: Path) -> None:
    """Make *folder* and those above it that are missing; a folder is there after a crash once its parent is flushed."""
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        _fsync(folder.parent, os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
