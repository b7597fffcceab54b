"""The digest of what an initrd unpacks to, made from the archive when it is built and from the tree when it runs.

No kernel of Debian 12 keeps the bytes of its initrds, and none checks gzip's checksum when it unpacks them. So the
installer looks at the result: each file's type, permissions, owner, and the SHA-256 of its content. A tree digest is
the SHA-256 of the sorted lines of all of them; a file more or less, or a changed byte in one, is another digest.

Two archives make one tree: the modules are all below :data:`MODULES`, the installer's initrd is everything else.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

MODULES = "usr/lib/modules"
"""Below this is the modules' archive, and nothing of the other."""
LEFT_OUT = frozenset({"dev", "etc/resolv.conf", "proc", "root", "run", "sys", "target"})
"""What is mounted or written before the installer looks, and what the kernel's own built-in archive makes."""
_CHUNK = 1 << 20  # bytes


def digest_lines(lines: Iterable[bytes]) -> str:
    """Return the digest, in hex, of a tree that has *lines*, in any order."""
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def line_of(path: str, mode: int, content: str, *, owner: tuple[int, int] = (0, 0)) -> bytes:
    """Return the line of one file, which says all that counts of it.

    :param path: relative, with forward slashes. :param mode: as ``st_mode``; of a link, no permissions count.
    :param content: SHA-256 of a regular file, target of a link, empty for anything else.
    """
    bits = stat.S_IFMT(mode) if stat.S_ISLNK(mode) else mode
    # a zero byte is in no path and no target, so no two different files have the same line
    return f"{path}\0{bits:o} {owner[0]} {owner[1]}\0{content}\n".encode(errors="surrogateescape")


def counts(path: str) -> bool:
    """Tell whether the file at *path* is part of the digest."""
    parts = path.split("/")
    return not any("/".join(parts[:end]) in LEFT_OUT for end in range(1, len(parts) + 1))


def is_of_modules(path: str) -> bool:
    """Tell whether the file at *path* comes from the modules' archive."""
    return path.startswith(f"{MODULES}/")


def measure_tree(root: Path) -> tuple[str, str]:
    """Return the digests of the tree at *root*: of the installer's initrd, and of the modules.

    :raises OSError: if a file cannot be read.
    """
    ours: list[bytes] = []
    modules: list[bytes] = []
    for path, line in _walk(root, ""):
        (modules if is_of_modules(path) else ours).append(line)
    return digest_lines(ours), digest_lines(modules)


def _walk(root: Path, folder: str) -> Iterator[tuple[str, bytes]]:
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            # The modules' folder itself comes with them; a machine without modules' archive has none.
            if counts(path):
                found = entry.stat(follow_symlinks=False)
                if path != MODULES:
                    content = _content(Path(entry.path), found.st_mode)
                    yield path, line_of(path, found.st_mode, content, owner=(found.st_uid, found.st_gid))
                if stat.S_ISDIR(found.st_mode):
                    yield from _walk(root, path)


def _content(path: Path, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return str(path.readlink())
    if not stat.S_ISREG(mode):
        return ""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
