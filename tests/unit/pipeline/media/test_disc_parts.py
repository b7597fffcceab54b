"""The parts that reading a disc is made of, without any program: names, descriptors, listings, runs of bytes."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import struct
from pathlib import Path
from typing import cast

import pytest

from pipeline.errors import PrerequisiteError
from pipeline.media import disc_7zip, disc_libarchive, disc_pycdlib, disc_tree, disc_volume, extents, libarchive_binding
from pipeline.media.disc_tree import DiscFile, DiscTree, Extent, UnreadableError, child_path
from pipeline.media.disc_volume import BootPlatform, DiscError, DiscFormat, read_volume

_SECTOR = 2048


def tree(*files: str, links: dict[str, str] | None = None) -> DiscTree:
    made = DiscTree()
    for path in files:
        made.add_file(path, DiscFile(size=1))
    for path, target in (links or {}).items():
        made.add_link(path, target.encode())
    return made


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("casper/vmlinuz", "casper/vmlinuz"),
        ("/casper//./vmlinuz", "casper/vmlinuz"),
        ("ubuntu/casper/vmlinuz", "casper/vmlinuz"),
        ("ubuntu/ubuntu/ubuntu/casper/vmlinuz", "casper/vmlinuz"),
        ("stable/main", "dists/noble/main"),
        ("kernel", "casper/vmlinuz"),
        ("dists/../casper/vmlinuz", "casper/vmlinuz"),
        ("casper", None),
        ("nothing", None),
        ("", None),
        ("../casper/vmlinuz", None),
        ("out/casper/vmlinuz", None),
        ("absolute/vmlinuz", None),
        ("circle", None),
        ("deep", None),
    ],
)
def test_links_are_followed_within_the_disc_only(name: str, path: str | None) -> None:
    links = {"ubuntu": ".", "stable": "dists/noble", "kernel": "./casper/../casper/vmlinuz", "out": "../..",
             "absolute": "/casper", "circle": "elcric", "elcric": "circle", "deep": "deep/deep"}  # fmt: skip
    assert tree("casper/vmlinuz", "dists/noble/main", links=links).find(name) == path


def test_what_is_meant_is_guessed() -> None:
    files = tree("casper/vmlinuz", "casper/hwe-vmlinuz", "casper/initrd", "boot/grub/grub.cfg")
    assert files.near("install/vmlinuz")[0] == "casper/vmlinuz"
    assert files.near("casper/initrd.gz")[0] == "casper/initrd"
    assert files.near("zzz") == []


def test_the_first_of_a_name_counts() -> None:
    files = DiscTree()
    files.add_file("a", DiscFile(size=1))
    files.add_file("a", DiscFile(size=2))
    files.add_link("a", b"b")
    files.add_link("l", b"a")
    files.add_file("l", DiscFile(size=3))
    files.add_link("bad", b"a\n")
    assert files.files == {"a": DiscFile(size=1)}
    assert (files.find("l"), files.find("bad")) == ("a", None)


def test_names_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disc_tree, "_MOST_NAMES", 2)
    files = tree("a", links={"b": "a"})
    with pytest.raises(UnreadableError, match="more than 2 names"):
        files.add_file("c", DiscFile(size=1))
    with pytest.raises(UnreadableError, match="more than 2 names"):
        files.add_link("c", b"a")


@pytest.mark.parametrize("raw", [b"", b".", b"..", b"a/b", b"/a", b"a\0", b"a\n", b"\xff", b"n" * 300])
def test_unsafe_names_are_left_out(raw: bytes) -> None:
    assert child_path("folder", raw) is None


def descriptor(kind: int, ident: bytes = b"CD001", **fields: bytes) -> bytes:
    data = bytearray(_SECTOR)
    data[:7] = bytes([kind]) + ident + b"\1"
    for place, content in fields.items():
        start = int(place.removeprefix("at"))
        data[start : start + len(content)] = content
    return bytes(data)


def primary(*, blocks: int = 40, root: int = 30) -> bytes:
    return descriptor(
        1, at40=b"LABEL\x07 1".ljust(32), at80=struct.pack("<I", blocks), at128=struct.pack("<H", _SECTOR),
        at158=struct.pack("<I", root), at318=b"PUBLISHER".ljust(128), at574=b"PROGRAM".ljust(128),
    )  # fmt: skip


def image(folder: Path, sectors: dict[int, bytes], *, size: int = 40 * _SECTOR) -> Path:
    path = folder / "disc.iso"
    with path.open("wb") as stream:
        for number, data in sectors.items():
            stream.seek(number * _SECTOR)
            stream.write(data)
        stream.truncate(size)
    return path


def test_a_volume_tells_what_it_is(tmp_path: Path) -> None:
    volume = read_volume(image(tmp_path, {
        16: primary(), 17: descriptor(2, at88=b"%/E"), 18: descriptor(255),
        30: b"\x88".ljust(34, b"\0") + b"SP\x07\x01\xbe\xef\0",
    }))  # fmt: skip
    assert volume.formats == {DiscFormat.ISO9660, DiscFormat.JOLIET, DiscFormat.ROCK_RIDGE}
    assert (volume.volume_id, volume.publisher, volume.application) == ("LABEL  1", "PUBLISHER", "PROGRAM")
    assert volume.size == 40 * _SECTOR


def catalog(*entries: bytes) -> bytes:
    validation = bytearray(b"\1".ljust(30, b"\0") + b"\x55\xaa")
    struct.pack_into("<H", validation, 28, -sum(struct.unpack("<16H", validation)) & 0xFFFF)
    return bytes(validation) + b"".join(entry.ljust(32, b"\0") for entry in entries)


def boot(*, sectors: int, start: int, bootable: bool = True) -> bytes:
    return struct.pack("<BBHBBHI", 0x88 if bootable else 0, 0, 0, 0, 0, sectors, start)


def boot_record(start: int) -> bytes:
    return descriptor(0, at7=b"EL TORITO SPECIFICATION", at71=struct.pack("<I", start))


def test_the_boot_catalog_is_told(tmp_path: Path) -> None:
    content = catalog(
        boot(sectors=4, start=25), b"\x90\xef\1\0", boot(sectors=9, start=26), b"\x44more",
        b"\x91\x03\2\0", boot(sectors=1, start=27, bootable=False), boot(sectors=2, start=28), b"rest",
    )  # fmt: skip
    volume = read_volume(image(tmp_path, {16: primary(), 17: boot_record(20), 20: content}))
    assert DiscFormat.EL_TORITO in volume.formats
    assert [(image.platform, image.bootable, image.start, image.load_size) for image in volume.boot] == [
        (BootPlatform.BIOS, True, 25 * _SECTOR, 2048),
        (BootPlatform.EFI, True, 26 * _SECTOR, 4608),
        (BootPlatform.UNKNOWN, False, 27 * _SECTOR, 512),
        (BootPlatform.UNKNOWN, True, 28 * _SECTOR, 1024),
    ]


@pytest.mark.parametrize("content", [b"", b"\1".ljust(32, b"x"), b"\0" * 64])
def test_a_damaged_boot_catalog_is_empty(tmp_path: Path, content: bytes) -> None:
    volume = read_volume(image(tmp_path, {16: primary(), 17: boot_record(20), 20: content}))
    assert volume.boot == ()
    assert read_volume(image(tmp_path, {16: primary(), 17: boot_record(4_000_000_000)})).boot == ()


def test_a_truncated_disc_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(DiscError, match=r"disc.iso is truncated: it says 2048000 bytes, there are 81920"):
        read_volume(image(tmp_path, {16: primary(blocks=1000)}))
    with pytest.raises(DiscError, match="is truncated"):  # UDF; its anchor would be further on
        read_volume(image(tmp_path, {16: descriptor(0, b"BEA01"), 17: descriptor(0, b"NSR03")}))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"\x1f\x8b\x08", "it is compressed with gzip"),
        (b"<HTML><body>404 Not Found", "it is a web page"),
        (b"QFI\xfb", "it is a qcow2 disk image"),
        (bytes(100_000), "it begins with 34816 zero bytes"),
        (b"x" * 5000, "it has 5000 bytes, too few for a disc"),
        (b"x" * 100_000, "there is neither ISO 9660 nor UDF in it; it is encrypted, damaged, or something else"),
        (b"x" * 510 + b"\x55\xaa" + b"x" * 100_000, "it is a disk image with a boot sector"),
        (b"x" * 257 + b"ustar" + b"x" * 100_000, "it is a tar archive"),
    ],
)
def test_what_is_no_disc_is_described(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "thing.iso").write_bytes(content)
    with pytest.raises(DiscError, match=r"thing.iso is not a disc image") as caught:
        read_volume(tmp_path / "thing.iso")
    assert what in caught.value.details


LISTING = """\
Path = sources
Folder = +
Size =

Path = sources/vmlinuz
Folder = -
Size = 5000
Packed Size = 6144

Path = [BOOT]/1-NoEmul.img
Folder = -
Size = 2048

Path = ../evil
Folder = -
Size = 1

Path = link
Folder = -
Size = 0
Symbolic Link = sources/vmlinuz

Path = unknown
Folder = -
Size =

"""


def test_a_listing_of_7_zip_is_read() -> None:
    found = disc_7zip.parse_listing(LISTING)
    assert found.files == {"sources/vmlinuz": DiscFile(size=5000)}
    assert found.find("link") == "sources/vmlinuz"


def test_a_missing_7_zip_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disc_7zip, "find_program", lambda _: None)
    with pytest.raises(PrerequisiteError, match="7-Zip is not installed"):
        disc_7zip.require_7zip()


class Endless:
    """A reader of a disc whose directories hold each other: libarchive then gives the same names without an end."""

    def __init__(self, *paths: bytes) -> None:
        self._paths = itertools.cycle(paths)
        self.given = 0

    def next_entry(self) -> libarchive_binding.Entry:
        self.given += 1
        return libarchive_binding.Entry(
            path=next(self._paths), type=stat.S_IFREG, perm=0o644, uid=0, gid=0, mtime=0, size=1, links=1,
            hardlink=None, symlink=None, device=(0, 0), xattrs=(),
        )  # fmt: skip


@pytest.mark.parametrize("paths", [(b"a", b"a/b"), (b"..",)])
def test_names_without_an_end_are_refused(paths: tuple[bytes, ...]) -> None:
    endless = Endless(*paths)
    with pytest.raises(UnreadableError, match="its directories hold each other"):
        list(disc_libarchive._entries(cast(libarchive_binding.Reader, endless)))
    assert endless.given < 1010


def records(names: list[bytes]) -> bytes:
    """Return a directory with *names*, in blocks."""
    data = b""
    for name in names:
        record = bytes([34 + len(name)]) + bytes(31) + bytes([len(name)]) + name + b"\0"
        if len(data) % _SECTOR + len(record) > _SECTOR:
            data += bytes(-len(data) % _SECTOR)
        data += record
    return data


def test_sorting_steps_are_counted() -> None:
    names = [b"%05d" % number for number in range(3000)]
    assert disc_pycdlib._sorting_steps(records([b"\0", b"\1", *names])) == 0
    assert disc_pycdlib._sorting_steps(records([b"\0", b"\1", *names[::-1]])) == 3000 * 2999 // 2
    assert disc_pycdlib._sorting_steps(records([b"same"] * 1000)) == 1000 * 999 // 2
    assert disc_pycdlib._sorting_steps(b"\1" + b"path table" * 9000) == 0


def test_pycdlib_sees_so_much_of_a_disc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disc").write_bytes(b"x" * 3000)
    with (tmp_path / "disc").open("rb") as stream:
        window = disc_pycdlib._Window(stream.fileno())
        assert (window.seek(0, os.SEEK_END), window.read(10)) == (1 << 62, b"")
        assert (window.seek(2998), window.read(10), window.tell()) == (2998, b"xx", 3000)
        for size in (-1, (8 << 20) + 1):
            with pytest.raises(UnreadableError, match="too large"):
                window.read(size)
        monkeypatch.setattr(disc_pycdlib, "_MOST_STEPS", 10)
        (tmp_path / "disc").write_bytes(records([b"%05d" % number for number in range(3000, 0, -1)]))
        window.seek(0)
        with pytest.raises(UnreadableError, match="not sorted"):
            window.read(100_000)
        monkeypatch.setattr(disc_pycdlib, "_SECONDS", -1.0)
        with pytest.raises(UnreadableError, match="more than -1 s"):
            disc_pycdlib._Window(stream.fileno()).read(1)


def copied(source: Path, output: Path, *runs: Extent) -> bytes:
    told = list[int]()
    with source.open("rb") as reader, output.open("wb") as writer:
        count = extents.copy_extents(reader.fileno(), writer.fileno(), runs, tell=told.append)
    assert count == output.stat().st_size == sum(run.size for run in runs)
    return output.read_bytes()


@pytest.mark.parametrize("code", [None, errno.EXDEV, errno.ENOSYS])
def test_runs_of_bytes_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    if code is not None:

        def unable(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "copy_file_range", unable)
    content = os.urandom(3_000_000)
    (tmp_path / "in").write_bytes(content)
    found = copied(tmp_path / "in", tmp_path / "out", Extent(100, 2_500_000), Extent(5, 7), Extent(2_999_999, 1))
    assert found == content[100:2_500_100] + content[5:12] + content[-1:]
    assert copied(tmp_path / "in", tmp_path / "out") == b""


def test_holes_stay_holes(tmp_path: Path) -> None:
    with (tmp_path / "in").open("wb") as stream:
        stream.seek(4 << 20)
        stream.write(b"middle")
        stream.truncate(64 << 20)
    found = copied(tmp_path / "in", tmp_path / "out", Extent(1 << 20, 60 << 20))
    assert found == bytes(3 << 20) + b"middle" + bytes((57 << 20) - 6)
    assert (tmp_path / "out").stat().st_blocks * 512 < 1 << 20


def test_what_is_not_there_cannot_be_copied(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 100)
    for run in (Extent(50, 51), Extent(1 << 40, 1)):
        with pytest.raises(extents.ShortFileError):
            copied(tmp_path / "in", tmp_path / "out", run)


def test_a_full_disk_is_not_mistaken_for_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "in").write_bytes(b"x")
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space left"):
        copied(tmp_path / "in", tmp_path / "out", Extent(0, 1))


def test_a_label_of_udf_has_8_or_16_bits_a_character() -> None:
    assert disc_volume._dstring(b"\x08LABEL".ljust(31, b"\0") + b"\x06") == "LABEL"
    assert disc_volume._dstring(b"\x10\0\xe4\0b".ljust(31, b"\0") + b"\x05") == "äb"
