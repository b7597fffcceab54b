"""The one way to publish a file: written beside its name, flushed to the disk, renamed, the folder flushed.

A reader sees the old file or the new one, whole; a crash at any point leaves at most a ``.partial`` file, which
:func:`sweep` removes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

_SUFFIX = ".partial"


@contextlib.contextmanager
def publish(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside *path*; when the block ends without an error, it becomes *path*.

    The folder is made if missing. On an error the temporary file is removed and *path* is what it was.

    :param mode: permission bits of the published file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{_SUFFIX}")
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


def sweep(folder: Path) -> list[Path]:
    """Remove the temporary files that killed processes left in *folder*; return them.

    A file whose writer still lives is left alone.
    """
    swept = []
    for stale in sorted(folder.glob(f".*{_SUFFIX}")):
        writer = stale.name.removesuffix(_SUFFIX).rsplit(".", 2)[-2]
        if writer.isdigit() and not Path(f"/proc/{writer}").exists():
            stale.unlink(missing_ok=True)
            swept.append(stale)
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


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
