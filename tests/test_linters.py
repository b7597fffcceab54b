"""The linters, as tests: one command and one summary say whether all is well. mkosi does the same."""

from __future__ import annotations

import sys

import pytest

from pipeline.run import run
from pipeline.workspace import REPOSITORY

_PYTHON = [sys.executable, "-P", "-m"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "--quiet", "."], id="ruff-check"),
        pytest.param(["ruff", "format", "--check", "--diff", "--quiet", "."], id="ruff-format"),
        pytest.param(["mypy"], id="mypy"),
        pytest.param(["mypy", "pvmlab"], id="mypy-wrapper"),
    ],
)
def test_linter_has_nothing_to_say(command: list[str]) -> None:
    done = run([*_PYTHON, *command], timeout=600, cwd=REPOSITORY, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}:\n{done.stdout}{done.stderr}", pytrace=False)
