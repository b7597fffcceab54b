"""The way in: from whatever Python runs ./pvmlab to the command line in its own environment, ``.venv``.

Runs before that environment exists, so it uses the standard library only; and at every start, so it imports only
``os`` and ``sys``: ``pathlib`` and ``hashlib`` alone would cost as much as all the rest of it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's, whose import is spared
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

REPOSITORY = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
STAMP = "pvmlab-stamp"  # inside the environment, written when all the rest is there


def become_command_line(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the command line, run by the environment's Python."""
    try:
        python = ensure_venv()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the last door: whatever it is becomes one message)
        from cli.failures import describe

        failure = describe(error)
        sys.stderr.write(failure.text)
        sys.exit(failure.code)
    clean_environment()
    # -P: the directory one happens to stand in is not searched for modules
    os.execv(python, [python, "-P", "-m", "cli", *arguments])  # noqa: S606


def go_the_long_way(arguments: Sequence[str]) -> NoReturn:
    """Replace this process, which the environment's Python runs, by one that may make that environment anew."""
    words = ["/usr/bin/env", "python3", os.path.join(REPOSITORY, "pvmlab"), *arguments]
    os.execv(words[0], words)  # noqa: S606


def clean_environment() -> None:
    """Have Pythons that we start find our modules, and nothing of the caller's settings."""
    for name in list(os.environ):
        if name.startswith("PYTHON") or name == "VIRTUAL_ENV":
            del os.environ[name]
    os.environ["PYTHONPATH"] = REPOSITORY


def ensure_venv() -> str:
    """Return the Python of the repository's environment, which is made if it is missing or not up to date.

    :raises PvmlabError: if it cannot be made.
    """
    lock, venv = os.path.join(REPOSITORY, "requirements.lock"), os.path.join(REPOSITORY, ".venv")
    if not is_current(venv, lock):
        from pathlib import Path

        from cli.environment import make

        make(Path(venv), Path(lock))
    return os.path.join(venv, "bin", "python")


def is_current(venv: str | os.PathLike[str], lock: str | os.PathLike[str]) -> bool:
    """Tell whether the environment was made, to its end, here, from this lock, by the Python it still points to."""
    try:
        with open(os.path.join(venv, STAMP), encoding="utf-8") as said:
            return said.read() == stamp(venv, lock)
    except (OSError, ValueError):  # not there, another user's, or damaged: whoever makes it anew says what is wrong
        return False


def stamp(venv: str | os.PathLike[str], lock: str | os.PathLike[str]) -> str:
    """Return what a finished environment's stamp says: where it is, whose it is, and the whole lock.

    :raises FileNotFoundError: if its Python leads nowhere, as after an upgrade of the system's.
    """
    python = os.path.realpath(os.path.join(venv, "bin", "python"), strict=True)
    with open(lock, encoding="utf-8") as text:
        return f"{python}\n{os.fspath(venv)}\n{text.read()}"
