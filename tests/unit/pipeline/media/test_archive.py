"""Reading archives that others made: what comes out of honest ones, what is refused of others, and why."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pipeline.errors import PrerequisiteError
from pipeline.media import libarchive_binding
from pipeline.media.archive import (
    ArchiveLimitError,
    DamagedArchiveError,
    HostileArchiveError,
    read_archive,
)
from pipeline.media.limits import Limits
from pipeline.media.member import Member, MemberKind
from tests.fakes.archives import Item, cpio, directory, symlink, tar

libarchive_binding.load()  # finding the library starts a program, which a unit test may not

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.compress,
}  # fmt: skip
_FORMATS: dict[str, Callable[[list[Item]], bytes]] = {
    "pax": tar,
    "gnu": lambda items: tar(items, form=tarfile.GNU_FORMAT),
    "cpio": cpio,
}


def read(data: bytes, limits: Limits | None = None) -> list[tuple[Member, bytes]]:
    members = read_archive(io.BytesIO(data)) if limits is None else read_archive(io.BytesIO(data), limits=limits)
    return [(member, b"".join(member.content)) for member in members]


def reason(
    data: bytes, error: type[DamagedArchiveError | HostileArchiveError | ArchiveLimitError], **limits: int
) -> str:
    with pytest.raises(error) as caught:
        read(data, Limits(**limits) if limits else None)
    return caught.value.reason


@pytest.mark.parametrize("compress", _COMPRESSORS.values(), ids=_COMPRESSORS)
@pytest.mark.parametrize("pack", _FORMATS.values(), ids=_FORMATS)
def test_honest_archives_come_out_whole(
    pack: Callable[[list[Item]], bytes], compress: Callable[[bytes], bytes]
) -> None:
    big = bytes(range(256)) * 5000
    data = pack([
        directory("./"), directory("./usr/"), directory("./usr/bin"), Item("./usr/bin/su", b"su", mode=0o4755),
        symlink("./bin", "usr/bin"), symlink("absolute", "/etc/../x"), Item("usr//share/./big", big),
        Item("dev/null", kind=stat.S_IFCHR, device=(1, 3)), Item("run/pipe", kind=stat.S_IFIFO), Item("empty"),
        Item("Főtanúsítvány"), directory("usr"),
    ])  # fmt: skip
    found = read(compress(data))
    assert [(member.path, member.kind) for member, _ in found] == [
        ("usr", MemberKind.DIRECTORY), ("usr/bin", MemberKind.DIRECTORY), ("usr/bin/su", MemberKind.FILE),
        ("bin", MemberKind.SYMLINK), ("absolute", MemberKind.SYMLINK), ("usr/share/big", MemberKind.FILE),
        ("dev/null", MemberKind.CHARACTER_DEVICE), ("run/pipe", MemberKind.FIFO), ("empty", MemberKind.FILE),
        ("Főtanúsítvány", MemberKind.FILE), ("usr", MemberKind.DIRECTORY),
    ]  # fmt: skip
    by_path = {member.path: (member, content) for member, content in found}
    assert by_path["usr/bin/su"][0].mode == 0o4755
    assert by_path["usr/bin/su"][1] == b"su"
    assert by_path["usr/share/big"][1] == big
    assert by_path["usr/share/big"][0].size == len(big)
    assert by_path["bin"][0].target == "usr/bin"
    assert by_path["absolute"][0].target == "/etc/../x"
    assert by_path["dev/null"][0].device == (1, 3)


def test_owner_time_and_extended_attributes_come_along() -> None:
    capability = bytes([1, 0, 0, 2, 0, 32, 0, 0]) + bytes(12)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("usr/bin/ping")
        member.uid, member.gid, member.mtime = 12, 3_000_000_000, 1_700_000_000
        member.uname = "ö"
        member.pax_headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1"),
                              "SCHILY.xattr.user.note": "über"}  # fmt: skip
        archive.addfile(member)
    ((found, _),) = read(stream.getvalue())
    assert (found.uid, found.gid, found.mtime) == (12, 3_000_000_000, 1_700_000_000)
    assert found.xattrs == {"security.capability": capability, "user.note": "über".encode()}


def test_a_hard_link_names_the_file_that_came_before() -> None:
    found = read(tar([Item("a/one", b"1"), Item("a/two", hardlink="./a/one"), Item("three", hardlink="a/two")]))
    assert [(member.path, member.kind, member.target) for member, _ in found] == [
        ("a/one", MemberKind.FILE, ""),
        ("a/two", MemberKind.HARDLINK, "a/one"),
        ("three", MemberKind.HARDLINK, "a/two"),
    ]


def test_cpio_has_the_content_with_the_last_name_but_the_file_comes_first() -> None:
    names = [Item(name, inode=7, links=3) for name in ("one", "two")]
    empty = [Item(name, inode=8, links=2) for name in ("void", "void too")]
    found = read(cpio([*names, *empty, Item("three", b"123", inode=7, links=3)]))
    assert [(member.path, member.kind, member.target, content) for member, content in found] == [
        ("three", MemberKind.FILE, "", b"123"),
        ("one", MemberKind.HARDLINK, "three", b""),
        ("two", MemberKind.HARDLINK, "three", b""),
        ("void", MemberKind.FILE, "", b""),
        ("void too", MemberKind.HARDLINK, "void", b""),
    ]


def test_holes_are_zeros() -> None:
    # GNU sparse format 0.1: a map of two runs, at 4096 and at the end
    pax = {"GNU.sparse.name": "sparse", "GNU.sparse.size": "100000",
           "GNU.sparse.numblocks": "1", "GNU.sparse.map": "4096,5"}  # fmt: skip
    ((member, content),) = read(tar([Item("GNUSparseFile.0/sparse", b"hello", pax=pax)]))
    assert (member.path, member.size) == ("sparse", 100_000)
    assert content == bytes(4096) + b"hello" + bytes(100_000 - 4101)


def test_content_that_is_not_read_is_skipped() -> None:
    data = tar([Item("a", b"a" * 100_000), Item("b", b"b")])
    contents = [member.content for member in read_archive(io.BytesIO(data))]
    with pytest.raises(RuntimeError, match="another member was asked for"):
        b"".join(contents[0])


def test_a_path_is_opened_and_named(tmp_path: Path) -> None:
    (tmp_path / "rootfs.tar.gz").write_bytes(gzip.compress(tar([Item("../x")])))
    with pytest.raises(HostileArchiveError, match=r"rootfs.tar.gz is not safe to unpack"):
        list(read_archive(tmp_path / "rootfs.tar.gz"))


@pytest.mark.parametrize("pack", [tar, cpio])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil", '".."'),
        ("a/../../evil", '".."'),
        ("a/..", '".."'),
        ("/etc/passwd", "absolute"),
        ("//etc/passwd", "absolute"),
        ("a\nb", "line end"),
        ("a\x1b[2Jb", "control character"),
        ("a\x7fb", "control character"),
        ("a\x85b", "control character"),
        ("x" * 256, "longer than 255"),
        ("x/" * 2100, "longer than 4095"),
    ],
)
def test_names_that_are_refused(pack: Callable[[list[Item]], bytes], name: str, why: str) -> None:
    assert why in reason(pack([Item("good"), Item(name)]), HostileArchiveError)


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    for data in (cpio([Item("caf\udce9")]), tar([Item("caf\udce9")], form=tarfile.GNU_FORMAT)):
        assert "it is not UTF-8" in reason(data, HostileArchiveError)


def test_an_empty_name_is_refused() -> None:
    assert "it is empty" in reason(cpio([Item("")]), HostileArchiveError)


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([symlink("d", "/tmp"), Item("d/evil")], "d/evil lies below d, which is a symlink"),
        ([symlink("d", "."), symlink("d/e", "..")], "lies below d"),
        ([directory("d"), symlink("d", "/tmp"), Item("d/evil")], "d comes as a directory first, then as a symlink"),
        ([Item("d/good"), symlink("d", "/tmp")], "d comes as a directory first, then as a symlink"),
        ([Item("f", b"1"), symlink("f", "/etc/passwd")], "f comes as a file first"),
        ([symlink("f", "/etc/passwd"), Item("f", b"1")], "f comes as a symlink first"),
        ([Item("f", b"1"), Item("./f", b"2")], "f comes as a file first, then as a file"),
        ([Item("f"), Item("f/g")], "f/g lies below f, which is a file"),
        ([symlink("f", "/etc/passwd"), Item("g", hardlink="f")], "g is a hard link to f, which is a symlink"),
        ([Item("g", hardlink="/etc/passwd")], "the target of the hard link g is refused"),
        ([Item("g", hardlink="../etc/passwd")], "the target of the hard link g is refused"),
        ([Item("g", hardlink="etc/passwd")], "etc/passwd, which is not there yet"),
        ([Item("g", hardlink="./")], "the root, which is a directory"),
        ([Item("n", kind=stat.S_IFCHR), Item("g", hardlink="n")], "which is a character device"),
        ([Item("f"), Item("f", hardlink="f")], "f comes as a file first, then as a hard link"),
        ([symlink("./", "/tmp")], "its root is a symlink"),
        ([symlink("l", "a\nb")], "the target of l is refused"),
    ],
)
def test_links_that_are_refused(items: list[Item], why: str) -> None:
    assert why in reason(tar(items), HostileArchiveError)


def test_a_link_to_nowhere_is_refused() -> None:
    assert "it is empty" in reason(cpio([symlink("l", "")]), HostileArchiveError)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Unrecognized archive format"),
        (b"<!DOCTYPE html><title>404</title>", "Unrecognized archive format"),
        (gzip.compress(gzip.compress(tar([Item("a")]))), "Unrecognized archive format"),
        (zstandard.compress(zstandard.compress(tar([Item("a")]))), "Unrecognized archive format"),
        (tar([]), "nothing in it"),
        (cpio([]), "nothing in it"),
        (tar([Item("a", b"a")])[:1024], "its end is missing"),
        (tar([Item("a", b"a")])[: 1024 + 512], "its end is missing"),
        (tar([Item("a", b"a")]) + tar([Item("b")]), "something follows its end"),
        (cpio([Item("a", b"a")]) + cpio([Item("b")]), "something follows its end"),
        (gzip.compress(tar([Item("a")]))[:-1], "ends too early"),
        (gzip.compress(tar([Item("a")])) + b"garbage" * 9, "damaged"),
        (zstandard.compress(tar([Item("a")]))[:-1], "ends too early"),
        (zstandard.compress(tar([Item("a")])) + b"garbage", "damaged"),
        (tar([Item("a", pax={"SCHILY.xattr.user.x": "y", "GNU.sparse.map": "9,1,z"})]), "it is cut off or damaged"),
    ],
)
def test_damage_is_named(data: bytes, why: str) -> None:
    assert why in reason(data, DamagedArchiveError)


def test_padding_after_a_compressed_archive_is_no_damage() -> None:
    data = tar([Item("a", b"a")])
    for compress in (gzip.compress, bz2.compress, lzma.compress, zstandard.compress):
        if compress is not zstandard.compress:  # its format knows no padding
            assert len(read(compress(data) + bytes(1024))) == 1
        assert len(read(compress(data[:700]) + compress(data[700:]))) == 1, "two streams, one after the other"


def test_a_hard_link_with_a_content_of_its_own_is_refused() -> None:
    items = [Item("a", b"1", inode=7, links=2), Item("b", b"2", inode=7, links=2)]
    assert "the hard link b has a content of its own" in reason(cpio(items), DamagedArchiveError)


def test_an_owner_that_cannot_be_is_refused() -> None:
    data = tar([Item("a", pax={"uid": "4294967295"})])
    assert "belongs to no possible user" in reason(data, DamagedArchiveError)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"total": 250_000}, "decompressed it has more than 250000 bytes"),
        ({"member": 99_999}, "a has 100000 bytes, more than 99999"),
        ({"members": 2}, "it has more than 2 members"),
        ({"ratio": 20, "ratio_from": 100_000}, "decompress to more than 20 times as many"),
        ({"xattrs": 10}, "c has more than 10 bytes of extended attributes"),
    ],
)
def test_caps(limits: dict[str, int], why: str) -> None:
    xattr = {"SCHILY.xattr.user.x": "y" * 20}
    data = tar([Item("a", bytes(100_000)), Item("b", bytes(100_000)), Item("c", bytes(50_000), pax=xattr)])
    assert why in reason(gzip.compress(data), ArchiveLimitError, **limits)


def test_holes_count_for_the_caps() -> None:
    pax = {"GNU.sparse.size": str(1 << 40),
           "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,5"}  # fmt: skip
    data = tar([Item(name, b"hello", pax=pax) for name in "abc"])
    assert "a has 1099511627776 bytes" in reason(data, ArchiveLimitError)
    with pytest.raises(ArchiveLimitError) as caught:
        list(read_archive(io.BytesIO(data), limits=Limits(member=1 << 41, total=3 << 39)))  # nothing is read
    assert "with b its members have more" in caught.value.reason


def test_xz_may_not_take_all_memory() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    data = lzma.compress(tar([Item("a")]), filters=filters)
    assert "Memory usage limit" in reason(data, DamagedArchiveError)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found(name: str) -> object:
        raise AttributeError(f"undefined symbol: archive_{name}")

    libarchive_binding._ffi.cache_clear()
    monkeypatch.setattr(importlib, "import_module", nothing_found)
    try:
        with pytest.raises(PrerequisiteError, match="libarchive is not installed") as caught:
            read(tar([Item("a")]))
        assert "libarchive13" in caught.value.resolution
    finally:
        monkeypatch.undo()
        libarchive_binding._ffi.cache_clear()
        libarchive_binding.load()


def test_what_a_stream_raises_comes_out() -> None:
    class Torn(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 10_000:
                raise InterruptedError("torn")
            return super().read(1000 if size is None else min(size, 1000))

    with pytest.raises(InterruptedError, match="torn"):
        list(read_archive(Torn(tar([Item("a", bytes(50_000))]))))
