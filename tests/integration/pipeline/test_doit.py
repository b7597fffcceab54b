"""The real ``doit`` on a toy graph: what is built, what is not, and what an end at a bad moment leaves."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pipeline.run import PIPE, Popen, spawn
from pipeline.workspace import REPOSITORY

DODO = REPOSITORY / "tests/fakes/toy_dodo.py"


def start(cache: Path, *arguments: str, seconds: float = 0) -> Popen[bytes]:
    cache.mkdir(exist_ok=True)
    environment = {"TOY_CACHE": str(cache), "TOY_SECONDS": str(seconds), "PYTHONPATH": str(REPOSITORY)}
    return spawn(
        [sys.executable, "-m", "doit", "--file", DODO, *arguments], env=environment, cwd=cache, stdout=PIPE, stderr=PIPE
    )


def build(cache: Path, *arguments: str, seconds: float = 0) -> tuple[int, str]:
    process = start(cache, *arguments, seconds=seconds)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode() + err.decode()


def wait_until_building(cache: Path, name: str) -> None:
    deadline = time.monotonic() + 20
    while not list(cache.glob(f".{name}.*.partial")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sleepers(cache: Path) -> list[int]:
    """Return the processes that recipes of *cache* started: their output is a log there."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if str((folder / "fd/2").readlink()).startswith(str(cache / "logs")):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def assert_nothing_half_made(cache: Path) -> None:
    assert sleepers(cache) == []
    assert not list(cache.glob(".*.partial"))
    assert not list((cache / "tmp").iterdir())


@pytest.mark.parametrize("parallel", [(), ("-n", "2")])
def test_a_second_run_executes_nothing(tmp_path: Path, parallel: tuple[str, ...]) -> None:
    code, text = build(tmp_path / "cache", *parallel)
    assert code == 0
    assert sum("] built " in line for line in text.splitlines()) == 3
    code, text = build(tmp_path / "cache", *parallel)
    assert code == 0
    assert text.strip() == "all 3 artifacts are up to date"


def test_losing_doits_database_rebuilds_nothing(tmp_path: Path) -> None:
    build(tmp_path / "cache")
    (tmp_path / "cache/.doit.db").write_bytes(b"")
    assert build(tmp_path / "cache")[1].strip() == "all 3 artifacts are up to date"


def test_a_damaged_output_is_made_again_with_what_depends_on_it_left_alone(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build(cache)
    (cache / "a").write_text("")
    _, text = build(cache)
    assert "building   toy:a  (a was changed since it was built)" in text
    assert "toy:b" not in text
    assert "toy:c" not in text  # the same bytes came out, so nothing changed for it


@pytest.mark.parametrize("parallel", [(), ("-n", "2")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything_and_the_next_run_carries_on(
    tmp_path: Path, number: signal.Signals, parallel: tuple[str, ...]
) -> None:
    cache = tmp_path / "cache"
    process = start(cache, *parallel, seconds=30)
    wait_until_building(cache, "a")
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err.decode()
    assert "interrupted; what was built stays" in out.decode()
    assert "Traceback" not in err.decode()
    assert_nothing_half_made(cache)
    assert build(cache)[0] == 0
    assert (cache / "c").read_text() == "half whole"


def test_after_a_kill_the_next_run_sweeps_and_carries_on(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = start(cache, seconds=5)
    wait_until_building(cache, "a")
    process.kill()
    process.communicate(timeout=30)
    assert list(cache.glob(".a.*.partial"))
    assert build(cache)[0] == 0
    for pid in sleepers(cache):  # the program of the killed build: it writes to its own temporary file only
        os.kill(pid, signal.SIGKILL)
    assert (cache / "a").read_text() == "half whole"
    assert not list(cache.glob(".*.partial"))
    assert not list((cache / "tmp").iterdir())


def test_a_second_build_at_once_is_refused_with_the_first_ones_number(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = start(cache, seconds=30)
    wait_until_building(cache, "a")
    code, text = build(cache)
    assert code == 4
    assert f"process {process.pid} (doit" in text
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)


def test_a_failure_says_what_ran_and_where_the_log_is(tmp_path: Path) -> None:
    code, text = build(tmp_path / "cache", seconds=-1)
    assert code == 1
    assert "error: sleep failed with exit status 1" in text
    assert "command: sleep -1" in text
    assert f"log: {tmp_path / 'cache/logs/toy.a.log'}" in text
    assert "Traceback" not in text


def test_clean_says_what_it_removes_and_explains_why_it_is_made_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build(cache)
    code, text = build(cache, "clean", "toy:a")
    assert (code, text) == (0, "toy:a - executing 'Python: remove a'\n")
    code, text = build(cache, "info", "toy:a")
    assert code == 1
    assert "- a is not built (args=[], kwargs={})" in text
