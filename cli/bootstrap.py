"""The way in: from whatever Python runs ./pvmlab to the command line in its own environment, ``.venv``.

Runs before that environment exists, so it uses the standard library only; and at every start, so it imports little.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
STAMP = "pvmlab-stamp"  # inside the environment, written when all the rest is there


def become_command_line(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the command line, run by the environment's Python."""
    try:
        python = ensure_venv(REPOSITORY)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the last door: whatever it is becomes one message)
        from cli.failures import describe

        failure = describe(error)
        sys.stderr.write(failure.text)
        sys.exit(failure.code)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment.pop("VIRTUAL_ENV", None)
    environment["PYTHONPATH"] = str(REPOSITORY)
    # -P: the directory one happens to stand in is not searched for modules
    os.execve(python, [str(python), "-P", "-m", "cli", *arguments], environment)  # noqa: S606


def ensure_venv(repository: Path) -> Path:
    """Return the Python of the repository's environment, which is made if it is missing or not up to date.

    :raises PvmlabError: if it cannot be made.
    """
    lock, venv = repository / "requirements.lock", repository / ".venv"
    if not is_current(venv, lock):
        from cli.environment import make

        make(venv, lock)
    return venv / "bin" / "python"


def is_current(venv: Path, lock: Path) -> bool:
    """Tell whether the environment was made, to its end, here, from this lock, by the Python it still points to."""
    try:
        return (venv / STAMP).read_text() == stamp(venv, lock)
    except FileNotFoundError:
        return False


def stamp(venv: Path, lock: Path) -> str:
    """Return what a finished environment's stamp says."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    # strict: after an upgrade of the system's Python the link may lead nowhere
    return f"{digest}\n{(venv / 'bin' / 'python').resolve(strict=True)}\n{venv}\n"
