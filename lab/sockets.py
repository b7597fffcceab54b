"""Where sockets go: AF_UNIX holds paths of at most 107 bytes (103 on macOS), a lab's home may be longer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
from pathlib import Path

from pipeline.errors import ConflictError

LONGEST = 103
_TEMPORARY = Path("/tmp")  # noqa: S108 (checked below; $TMPDIR may be long, $XDG_RUNTIME_DIR differs between sessions)


def socket_path(folder: Path, name: str) -> Path:
    """Return the path for the socket *name* of *folder*: there, or in a private folder of ours if that is too long.

    The same arguments always give the same path. *name* ends in a suffix, such as ``.qmp``, which is kept.

    :raises ConflictError: if the private folder belongs to somebody else.
    """
    wanted = folder / name
    if len(os.fsencode(wanted)) <= LONGEST:
        return wanted
    digest = hashlib.sha256(os.fsencode(folder / wanted.stem)).hexdigest()[:24]
    return _private_folder() / f"{digest}{wanted.suffix}"


def ensure_private(folder: Path) -> Path:
    """Make *folder* (and its parents) if missing, and let nobody else look into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def listens(path: Path) -> bool:
    """Say whether somebody listens on the socket at *path*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) == 0


def _private_folder() -> Path:
    folder = _TEMPORARY / f"pvmlab-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()  # others may write to its parent: it must be a real folder, ours, closed to them
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConflictError(
            f"{folder} is not a private folder of yours",
            details="sockets go there because the path of the lab's home is too long for them",
            resolution=f"remove {folder}, or set PVMLAB_HOME to a shorter path",
        )
    return folder
