"""``lab.up`` of machines with nothing on their disks: what fails, what is left out, what an interrupt leaves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ExitCode
from pipeline.run import minimal_environment, run, spawn
from pipeline.workspace import REPOSITORY
from tests.e2e.command_line import CommandLine, qemu_processes

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]
_LAB = """\
version: 1
provisioner: {mode: host}
machines:
  empty1: {disk: empty.raw, disk-size: 2G, memory: 512M}
  needs-it: {disk: empty.raw, after: {empty1: ssh}}
  second: {disk: empty.raw, after: {needs-it: started}}
"""


@pytest.fixture
def lab_file(tmp_path: Path) -> Path:
    """A lab.yaml whose machines have a partition table on their disks, and nothing else."""
    disk = tmp_path / "empty.raw"
    with disk.open("wb") as stream:
        stream.truncate(64 << 20)
    run(["sfdisk", "--quiet", disk], input="label: gpt\nsize=8MiB, type=linux\n", timeout=60)
    (tmp_path / "lab.yaml").write_text(_LAB)
    return tmp_path / "lab.yaml"


@pytest.fixture
def lab(tmp_path: Path, artifacts: object) -> Iterator[CommandLine]:
    command = CommandLine(tmp_path / "home")
    command.home.mkdir()
    done = command("provisioner.create", "--mode=host", check=False)
    if done.returncode == ExitCode.PREREQUISITE:
        pytest.skip(done.stderr)
    try:
        yield command
    finally:
        command("clean", "--yes", check=False)
        assert qemu_processes(command.home) == {}


def test_a_failure_says_why_and_what_it_held_up(lab: CommandLine, lab_file: Path) -> None:
    done = lab("lab.up", str(lab_file), "--timeout", "4", check=False)
    assert done.returncode == ExitCode.TIMEOUT
    assert "3 of 3 machines did not come up" in done.stderr
    assert "empty1: failed: empty1 did not answer by SSH at 192.168.100.2" in done.stderr
    assert "needs-it: skipped: it waits for empty1 (ssh), which failed" in done.stderr
    assert "second: skipped: it waits for needs-it (started), which was skipped" in done.stderr
    words = [" ".join(words) for words in qemu_processes(lab.home).values()]
    assert any("pvmlab-empty1" in line for line in words)  # people want to look
    assert not any("pvmlab-needs-it" in line for line in words)


def test_an_interrupt_stops_what_was_started(lab: CommandLine, lab_file: Path) -> None:
    cache = os.environ.get("PVMLAB_CACHE", "")
    environment = minimal_environment({"PVMLAB_HOME": str(lab.home), "PVMLAB_CACHE": cache}, network=True)
    process = spawn([REPOSITORY / "pvmlab", "lab.up", lab_file, "--timeout", "60"], env=environment, network=True)
    deadline = time.monotonic() + 60
    while not any("pvmlab-empty1" in " ".join(words) for words in qemu_processes(lab.home).values()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == ExitCode.INTERRUPTED
    assert qemu_processes(lab.home) == {}
