"""The files on a disc by their names, whichever reader found them."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Mapping

from pipeline.media.names import UnsafeNameError, safe_path, safe_target

_MOST_LINKS = 40  # as Linux follows in one path
_MOST_NAMES = 1_000_000
_NEAR = 5


class UnreadableError(Exception):
    """A reader cannot make sense of a disc, another may; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of a disc."""

    start: int
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DiscFile:
    """A file on a disc.

    :ivar extents: where its bytes are, in order; None if the reader does not tell.
    :ivar same_as: the path of another file that has its bytes, for readers that give them once.
    """

    size: int
    extents: tuple[Extent, ...] | None = None
    same_as: str | None = None


class DiscTree:
    """The files and symbolic links of a disc. Directories are known by what is in them.

    A name that is not safe (``..``, a slash in it, not UTF-8) is left out: nobody can ask for it.
    """

    def __init__(self) -> None:
        self.files: dict[str, DiscFile] = {}
        self._links: dict[str, str] = {}

    def add_file(self, path: str, file: DiscFile) -> None:
        """Add a file; of several with one name the first counts.

        :raises UnreadableError: if there are too many names.
        """
        if len(self.files) + len(self._links) >= _MOST_NAMES:
            raise UnreadableError(f"there are more than {_MOST_NAMES} names on it")
        if path not in self._links:
            self.files.setdefault(path, file)

    def add_link(self, path: str, target: bytes) -> None:
        """Add a symbolic link; one whose target is not safe to print is left out.

        :raises UnreadableError: if there are too many names.
        """
        if len(self.files) + len(self._links) >= _MOST_NAMES:
            raise UnreadableError(f"there are more than {_MOST_NAMES} names on it")
        if path not in self.files:
            try:
                self._links.setdefault(path, safe_target(target))
            except UnsafeNameError:
                return

    def find(self, name: str) -> str | None:
        """Return the path of the file that *name* means, symbolic links followed within the disc, or None.

        A link out of the disc (``..`` above its root, an absolute path) or in a circle leads nowhere.
        """
        todo, done, followed = name.split("/")[::-1], list[str](), 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not done:
                    return None
                done.pop()
                continue
            done.append(part)
            target = self._links.get("/".join(done))
            if target is not None:
                followed += 1
                if target.startswith("/") or followed > _MOST_LINKS:
                    return None
                done.pop()
                todo += target.split("/")[::-1]
        path = "/".join(done)
        return path if path in self.files else None

    def near(self, name: str) -> list[str]:
        """Return paths that may be meant by *name*, the likeliest first: of the same file name, then alike."""
        last = name.rpartition("/")[2].lower()
        same = (path for path in self.files if path.rpartition("/")[2].lower() == last)
        alike = difflib.get_close_matches(name, itertools.islice(self.files, 5000), n=_NEAR, cutoff=0.6)
        return list(dict.fromkeys([*itertools.islice(same, _NEAR), *alike]))[:_NEAR]


def sizes(files: Mapping[str, DiscFile]) -> dict[str, int]:
    """Return the size of each file in bytes, sorted by path."""
    return {path: files[path].size for path in sorted(files)}


def child_path(folder: str, raw: bytes) -> str | None:
    """Return the path of the entry *raw* in *folder*, or None if that is not a safe name of one entry."""
    if b"/" in raw:
        return None
    try:
        name = safe_path(raw)
    except UnsafeNameError:
        return None
    return (f"{folder}/{name}" if folder else name) if name else None
