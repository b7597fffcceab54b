"""Builds of the chain of toys (chain_dodo.py): started, looked at, compared."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.run import PIPE, spawn
from pipeline.state import state_of
from pipeline.workspace import REPOSITORY

_TIMEOUT = 60.0


class Nursery:
    """Starts builds of the toy graph in forked processes, which is ten times as fast as starting interpreters."""

    def __init__(self, cache: Path, salt: str = "") -> None:
        self.cache = cache
        environment = {"TOY_CACHE": str(cache), "TOY_SALT": salt, "PYTHONPATH": str(REPOSITORY)}
        self.log = cache.with_name(f"{cache.name}.log")
        with self.log.open("ab") as log:
            self._process = spawn(
                [sys.executable, "-m", "tests.fakes.chain_dodo"],
                stdin=PIPE, stdout=PIPE, stderr=log, env=environment, cwd=REPOSITORY,
            )  # fmt: skip

    def start(self, jobs: int = 1) -> int:
        """Start a build; return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{jobs}\n".encode())
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Return how the build ended: its exit status, or minus the signal."""
        return int(self._line())

    def close(self) -> None:
        """End the nursery."""
        self._process.communicate(timeout=_TIMEOUT)

    def _line(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline().decode().strip():
            if line.lstrip("-").isdigit():  # else it is what the build says
                return line
        raise AssertionError(self.log.read_text())


def toy(cache: Path, salt: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the toy graph of *cache* as seen by this process."""
    monkeypatch.setenv("TOY_CACHE", str(cache))
    monkeypatch.setenv("TOY_SALT", salt)
    import tests.fakes.chain_dodo as module

    return importlib.reload(module)


def digests(cache: Path) -> dict[str, str]:
    """Return the digest of each file that a build leaves, but for logs and the state."""
    return {
        path.relative_to(cache).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and path.parent.name != "logs" and not path.name.startswith((".state", ".lock", ".children"))
    }


def built(graph: ModuleType) -> set[str]:
    """Return the artifacts that count as up to date, looked at with fresh eyes."""
    state_of.cache_clear()
    return {name for name, artifact in graph.GRAPH.artifacts.items() if artifact.reason() is None}


def reference_digests(tmp_path: Path) -> dict[str, str]:
    """Return what a build that nobody disturbs makes."""
    undisturbed = Nursery(tmp_path / "reference")
    undisturbed.start()
    assert undisturbed.wait() == 0, undisturbed.log.read_text()
    undisturbed.close()
    return digests(tmp_path / "reference")
