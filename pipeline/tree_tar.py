"""Tars of repository files and generated text, owned by root: layers to lay over a root filesystem."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import Self


class TreeTar:
    """Writes a reproducible tar: sorted by the caller, owner 0:0, times 0, modes 0644 or 0755.

    Use as a context manager. Missing parent directories are added before their first member.
    """

    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (closed by __exit__)
        self._directories = {PurePosixPath()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def directory(self, name: str, *, mode: int = 0o755) -> None:
        """Add a directory and its missing parents."""
        path = PurePosixPath(name)
        if path in self._directories:
            return
        self._parents(path)
        member = tarfile.TarInfo(f"{path}/")
        member.type, member.mode = tarfile.DIRTYPE, mode
        self._archive.addfile(member)
        self._directories.add(path)

    def file(self, name: str, data: bytes, *, mode: int = 0o644) -> None:
        """Add a file."""
        self._parents(PurePosixPath(name))
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), mode
        self._archive.addfile(member, io.BytesIO(data))

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link to *target*."""
        self._parents(PurePosixPath(name))
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
        self._archive.addfile(member)

    def tree(self, folder: Path, prefix: str) -> None:
        """Add all files below *folder* under *prefix*, without bytecode; executable files keep that bit."""
        for path in sorted(folder.rglob("*")):
            name = (PurePosixPath(prefix) / path.relative_to(folder).as_posix()).as_posix()
            if path.suffix == ".pyc" or "__pycache__" in path.parts:
                continue
            if path.is_symlink():
                self.symlink(name, str(path.readlink()))
            elif path.is_file():
                self.file(name, path.read_bytes(), mode=0o755 if os.access(path, os.X_OK) else 0o644)

    def _parents(self, path: PurePosixPath) -> None:
        for parent in reversed(path.parents):
            if parent not in self._directories:
                self.directory(str(parent))
