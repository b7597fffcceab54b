"""SHA-256 of files and folders, the identity of everything a build reads and writes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the file's content, in hex.

    :raises OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bytes_digest(data: bytes) -> str:
    """Return the SHA-256 of *data*, in hex."""
    return hashlib.sha256(data).hexdigest()


def json_digest(data: Any) -> str:
    """Return the SHA-256 of JSON data in its canonical text: sorted keys, no spaces, ASCII."""
    return bytes_digest(json.dumps(data, sort_keys=True, separators=(",", ":")).encode())


def tree_digest(folder: Path) -> str:
    """Return the SHA-256 over all files below *folder*: their names, executable bits and contents. No bytecode.

    :raises FileNotFoundError: if there is no file in it.
    """
    total = hashlib.sha256()
    for file in _files(folder):
        executable = os.access(file, os.X_OK)
        total.update(f"{file.relative_to(folder).as_posix()}\0{executable}\0{file_digest(file)}\n".encode())
    return total.hexdigest()


@functools.cache
def source_digest(path: Path) -> str:
    """Return the digest of a file or folder of the repository.

    Computed once per process: sources do not change under a running build that is to be trusted.

    :raises FileNotFoundError: if it does not exist.
    """
    return file_digest(path) if path.is_file() else tree_digest(path)


def _files(folder: Path) -> Sequence[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    )
    if not files:
        raise FileNotFoundError(folder)
    return files
