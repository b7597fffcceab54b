"""What a start of the command line imports, seen in an interpreter of its own; how long it takes is a benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipeline.run import run
from pipeline.workspace import REPOSITORY

_SCRIPT = """
import contextlib, io, json, sys
from cli import program
from tasks import namespace
with contextlib.redirect_stdout(io.StringIO()):
    code = program.run(namespace, ["pvmlab", *sys.argv[1:]])
loaded = sorted(sys.modules)
from unittest.mock import Mock
from importlib.metadata import version
import invoke.vendor.yaml as vendored
print(json.dumps({"code": code, "loaded": loaded, "mock": Mock(return_value=3)(), "version": version("invoke"),
                  "yaml": vendored.safe_load("a: 1")}))
"""


def start(folder: Path, *words: str) -> dict[str, object]:
    done = run(
        [sys.executable, "-c", _SCRIPT, *words], timeout=60, cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "PVMLAB_HOME": str(folder / "home")},
    )  # fmt: skip
    said: dict[str, object] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("words", [("--help",), ("vm.list",)])
def test_what_invoke_does_not_need_here_is_not_imported_and_comes_when_it_is_wanted(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    said = start(tmp_path, *words)
    loaded = said["loaded"]
    assert isinstance(loaded, list)
    left_out = {"unittest.mock", "asyncio", "importlib.metadata", "invoke.vendor.yaml", "rich", "jinja2",
                "requests", "docker", "doit", "yaml", "difflib"}  # fmt: skip
    assert not left_out & set(loaded)
    assert (said["code"], said["mock"], said["yaml"]) == (0, 3, {"a": 1})
    assert str(said["version"])[0].isdigit()


def test_help_reads_no_lab(tmp_path: Path) -> None:
    loaded = start(tmp_path, "--help")["loaded"]
    assert isinstance(loaded, list)
    assert not [name for name in loaded if name.startswith(("lab.", "pipeline.recipes", "distros"))]
    assert not (tmp_path / "home").exists()
