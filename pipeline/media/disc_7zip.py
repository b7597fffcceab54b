"""A disc by 7-Zip, a program: for UDF, which neither pycdlib (without ISO 9660 beside it) nor libarchive reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from pipeline.errors import CommandError, PrerequisiteError
from pipeline.media.disc_tree import DiscFile, DiscTree, UnreadableError
from pipeline.media.names import UnsafeNameError, safe_path
from pipeline.run import find_program, run

_PROGRAMS = ("7zz", "7z")  # of the packages 7zip and p7zip-full
_LIST_TIMEOUT = 120.0  # seconds
_EXTRACT_TIMEOUT = 3600.0
_FIELD = re.compile(r"(Path|Folder|Size|Symbolic Link) = (.*)")


def require_7zip() -> str:
    """Return the name of 7-Zip's program.

    :raises PrerequisiteError: if it is not installed.
    """
    for name in _PROGRAMS:
        if find_program(name):
            return name
    raise PrerequisiteError(
        "7-Zip is not installed, and this disc can be read with nothing else",
        details="its file system is UDF, or ISO 9660 in a way that pycdlib and libarchive refuse",
        resolution="./pvmlab setup installs it (the package 7zip)",
    )


def read_tree(path: Path, *, is_udf: bool) -> DiscTree:
    """Return the tree of the disc *path*: of its UDF, or of its ISO 9660.

    :raises UnreadableError: if 7-Zip refuses it. :raises PrerequisiteError: if it is not installed.
    """
    argv: list[str | Path] = [require_7zip(), "l", "-slt", "-ba", _format(is_udf=is_udf), "--", path]
    try:
        listing = run(argv, timeout=_LIST_TIMEOUT).stdout
    except CommandError as error:
        raise UnreadableError(f"7-Zip: {' '.join(error.tail[-3:]) or error.brief}") from None
    return parse_listing(listing)


def parse_listing(listing: str) -> DiscTree:
    """Return the tree in what ``7zz l -slt -ba`` prints: a block of fields for each name, empty lines between."""
    tree = DiscTree()
    for block in listing.split("\n\n"):
        fields = {match[1]: match[2] for line in block.splitlines() if (match := _FIELD.fullmatch(line))}
        try:
            path = safe_path(fields.get("Path", "").encode())
        except UnsafeNameError:
            continue
        if not path or path.startswith("[BOOT]/") or fields.get("Folder") != "-":
            continue
        if target := fields.get("Symbolic Link"):
            tree.add_link(path, target.encode())
        elif (size := fields.get("Size", "")).isdecimal():
            tree.add_file(path, DiscFile(size=int(size)))
    return tree


def write_content(path: Path, name: str, output: IO[bytes], *, is_udf: bool) -> None:
    """Write the file *name* of the disc *path* to *output*, as it comes.

    :raises UnreadableError: if 7-Zip fails.
    """
    # -spd: no wildcards; -so: to standard output, nothing else is written
    argv: list[str | Path] = [require_7zip(), "e", "-so", "-spd", "-y", "-bd", _format(is_udf=is_udf), "--", path, name]
    try:
        run(argv, timeout=_EXTRACT_TIMEOUT, stdout=output)
    except CommandError as error:
        raise UnreadableError(f"7-Zip: {' '.join(error.tail[-3:]) or error.brief}") from None


def _format(*, is_udf: bool) -> str:
    return "-tudf" if is_udf else "-tiso"
