"""The state file: what it answers, and that no damage to it makes a false answer, a traceback or work for people."""

import logging
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.digests import file_digest
from pipeline.state import State, stamp_of
from pipeline.workspace import Cache

VALUES = {f"task{number}": f'{{"deps:": ["file{number}"], "text": "{"x" * number}"}}' for number in range(20)}


@pytest.fixture(name="cache")
def make_cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(name="quick_cache")
def make_quick_cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache in memory where there is such a folder: thousands of state files are written."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield Cache(folder)
    shutil.rmtree(folder)


@pytest.fixture(name="state")
def open_state(cache: Cache) -> Iterator[State]:
    state = State(cache)
    yield state
    state.close()


def settle(path: Path) -> None:
    """Wait until the file is so old that its stat shows any further change."""
    while time.time_ns() - path.stat().st_ctime_ns < 30_000_000:
        time.sleep(0.005)


def test_what_is_put_is_there_for_the_next_process(cache: Cache, state: State) -> None:
    assert state.get("task", "a") is None
    state.put("task", "a", "one")
    assert State(cache).get("task", "a") == "one"
    state.put("task", "a", "two", "stamp")
    assert State(cache).get("task", "a", "stamp") == "two"
    assert State(cache).get("task", "a", "another stamp") is None
    state.put("tool", "a", "kept")
    state.remove("task")
    assert (State(cache).get("task", "a", "stamp"), State(cache).get("tool", "a")) == (None, "kept")
    state.remove("tool", "a")
    assert State(cache).get("tool", "a") is None


def test_a_file_is_read_once(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def read(path: Path) -> str:
        reads.append(path)
        return file_digest(path)

    monkeypatch.setattr("pipeline.state.file_digest", read)
    file = tmp_path / "file"
    file.write_text("content")
    settle(file)
    assert state.digest_of(file) == state.digest_of(file) == file_digest(file)
    assert len(reads) == 1


@pytest.mark.parametrize("change", ["write", "swap", "touch"])
def test_a_changed_file_is_read_again_whatever_its_size_and_time(state: State, tmp_path: Path, change: str) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("content")
    settle(file)
    state.digest_of(file)
    before = file.stat()
    if change == "write":
        file.write_text("CONTENT")
    elif change == "swap":
        other.write_text("CONTENT")
        other.replace(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert state.digest_of(file) == file_digest(file)


def test_a_file_that_has_just_changed_is_not_remembered(state: State, tmp_path: Path) -> None:
    """Within one tick of the file system's clock a second change has the same times as the first."""
    file = tmp_path / "file"
    for content in ("one", "two", "ten"):
        file.write_text(content)
        assert state.digest_of(file) == file_digest(file)
    assert state.get("digest", str(file), stamp_of(file)) is None


def test_what_was_just_published_need_not_be_read(
    state: State, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cache.root / "file"
    cache.root.mkdir()
    file.write_bytes(b"x" * (9 << 20))
    state.learn_digest(file, "told")
    monkeypatch.setattr("pipeline.state.file_digest", lambda _path: "read")
    assert state.digest_of(file) == "told"
    assert state.get("digest", "file", stamp_of(file)) == "told", "a moved cache keeps what it knows"


def test_a_clock_that_jumps_only_costs_reading(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    for years in (-10, 10):
        now = time.time_ns() + years * 365 * 86_400 * 10**9
        monkeypatch.setattr("pipeline.state.time.time_ns", lambda now=now: now)
        assert state.digest_of(file) == file_digest(file)


def filled(cache: Cache) -> bytes:
    """Return the bytes of a state file with twenty entries, written back from its journal."""
    state = State(cache)
    for name, value in VALUES.items():
        state.put("task", name, value)
    state.close()
    assert not cache.state.with_name(".state.db-wal").exists()
    return cache.state.read_bytes()


def answers_are_true(cache: Cache) -> None:
    """Ask for all entries and add one: each answer is the truth or none, whatever the file holds."""
    state = State(cache)
    for name, value in VALUES.items():
        assert state.get("task", name) in {value, None}
    state.put("task", "new", "value")
    assert state.get("task", "new") == "value"
    state.close()


def damage_everywhere(cache: Cache, damages: Iterator[tuple[str, bytes]], caplog: pytest.LogCaptureFixture) -> int:
    """Put each damage in the file's place; return how often the file was set aside."""
    count = 0
    for description, content in damages:
        for path in cache.root.glob(".state.db*"):
            path.unlink()
        cache.state.write_bytes(content)
        caplog.clear()
        try:
            answers_are_true(cache)
        except Exception as error:
            raise AssertionError(description) from error
        if "set aside" in caplog.text:
            count += 1
            assert (cache.root / ".state.db.damaged").exists()
    return count


def flips(content: bytes, masks: Callable[[int], tuple[int, ...]]) -> Iterator[tuple[str, bytes]]:
    for offset in range(len(content)):
        for mask in masks(offset):
            flipped = bytes([content[offset] ^ mask])
            yield f"bits {mask:#x} at {offset}", content[:offset] + flipped + content[offset + 1 :]


def cuts(content: bytes) -> Iterator[tuple[str, bytes]]:
    for length in range(len(content)):
        yield f"cut at {length}", content[:length]


def test_a_state_file_cut_anywhere(quick_cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    content = filled(quick_cache)
    with caplog.at_level(logging.WARNING):
        assert damage_everywhere(quick_cache, cuts(content), caplog) > 0


def test_a_state_file_with_a_flipped_bit_anywhere(quick_cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    content = filled(quick_cache)
    with caplog.at_level(logging.WARNING):
        assert damage_everywhere(quick_cache, flips(content, lambda offset: (1 << offset % 8,)), caplog) > 0


@pytest.mark.nightly
def test_a_state_file_with_every_bit_flipped(quick_cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    content = filled(quick_cache)
    with caplog.at_level(logging.WARNING):
        damage_everywhere(quick_cache, flips(content, lambda _offset: (1, 2, 4, 8, 16, 32, 64, 128, 255)), caplog)


def test_a_journal_that_is_cut_or_flipped_anywhere(quick_cache: Cache) -> None:
    """The write-ahead log is part of the file: what a killed build committed is there."""
    state = State(quick_cache)
    for name, value in list(VALUES.items())[:4]:
        state.put("task", name, value)
    files = {path.name: path.read_bytes() for path in quick_cache.root.glob(".state.db*")}  # as a kill leaves them
    state.close()
    journal = files[".state.db-wal"]
    for offset in range(0, len(journal), 7):
        for damaged in (journal[:offset], journal[:offset] + bytes([journal[offset] ^ 0x10]) + journal[offset + 1 :]):
            for path in quick_cache.root.glob(".state.db*"):
                path.unlink()
            (quick_cache.root / ".state.db").write_bytes(files[".state.db"])
            (quick_cache.root / ".state.db-wal").write_bytes(damaged)
            answers_are_true(quick_cache)


def test_a_damaged_file_is_set_aside_said_and_begun_anew(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    filled(cache)
    cache.state.write_bytes(b"not a database" * 100)
    with caplog.at_level(logging.WARNING):
        state = State(cache)
        assert state.get("task", "task1") is None
        state.put("task", "task1", "value")
    assert "was damaged" in caplog.text
    assert ".state.db.damaged" in caplog.text
    assert (cache.root / ".state.db.damaged").read_bytes() == b"not a database" * 100
    assert State(cache).get("task", "task1") == "value"


def test_a_file_of_another_schema_is_set_aside(cache: Cache) -> None:
    cache.root.mkdir()
    with sqlite3.connect(cache.state) as connection:
        connection.execute("CREATE TABLE entry (other TEXT)")
    connection.close()
    answers_are_true(cache)


def test_a_folder_in_its_place_is_done_without(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    cache.state.mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        answers_are_true(cache)
    assert "does without it" in caplog.text or "set aside" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_only_be_read_is_no_problem(cache: Cache) -> None:
    filled(cache)
    cache.state.chmod(stat.S_IRUSR)
    cache.root.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        answers_are_true(cache)
    finally:
        cache.root.chmod(stat.S_IRWXU)


def test_a_file_that_another_process_writes_for_long_is_done_without(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.state._BUSY_TIMEOUT", 0.05)
    filled(cache)
    blocker = sqlite3.connect(cache.state, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        state = State(cache)
        assert state.get("task", "task1") == VALUES["task1"]
        with caplog.at_level(logging.WARNING):
            state.put("task", "task1", "mine")
        assert state.get("task", "task1") == "mine"
        assert "cannot be used" in caplog.text
        state.close()
    finally:
        blocker.close()
    assert State(cache).get("task", "task1") == VALUES["task1"]
