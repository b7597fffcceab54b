"""Progress of programs that do not tell any."""

import re
import threading
from pathlib import Path

import pytest

from pipeline.progress import LogCounter, watched


def test_it_is_looked_at_from_the_start_while_the_block_runs_and_once_at_its_end() -> None:
    looked = threading.Semaphore(0)
    with watched(looked.release):
        assert looked.acquire(blocking=False), "nobody looked at the start"
        assert looked.acquire(timeout=10), "nobody looked"
        assert looked.acquire(timeout=10), "nobody looked again"
    assert looked.acquire(blocking=False), "nobody looked at the end"
    assert threading.active_count() == 1 or not any(thread.name == "progress" for thread in threading.enumerate())


def test_after_a_failure_nobody_looks_again() -> None:
    looks: list[int] = []
    with pytest.raises(ValueError, match="broken"), watched(lambda: looks.append(1)):
        raise ValueError("broken")
    assert len(looks) == 1, "at the start"


def test_only_new_and_whole_lines_of_a_log_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    counter = LogCounter(log, re.compile(rb"Unpacking |Setting up "))
    assert counter.count() == 0
    log.write_text("Unpacking a\nsomething\nUnpack")
    assert counter.count() == 1
    with log.open("a") as stream:
        stream.write("ing b\nSetting up a\n")
    assert counter.count() == 3
    assert counter.count() == 3
    assert LogCounter(log, re.compile(b"Unpacking")).count() == 0
