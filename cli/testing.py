"""``./pvmlab test`` and ``lint``: pytest runs everything, the linters too (tests/test_linters.py)."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from cli.setup import setup
from pipeline.run import replace
from pipeline.workspace import REPOSITORY


def run_tests(*, fast: bool = False, nightly: bool = False, expression: str = "") -> NoReturn:
    """Become pytest, after installing what the tests need.

    :param fast: leave out what starts machines or needs artifacts.
    :param nightly: do not leave out the long repetitions.
    :param expression: pytest's ``-k``: only tests whose names match.
    """
    setup(for_tests=True)
    left_out = [*(["vm", "artifacts"] if fast else []), *([] if nightly else ["nightly"])]
    markers = ["-m", " and ".join(f"not {marker}" for marker in left_out)]
    _become_pytest([*markers, *(["-k", expression] if expression else [])])


def lint() -> NoReturn:
    """Become pytest, running the linters only."""
    _become_pytest(["tests/test_linters.py"])


def _become_pytest(arguments: list[str]) -> NoReturn:
    os.chdir(REPOSITORY)  # pytest finds its configuration there
    sys.stdout.flush()
    replace([sys.executable, "-P", "-m", "pytest", *arguments])
