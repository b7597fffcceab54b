from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxeboot_stack.boot_handler import write_behind
from pxeboot_stack.boot_handler.write_behind import JOURNAL, Signature, WriteBehind, signature_of
from pxeboot_stack.publish import publish_text

PATIENCE = 20.0  # seconds


@pytest.fixture
def files(tmp_path: Path) -> Iterator[WriteBehind]:
    made = WriteBehind(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteBehind]:
    """One that ends before it has put anything in place."""
    monkeypatch.setattr(WriteBehind, "_settle", lambda _: False)
    made = WriteBehind(tmp_path)
    made.start()
    yield made
    made.stop()


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_before_it_is_started_and_after_it_was_stopped_all_is_in_place_at_once(tmp_path: Path) -> None:
    made = WriteBehind(tmp_path)
    made.keep("web1.json", "one")
    assert (tmp_path / "web1.json").read_text() == "one"
    made.start()
    made.stop()
    made.keep("web1.json", "two")
    assert (tmp_path / "web1.json").read_text() == "two"
    assert names(tmp_path) == ["web1.json"]


def test_of_each_file_the_newest_is_in_place_in_the_end(files: WriteBehind, tmp_path: Path) -> None:
    (tmp_path / "_tokens").mkdir()
    for number in range(100):
        files.keep("web1.json", f"one {number}", flush=number % 10 == 0)
        files.keep("_tokens/1.json", f"two {number}", mode=0o600, durable=False)
    files.stop()
    assert names(tmp_path) == ["_tokens/1.json", "web1.json"]
    assert (tmp_path / "web1.json").read_text() == "one 99"
    assert (tmp_path / "_tokens/1.json").read_text() == "two 99"
    assert (tmp_path / "_tokens/1.json").stat().st_mode & 0o777 == 0o600


def test_who_keeps_a_file_is_told_how_it_looks_in_its_place(files: WriteBehind, tmp_path: Path) -> None:
    told, placed = list[Signature](), threading.Event()

    def put(signature: Signature) -> None:
        told.append(signature)
        placed.set()

    files.keep("web1.json", "one", placed=put)
    assert placed.wait(PATIENCE)
    assert told == [signature_of(tmp_path / "web1.json")]


def test_what_was_kept_survives_a_death_before_it_was_in_place(
    dying: WriteBehind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "_tokens").mkdir()
    for text in ("one", 'two "lines"\nä', ):  # fmt: skip
        dying.keep("web1.json", text)
        dying.keep("_tokens/1.json", text, mode=0o600)
    assert names(tmp_path) == [f"{JOURNAL}1"]
    WriteBehind(tmp_path)
    assert names(tmp_path) == ["_tokens/1.json", "web1.json"]
    assert (tmp_path / "web1.json").read_text() == 'two "lines"\nä'
    assert (tmp_path / "_tokens/1.json").stat().st_mode & 0o777 == 0o600


def test_a_death_in_the_middle_of_a_round_loses_nothing(
    tmp_path: Path, dying: WriteBehind, caplog: pytest.LogCaptureFixture
) -> None:
    dying.keep("web1.json", "older")
    dying.keep("web2.json", "older")
    (tmp_path / f"{JOURNAL}1").rename(tmp_path / f"{JOURNAL}9")
    (tmp_path / f"{JOURNAL}10").write_text('["web1.json",420,"newer"]\n["web2.json",420,"half')
    WriteBehind(tmp_path)
    assert {name: (tmp_path / name).read_text() for name in names(tmp_path)} == {
        "web1.json": "newer",
        "web2.json": "older",
    }
    assert "a line of _journal.10 is not whole" in caplog.text


@pytest.mark.parametrize(
    "line",
    ['["../web1.json",420,"x"]', '["/web1.json",420,"x"]', '["_journal.1",420,"x"]', '["a",1]', "{}", "1", "\0" * 9],
)
def test_a_line_that_is_none_of_ours_writes_nothing(tmp_path: Path, line: str) -> None:
    (tmp_path / "status").mkdir()
    (tmp_path / "status" / f"{JOURNAL}1").write_text(f'{line}\n["web1.json",420,"x"]\n')
    WriteBehind(tmp_path / "status")
    assert names(tmp_path) == ["status/web1.json"]


def test_half_a_line_on_a_full_disk_does_not_spoil_the_next(
    dying: WriteBehind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying.keep("web1.json", "one")
    plain = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 7:
            return plain(descriptor, data[:7])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(OSError, match="No space left"):
            dying.keep("web1.json", "lost")
    dying.keep("web2.json", "two")
    assert (tmp_path / f"{JOURNAL}1").read_text() == '["web1.json", 420, "one"]\n["web2.json", 420, "two"]\n'


def test_a_flush_that_fails_is_said_and_keeps_nothing(
    dying: WriteBehind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", broken)
        with pytest.raises(OSError, match="Input/output"):
            dying.keep("web1.json", "one", flush=True)
    assert (tmp_path / f"{JOURNAL}1").read_text() == ""


def test_what_cannot_be_put_in_place_is_tried_again_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(write_behind, "_LONGEST_PAUSE", 0.01)
    tries, placed = list[str](), threading.Event()

    def full(path: Path, text: str, **more: object) -> None:
        tries.append(text)
        if len(tries) < 4:
            raise OSError(28, "No space left on device")
        publish_text(path, text)

    monkeypatch.setattr(write_behind, "publish_text", full)
    made = WriteBehind(tmp_path)
    made.start()
    with caplog.at_level(logging.ERROR):
        made.keep("web1.json", "one", placed=lambda _: placed.set())
        assert placed.wait(PATIENCE)
    made.stop()
    assert names(tmp_path) == ["web1.json"]
    assert len(caplog.records) == 1
    assert "cannot be put in place: No space left on device" in caplog.text


def test_a_folder_that_somebody_removed_is_made_again(files: WriteBehind, tmp_path: Path) -> None:
    files.keep("_tokens/1.json", "one", mode=0o600)
    files.stop()
    assert (tmp_path / "_tokens/1.json").read_text() == "one"
    assert (tmp_path / "_tokens").stat().st_mode & 0o777 == 0o700


def test_the_directory_itself_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WriteBehind(tmp_path / "not mounted").keep("web1.json", "one")
    assert names(tmp_path) == []
