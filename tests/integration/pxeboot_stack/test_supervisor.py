"""The container's first process, with services that behave badly."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.run import Popen, spawn
from pipeline.workspace import REPOSITORY

PROGRAM = """
import json, logging, os, sys, time
from pxeboot_stack.supervisor import Supervisor
logging.basicConfig(level=logging.INFO, format="%(message)s")
def fail(): raise RuntimeError("no way")
def wait(): print("function in group", os.getpgid(0) == os.getpid(), flush=True); time.sleep(60)
functions = {"fail": fail, "wait": wait}
Supervisor({name: functions.get(str(service), service) for name, service in json.loads(sys.argv[1]).items()}).run()
"""
STUBBORN = "trap '' TERM; echo started; while :; do sleep 0.1; done"


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[str], Popen[bytes]]]:
    """Return a function that supervises the services of a JSON text; their output goes to ``log``."""
    running: list[Popen[bytes]] = []

    def start(services: str) -> Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            argv = [sys.executable, "-c", PROGRAM, services]
            running.append(spawn(argv, env={"PYTHONPATH": str(REPOSITORY)}, stdout=log, stderr=log))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def wait_for_lines(path: Path, text: str, count: int = 1) -> list[str]:
    deadline = time.monotonic() + 15
    while True:
        lines = [line for line in path.read_text().splitlines() if text in line]
        if len(lines) >= count:
            return lines
        if time.monotonic() > deadline:
            pytest.fail(f"{count} times {text!r}: not within 15 s, there is {path.read_text()!r}")
        time.sleep(0.05)


def test_what_ends_is_started_again_after_growing_pauses(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path
) -> None:
    supervise('{"broken": ["sh", "-c", "exit 3"], "good": ["sleep", "60"]}')
    lines = wait_for_lines(tmp_path / "log", "broken ended", 3)
    assert lines[:3] == [f"broken ended with status 3; it is started again in {pause:g} s" for pause in (0.5, 1, 2)]
    assert len(wait_for_lines(tmp_path / "log", "good started")) == 1


def test_a_program_that_is_not_there_is_said_and_tried_again(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path
) -> None:
    supervise('{"missing": ["pvmlab-no-such-program"]}')
    assert "No such file" in wait_for_lines(tmp_path / "log", "missing cannot be started", 2)[1]


def test_a_service_that_does_not_end_is_killed_with_its_children(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path
) -> None:
    process = supervise(f'{{"stubborn": ["sh", "-c", "{STUBBORN}"]}}')
    wait_for_lines(tmp_path / "log", "started")
    (line,) = wait_for_lines(tmp_path / "log", "stubborn started as process ")
    wait_for_lines(tmp_path / "log", "started", 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert wait_for_lines(tmp_path / "log", "did not end within 1.5 s: killed")
    assert not Path(f"/proc/{line.split()[-1]}").exists()


def test_children_of_a_service_that_died_are_ended(supervise: Callable[[str], Popen[bytes]], tmp_path: Path) -> None:
    """A worker of nginx that outlived its master would hold the port."""
    supervise('{"master": ["sh", "-c", "sleep 61 & echo child $!; wait"]}')
    child = wait_for_lines(tmp_path / "log", "child ")[0].split()[1]
    master = wait_for_lines(tmp_path / "log", "master started as process ")[0].split()[-1]
    assert Path(f"/proc/{child}").exists()
    os.kill(int(master), signal.SIGKILL)
    wait_for_lines(tmp_path / "log", "master started", 2)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)


def test_functions_are_services_too(supervise: Callable[[str], Popen[bytes]], tmp_path: Path) -> None:
    process = supervise('{"bad": "fail", "good": "wait"}')
    wait_for_lines(tmp_path / "log", "function in group True")
    wait_for_lines(tmp_path / "log", "RuntimeError: no way", 2)
    assert wait_for_lines(tmp_path / "log", "bad ended with status 1; it is started again in 0.5 s")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=3) == 0
    assert "killed" not in (tmp_path / "log").read_text()
