"""The archive writer: what is in an archive, and that equal plans give equal bytes."""

from __future__ import annotations

import gzip
import io
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import cpio

_NAMES = st.text("abcXYZ019.-_ é", min_size=1, max_size=8).filter(lambda name: name.strip(".") != "")
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map("/".join)


def read_archive(data: bytes) -> list[cpio.Entry]:
    """Read a newc archive back, strictly: magic, padding and trailer are checked."""
    entries: list[cpio.Entry] = []
    offset = 0
    for inode in range(1, 100_000):
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        name_end = offset + 110 + fields[11]
        name = data[offset + 110 : name_end - 1].decode()
        start = name_end + -name_end % 4
        end = start + fields[6]
        offset = end + -end % 4
        if name == "TRAILER!!!":
            assert data[offset:] == bytes(len(data) - offset)
            assert len(data) % 512 == 0
            return entries
        assert fields[0] == inode
        assert fields[2] == fields[3] == fields[5] == 0, "owner, group and time"
        entries.append(cpio.Entry(name, fields[1], data[start:end], (fields[9], fields[10])))
    raise AssertionError("no trailer")


def pack(entries: list[cpio.Entry]) -> bytes:
    stream = io.BytesIO()
    cpio.write(stream, entries)
    return stream.getvalue()


def test_all_kinds_of_files_come_back_with_their_parents() -> None:
    plan = [
        cpio.regular("usr/bin/tool", b"#!/bin/sh\n", mode=0o755),
        cpio.symlink("bin", "usr/bin"),
        cpio.character_device("dev/console", 5, 1),
        cpio.directory("tmp", mode=0o1777),
    ]
    found = {entry.path: entry for entry in read_archive(pack(plan))}
    assert list(found) == ["bin", "dev", "dev/console", "tmp", "usr", "usr/bin", "usr/bin/tool"]
    assert found["bin"] == cpio.Entry("bin", stat.S_IFLNK | 0o777, b"usr/bin")
    assert found["dev/console"].device == (5, 1)
    assert stat.S_ISCHR(found["dev/console"].mode)
    assert found["tmp"].mode == stat.S_IFDIR | 0o1777
    assert found["usr/bin"].mode == stat.S_IFDIR | 0o755
    assert found["usr/bin/tool"] == plan[0]


@given(st.dictionaries(_PATHS, st.binary(max_size=9), max_size=8))
def test_any_plan_is_read_back_and_its_order_does_not_matter(content: dict[str, bytes]) -> None:
    plan = [cpio.regular(path, data) for path, data in content.items()]
    if any(path.startswith(f"{other}/") for path in content for other in content):
        with pytest.raises(ValueError, match="not a directory"):
            cpio.arrange(plan)
        return
    archive = pack(plan)
    assert archive == pack(plan[::-1])
    assert {entry.path: entry.data for entry in read_archive(archive) if stat.S_ISREG(entry.mode)} == content


def test_a_directory_comes_before_what_is_in_it() -> None:
    paths = [
        entry.path
        for entry in cpio.arrange([cpio.regular("a/b", b""), cpio.regular("a-b", b""), cpio.regular("a.b", b"")])
    ]
    assert paths.index("a") < paths.index("a/b")


def test_a_path_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="bin/tool is in the archive twice"):
        cpio.arrange([cpio.regular("bin/tool", b"1"), cpio.regular("bin/tool", b"2")])


def test_a_file_below_a_symlink_is_refused() -> None:
    with pytest.raises(ValueError, match="bin/tool lies below bin, which is not a directory"):
        cpio.arrange([cpio.symlink("bin", "usr/bin"), cpio.regular("bin/tool", b"")])


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "a//b", "./a", "a/", "", "a\nb", "a\0b"])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|character"):
        cpio.regular(path, b"")


def test_the_compressed_file_holds_the_archive_and_nothing_of_this_machine(tmp_path: Path) -> None:
    plan = [cpio.regular("file", b"content" * 1000)]
    for name in ("one.gz", "another.gz"):
        cpio.write_gzip(tmp_path / name, plan)
    first = (tmp_path / "one.gz").read_bytes()
    assert first == (tmp_path / "another.gz").read_bytes()
    assert first[3] == 0, "no file name in the header"
    assert first[4:8] == bytes(4), "no time"
    assert gzip.decompress(first) == pack(plan)
