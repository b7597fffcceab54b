"""Records against real processes: ours are found and ended, nobody else's is ever touched."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import processes
from lab.processes import ProcessRecord
from pipeline.errors import MissingProgramError
from pipeline.run import Popen, spawn


def sleeper(token: str, *, deaf: bool = False) -> list[str]:
    """A command with *token* as an argument that sleeps, and with *deaf* ignores SIGTERM."""
    return ["sh", "-c", f"{'trap : TERM; ' if deaf else ''}echo awake; while :; do sleep 0.1; done", token]


@pytest.fixture
def bystander() -> Iterator[Popen[bytes]]:
    process = spawn(sleeper("bystander"))
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start(tmp_path: Path, *, deaf: bool = False) -> ProcessRecord:
    path = tmp_path / "r.json"
    with (tmp_path / "log").open("ab") as log:
        record = processes.spawn_recorded(
            path, ProcessRecord(token="our-token"), sleeper("our-token", deaf=deaf), cwd=tmp_path, log=log
        )
    while not (tmp_path / "log").read_bytes():
        time.sleep(0.01)
    return record


def test_a_process_is_recorded_found_and_ended(tmp_path: Path) -> None:
    record = start(tmp_path)
    assert processes.find_record(tmp_path / "r.json") == record
    assert processes.is_alive(record)
    assert os.getsid(record.pid or 0) == record.pid  # a session of its own: no Ctrl-C reaches it
    assert processes.end_process(record)
    assert not processes.is_alive(record)
    assert not Path(f"/proc/{record.pid}").exists()  # and was waited for


def test_a_process_whose_record_cannot_be_completed_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = processes.write_record, list[ProcessRecord]()

    def full(path: Path, record: ProcessRecord) -> None:
        written.append(record)
        if record.pid is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, record)

    monkeypatch.setattr(processes, "write_record", full)
    with pytest.raises(OSError, match="No space left"):
        start(tmp_path)
    assert [record.pid is None for record in written] == [True, False]
    assert not processes.is_alive(written[-1])
    assert not (tmp_path / "r.json").exists()


def test_sigkill_ends_what_sigterm_does_not(tmp_path: Path) -> None:
    record = start(tmp_path, deaf=True)
    began = time.monotonic()
    assert processes.end_process(record, grace=0.3)
    assert 0.3 <= time.monotonic() - began < 5


def test_a_stale_record_never_signals_a_bystander(bystander: Popen[bytes]) -> None:
    start_time = processes._start_time(bystander.pid)
    assert start_time is not None
    stale = [
        ProcessRecord(token="our-token", pid=bystander.pid, start_time=start_time),  # another command line
        ProcessRecord(token="bystander", pid=bystander.pid, start_time=str(int(start_time) - 1)),  # another start
        ProcessRecord(token="bystander", pid=bystander.pid),  # nothing known but the number
    ]
    for record in stale * 30:
        assert not processes.is_alive(record)
        assert not processes.send_signal(record, signal.SIGKILL)
        assert processes.end_process(record)
    assert bystander.poll() is None


def test_the_token_of_a_dead_starters_process_leads_to_it(tmp_path: Path) -> None:
    record = start(tmp_path)
    intent = ProcessRecord(token="our-token", boot_id=processes.host_boot_id())
    processes.write_record(tmp_path / "r.json", intent)  # died before it wrote the number
    assert processes.find_record(tmp_path / "r.json") == record
    processes.end_process(record)
    found = processes.find_record(tmp_path / "r.json")
    assert found == intent
    assert not processes.is_alive(found)


def test_a_zombie_is_not_alive(tmp_path: Path) -> None:
    child = spawn(sleeper("zombie"))
    record = ProcessRecord(token="zombie", pid=child.pid, start_time=processes._start_time(child.pid))
    os.killpg(child.pid, signal.SIGKILL)
    try:
        assert processes.wait_for_end(record, timeout=5)
        assert Path(f"/proc/{child.pid}").exists()
    finally:
        child.wait()


def test_without_proc_the_portable_ways_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What macOS uses: ps."""
    record = start(tmp_path)
    try:
        monkeypatch.setattr(processes, "_PROC", tmp_path / "no-proc")
        portable = dataclasses.replace(record, start_time=processes._start_time(record.pid or 0))
        assert portable.start_time not in {None, record.start_time}
        assert processes.is_alive(portable)
        assert processes._find_by_token("our-token") == record.pid
        assert not processes.is_alive(dataclasses.replace(portable, token="other"))
        assert processes.end_process(portable)
        assert not processes.is_alive(portable)
    finally:
        monkeypatch.undo()
        processes.end_process(record)


def test_a_missing_program_leaves_no_record(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as log, pytest.raises(MissingProgramError):
        processes.spawn_recorded(
            tmp_path / "r.json", ProcessRecord(token="t"), ["no-such-program", "t"], cwd=tmp_path, log=log
        )
    assert not (tmp_path / "r.json").exists()
