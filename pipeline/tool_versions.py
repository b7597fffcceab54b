"""Versions of the programs and libraries that decide what an artifact's bytes are."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PvmlabError
from pipeline.run import find_program, run
from pipeline.state import State, stamp_of

_TIMEOUT = 60.0
_VERSION_ARGUMENTS = {"mke2fs": ["-V"], "debugfs": ["-V"]}  # all others: --version
_VERSION = re.compile(r"(?<![\d.])\d+(?:\.\d+)+[\w.+~-]*")
_DISTRIBUTION = "py:"


def tool_version(tool: str, state: State) -> str | None:
    """Return the version of *tool*, or None if this host does not have it, or it does not tell.

    :param tool: a program's name (``mke2fs``), or ``py:NAME`` for a Python distribution, or ``zlib``, the library that
        Python's own gzip is made with.
    :param state: remembers what programs said, so that each is asked once.
    """
    if tool == "zlib":
        return zlib.ZLIB_RUNTIME_VERSION
    if tool.startswith(_DISTRIBUTION):
        return _distribution_version(tool.removeprefix(_DISTRIBUTION))
    program = find_program(tool)
    if program is None:
        return None
    stamp = stamp_of(Path(program))
    if (known := state.get("tool", program, stamp)) is not None:
        return known
    try:
        version = ask_version(tool)
    except PvmlabError:  # whatever is wrong with it, the recipe that runs it will say
        return None
    state.put("tool", program, version, stamp)
    return version


def ask_version(program: str) -> str:
    """Run *program* to learn its version.

    :raises PvmlabError: if it does not tell.
    """
    done = run([program, *_VERSION_ARGUMENTS.get(program, ["--version"])], timeout=_TIMEOUT)
    for line in _lines(done.stdout, done.stderr):
        if match := _VERSION.search(line):
            return match[0]
    raise PvmlabError(f"{program} does not tell its version", details=done.stdout.strip(), resolution="./pvmlab doctor")


@functools.cache
def _distribution_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lines(*texts: str) -> Sequence[str]:
    return [line for text in texts for line in text.splitlines()]
