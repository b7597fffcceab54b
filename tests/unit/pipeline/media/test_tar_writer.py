"""What is written as tar is read back by tarfile, all of it."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.tar_writer import Status, TarWriter

LARGE = st.one_of(st.integers(0, 70_000), st.integers(0, 0xFFFF_FFFE))
STATUS = st.builds(
    Status,
    mode=st.integers(0, 0o7777),
    uid=LARGE,
    gid=LARGE,
    mtime=st.one_of(st.integers(0, 2**31), st.integers(0, 2**40)),
)
PART = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=70).filter(
    lambda part: part not in {".", ".."}
)
PATH = st.lists(PART, min_size=1, max_size=6).map("/".join)
XATTRS = st.dictionaries(st.sampled_from(["user.a", "security.selinux"]), st.text(max_size=40).map(str.encode))


def read(data: bytes) -> list[tarfile.TarInfo]:
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


@given(PATH, STATUS, XATTRS, st.binary(max_size=2000))
def test_a_file_comes_back_with_all_it_has(path: str, status: Status, xattrs: dict[str, bytes], content: bytes) -> None:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    writer.file(path, [content[:700], content[700:]], size=len(content), status=status, xattrs=xattrs)
    writer.finish()
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        (member,) = archive
        stream = archive.extractfile(member)
        assert stream is not None
        assert stream.read() == content
    assert (member.name, Status(member.mode, member.uid, member.gid, int(member.mtime))) == (path, status)
    assert (member.uname, member.gname) == ("", "")
    found = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY")}
    assert found == {f"SCHILY.xattr.{key}": value.decode() for key, value in xattrs.items()}


@given(PATH, PATH, STATUS)
def test_links_and_directories_come_back(path: str, target: str, status: Status) -> None:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    writer.directory("", status=status, xattrs={})
    writer.directory(path, status=status, xattrs={})
    writer.symlink(path, target, status=status, xattrs={})
    writer.hardlink(path, target, status=status)
    writer.finish()
    root, folder, link, other = read(sink.getvalue())
    assert (root.name, root.isdir(), folder.name, folder.isdir()) == (".", True, path, True)
    assert (link.name, link.issym(), link.linkname) == (path, True, target)
    assert (other.name, other.islnk(), other.linkname) == (path, True, target)
    assert {(member.mode, member.uid, int(member.mtime)) for member in (folder, link)} == {
        (status.mode, status.uid, status.mtime)
    }


def test_a_size_beyond_eleven_octal_digits_is_said_in_a_record() -> None:
    size = 9 << 30

    class Beginning(io.BytesIO):
        def write(self, data: object, /) -> int:
            if self.tell() < 4096:
                super().write(bytes(memoryview(data)[:4096]))  # type: ignore[arg-type]
            return 0

    sink = Beginning()
    writer = TarWriter(sink)
    zeros = bytes(16 << 20)
    writer.file("large", (zeros for _ in range(size // len(zeros))), size=size, status=Status(0o644), xattrs={})
    assert tarfile.TarInfo.frombuf(sink.getvalue()[1024:1536], "utf-8", "strict").size == 0
    assert b"size=9663676416\n" in sink.getvalue()


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    writer.symlink("caf\udce9", "\udcff", status=Status(0o777), xattrs={})
    writer.symlink("d/" * 80 + "caf\udce9", "x", status=Status(0o777), xattrs={})
    writer.finish()
    assert [(member.name, member.linkname) for member in read(sink.getvalue())] == [
        ("caf\udce9", "\udcff"),
        ("d/" * 80 + "caf\udce9", "x"),
    ]


@pytest.mark.parametrize(("size", "complaint"), [(4, "more than the 4 bytes"), (6, "ends after 5 of 6 bytes")])
def test_another_size_than_announced_is_refused(size: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TarWriter(io.BytesIO()).file("a", [b"12345"], size=size, status=Status(0o644), xattrs={})
