"""The provisioner's script that has an unhealthy container started anew; Docker and systemd only answer here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.run import spawn
from pxeboot_stack import provisioner
from tests.fakes.web_client import end, wait_for

SCRIPT = provisioner.FILES / "usr/local/lib/pvmlab/watch-health"


@pytest.fixture
def says(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """The running script, and what makes Docker say something else."""
    for name, text in (
        ("docker", f"echo look >> {tmp_path}/looks\ncat {tmp_path}/health"),
        ("systemctl", f'echo "$@" >> {tmp_path}/restarts'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def say(health: str) -> None:
        (tmp_path / "health.new").write_text(f"{health}\n")
        (tmp_path / "health.new").replace(tmp_path / "health")

    say("healthy")
    process = spawn(["sh", SCRIPT], env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HEALTH_PAUSE": "0.05"})
    yield say
    end(process)


def count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_unhealthy_twice_is_started_anew(says: Callable[[str], None], tmp_path: Path) -> None:
    wait_for("three looks", lambda: count(tmp_path / "looks") >= 3)
    assert not (tmp_path / "restarts").exists()
    says("unhealthy")
    wait_for("a restart", (tmp_path / "restarts").exists)
    assert (tmp_path / "restarts").read_text().splitlines()[0] == "restart --no-block pxeboot_stack.service"


@pytest.mark.parametrize("health", ["starting", "", "healthy"])
def test_anything_else_is_let_be(says: Callable[[str], None], tmp_path: Path, health: str) -> None:
    says(health)
    wait_for("six looks", lambda: count(tmp_path / "looks") >= 6)
    assert not (tmp_path / "restarts").exists()
