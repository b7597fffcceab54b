"""A reader sees the old file or the new one, never a part, whatever happens in between."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.commit import give_second_name, publish, publish_bytes, publish_text, sweep


def test_a_published_file_has_its_content_and_mode(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "key"
    publish_text(target, "secret\n", mode=0o600)
    assert target.read_text() == "secret\n"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_second_name_takes_no_room(tmp_path: Path) -> None:
    source, target = tmp_path / "store", tmp_path / "new" / "artifact"
    publish_bytes(source, b"gigabytes")
    with publish(target) as temporary:
        give_second_name(source, temporary)
    assert target.samefile(source)


def test_where_there_are_no_links_a_second_name_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    source, target = tmp_path / "store", tmp_path / "artifact"
    publish_bytes(source, b"gigabytes")
    monkeypatch.setattr(os, "link", refuse)
    with publish(target) as temporary:
        give_second_name(source, temporary)
    assert target.read_bytes() == b"gigabytes"
    assert not target.samefile(source)


def test_a_failure_leaves_the_old_file_and_no_partial(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    publish_bytes(target, b"old")

    def fail() -> None:
        with publish(target) as temporary:
            temporary.write_bytes(b"half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    publish_bytes(target, b"old")
    with publish(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_a_secret_is_never_readable_by_others_while_written(tmp_path: Path) -> None:
    with publish(tmp_path / "key", mode=0o600) as temporary:
        assert temporary.stat().st_mode & 0o077 == 0


def test_content_is_flushed_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        calls.append("fsync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    publish_bytes(tmp_path / "a", b"x")
    assert len(calls) == 3
    assert calls[0].startswith("fsync .a.")
    assert calls[1:] == ["rename", f"fsync {tmp_path.name}"]


def test_sweep_removes_half_written_files_whoever_wrote_them(tmp_path: Path) -> None:
    dead = tmp_path / ".disk.4194305.0a0b0c0d.partial"  # beyond the kernel's highest possible pid
    reused = tmp_path / f".disk.{os.getpid()}.0a0b0c0d.partial"
    other = tmp_path / "disk.partial"
    for path in (dead, reused, other):
        path.touch()
    assert sweep(tmp_path) == sorted([dead, reused])
    assert list(tmp_path.iterdir()) == [other]


def test_a_new_folder_is_flushed_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    publish_bytes(tmp_path / "one/two/file", b"x")
    assert flushed[:2] == [tmp_path.name, "one"]
    assert flushed[-1] == "two"
