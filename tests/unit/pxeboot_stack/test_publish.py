from __future__ import annotations

from pathlib import Path

import pytest

from pxeboot_stack.publish import flush_directory, flush_file, publish_text


def test_the_text_is_there_and_nothing_else(tmp_path: Path) -> None:
    publish_text(tmp_path / "file", "one\n", mode=0o600)
    publish_text(tmp_path / "file", "two\n")
    assert (tmp_path / "file").read_text() == "two\n"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    publish_text(tmp_path / "file", "old\n")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish_text(tmp_path / "file", "new\n")
    assert (tmp_path / "file").read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_flush_can_be_left_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr("os.fsync", flushed.append)
    publish_text(tmp_path / "file", "text", flush=False)
    assert ((tmp_path / "file").read_text(), flushed) == ("text", [])
    flush_file(tmp_path / "file")
    assert len(flushed) == 1
    flush_file(tmp_path / "gone")
    assert len(flushed) == 1
    flush_directory(tmp_path)
    assert len(flushed) == 2
