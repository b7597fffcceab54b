from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lab import processes
from lab.processes import ProcessRecord
from pipeline.errors import ConflictError

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")


def own_record() -> ProcessRecord:
    """The record that the process of this very test would have."""
    start_time = processes._start_time(os.getpid())
    return ProcessRecord(token=processes._arguments(os.getpid())[0], pid=os.getpid(), start_time=start_time)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = ProcessRecord(token="t", pid=1, start_time="42", crashed=True)
    processes.write_record(tmp_path / "r.json", record)
    assert processes.find_record(tmp_path / "r.json") == record
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o600


def test_no_record(tmp_path: Path) -> None:
    assert processes.find_record(tmp_path / "r.json") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"token": "t", "surprise": 1}'])
def test_a_damaged_record_is_told_not_guessed(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ConflictError, match="is damaged"):
        processes.find_record(tmp_path / "r.json")


def test_an_intent_without_a_process_is_not_alive(tmp_path: Path) -> None:
    processes.write_record(tmp_path / "r.json", ProcessRecord(token="no process has this argument"))
    record = processes.find_record(tmp_path / "r.json")
    assert record is not None
    assert record.pid is None
    assert not processes.is_alive(record)


def test_processes_that_end_while_one_looks_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "4711").symlink_to(tmp_path / "gone")
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert processes._find_by_token("whatever") is None


def test_all_three_must_agree() -> None:
    mine = own_record()
    assert processes.is_alive(mine)
    assert not processes.is_alive(ProcessRecord(token="other", pid=mine.pid, start_time=mine.start_time))
    assert not processes.is_alive(ProcessRecord(token=mine.token, pid=mine.pid, start_time="1"))
    assert not processes.is_alive(ProcessRecord(token=mine.token, pid=1, start_time=mine.start_time))
    assert not processes.is_alive(ProcessRecord(token=mine.token, pid=mine.pid))
    assert not processes.is_alive(ProcessRecord(token=mine.token, pid=2**22 + 1, start_time=mine.start_time))


def test_part_of_an_argument_is_not_the_token() -> None:
    mine = own_record()
    assert not processes.is_alive(ProcessRecord(token=mine.token[1:], pid=mine.pid, start_time=mine.start_time))


def test_a_wait_for_what_does_not_end_ends() -> None:
    began = time.monotonic()
    assert not processes.wait_for_end(own_record(), timeout=0.1)
    assert 0.1 <= time.monotonic() - began < 1


def test_a_lock_is_exclusive_and_its_wait_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "web1.lock"
    with (
        processes.hold_lock(path, timeout=0, busy="first"),
        pytest.raises(ConflictError, match="web1 is busy"),
        processes.hold_lock(path, timeout=0.1, busy="web1 is busy"),
    ):
        pass
    with processes.hold_lock(path, timeout=0, busy="free again"):
        pass


def test_a_lock_is_not_made_through_a_planted_link(tmp_path: Path) -> None:
    (tmp_path / "web1.lock").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(OSError, match="symbolic links"),
        processes.hold_lock(tmp_path / "web1.lock", timeout=0, busy=""),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()
