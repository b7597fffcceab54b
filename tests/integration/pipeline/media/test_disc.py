"""Faithful discs, made by xorriso: what is said of them, and files out of them, whoever reads them."""

from __future__ import annotations

import dataclasses
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pycdlib
import pytest

from pipeline.media import disc as disc_module
from pipeline.media import disc_7zip, disc_libarchive, disc_pycdlib
from pipeline.media.disc import BootPlatform, Disc, DiscError, DiscFormat, DiscReader, extract, inspect
from pipeline.media.disc_tree import DiscFile, DiscTree, Extent, UnreadableError, sizes
from pipeline.media.extents import copy_extents
from pipeline.progress import Progress
from pipeline.run import run
from tests.fakes import discs

_ALL_OF_ISO = {DiscFormat.ISO9660, DiscFormat.ROCK_RIDGE, DiscFormat.JOLIET, DiscFormat.EL_TORITO}
_KERNEL, _INITRD = "casper/vmlinuz", "casper/initrd"


@pytest.fixture(scope="module")
def ubuntu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs.make_ubuntu_disc(tmp_path_factory.mktemp("ubuntu"))


@pytest.fixture(scope="module")
def fedora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs.make_fedora_disc(tmp_path_factory.mktemp("fedora"))


def read_by(path: Path, reader: DiscReader) -> Disc:
    """Return the disc as only *reader* reads it."""
    read: dict[DiscReader, Callable[[], DiscTree]] = {
        DiscReader.PYCDLIB: lambda: disc_module._by_pycdlib(path),
        DiscReader.LIBARCHIVE: lambda: disc_module._by_libarchive(path),
        DiscReader.SEVEN_ZIP: lambda: disc_7zip.read_tree(path, is_udf=False),
    }
    tree = read[reader]()
    return dataclasses.replace(inspect(path), reader=reader, tree=tree, members=sizes(tree.files))


def test_a_disc_like_ubuntus(ubuntu: Path) -> None:
    found = inspect(ubuntu)
    assert (found.volume_id, found.size) == ("Ubuntu-Server 24.04.3 LTS amd64", ubuntu.stat().st_size)
    assert found.formats == _ALL_OF_ISO
    assert found.reader is DiscReader.PYCDLIB
    expected = {path: len(content) for path, content in discs.ubuntu_files().items()}
    assert found.members == {**expected, "boot.catalog": 2048}
    assert list(found.members) == sorted(found.members)
    assert [(image.platform, image.bootable, image.load_size) for image in found.boot] == [
        (BootPlatform.BIOS, True, discs.BIOS_LOADED),
        (BootPlatform.EFI, True, discs.EFI_SIZE),
    ]
    with ubuntu.open("rb") as stream:
        stream.seek(found.boot[1].start)
        assert stream.read(discs.EFI_SIZE) == discs.ubuntu_files()[discs.EFI_IMAGE]
    assert found.read(".disk/info") == discs.ubuntu_files()[".disk/info"]
    assert found.read("ubuntu/dists/unstable/Release") == b"Suite: noble\n"
    assert found.read("md5sum.txt") == b""


def test_a_disc_like_fedoras(fedora: Path) -> None:
    found = inspect(fedora)
    assert (found.volume_id, found.publisher) == ("Fedora-E-dvd-x86_64-42", "FEDORA PROJECT")
    assert found.formats == _ALL_OF_ISO
    assert found.read(".treeinfo").startswith(b"[release]")
    assert found.read(".discinfo").endswith(b"x86_64\n")


@pytest.mark.parametrize("reader", DiscReader)
def test_files_come_out_whole_whoever_reads_it(ubuntu: Path, tmp_path: Path, reader: DiscReader) -> None:
    found, told = read_by(ubuntu, reader), list[Progress]()
    wanted = {_KERNEL: tmp_path / "vmlinuz", _INITRD: tmp_path / "initrd", "md5sum.txt": tmp_path / "empty"}
    if reader is not DiscReader.SEVEN_ZIP:  # it does not list links
        wanted[f"ubuntu/{_KERNEL}"] = tmp_path / "same"
    found.extract(wanted, listener=told.append)
    files = discs.ubuntu_files()
    for name, output in wanted.items():
        assert output.read_bytes() == files[name.removeprefix("ubuntu/")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in wanted.values())
    total = len(files[_KERNEL]) + len(files[_INITRD])
    assert (told[-1].done, told[-1].total, told[-1].step) == (total, total, "extracting from ubuntu.iso")


def test_files_are_written_in_the_order_of_the_disc(ubuntu: Path, tmp_path: Path) -> None:
    places = {name: file.extents[0].start for name, file in inspect(ubuntu).tree.files.items() if file.extents}
    order = list[int]()

    def noted(source: int, output: int, extents: tuple[Extent, ...], **rest: Callable[[int], None]) -> int:
        order.append(extents[0].start)
        return copy_extents(source, output, extents, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disc_module, "copy_extents", noted)
        extract(ubuntu, {name: tmp_path / str(number) for number, name in enumerate(sorted(places, reverse=True))})
    assert order == sorted(places.values())


@pytest.mark.parametrize(
    ("options", "formats", "kernel"),
    [
        (["-rational-rock"], {DiscFormat.ISO9660, DiscFormat.ROCK_RIDGE}, _KERNEL),
        (["--norock", "-joliet"], {DiscFormat.ISO9660, DiscFormat.JOLIET}, _KERNEL),
        (["--norock"], {DiscFormat.ISO9660}, "CASPER/VMLINUZ"),
    ],
)
def test_names_of_rock_ridge_of_joliet_or_as_they_are(
    tmp_path: Path, options: list[str], formats: set[DiscFormat], kernel: str
) -> None:
    content = discs.noise(5000, seed="kernel")
    files = {_KERNEL: content, "a/b/c/d/e/f/g/h/i/deep": b"deep", "long" * 20 + ".img": b"long"}
    path = discs.make_iso(discs.write_tree(tmp_path / "tree", files), tmp_path / "disc.iso", *options, label="NAMES")
    found = inspect(path)
    assert found.formats == formats
    found.extract({kernel: tmp_path / "out"})
    assert (tmp_path / "out").read_bytes() == content
    if DiscFormat.ROCK_RIDGE in formats:
        assert found.members == {name: len(each) for name, each in files.items()}


def test_deep_directories_that_rock_ridge_moved_are_where_they_belong(tmp_path: Path) -> None:
    tree = discs.write_tree(tmp_path / "tree", {"a/b/c/d/e/f/g/h/i/j/deep": b"deep"})
    options = ("-rational-rock", "-rr_reloc_dir", "rr_moved")
    path = discs.make_iso(tree, tmp_path / "disc.iso", *options, label="DEEP")
    assert b"RR_MOVED" in path.read_bytes()
    found = inspect(path)
    assert (found.members, found.reader) == ({"a/b/c/d/e/f/g/h/i/j/deep": 4}, DiscReader.PYCDLIB)
    assert found.read("a/b/c/d/e/f/g/h/i/j/deep") == b"deep"


def test_a_hybrid_disc_is_a_disc(tmp_path: Path) -> None:
    tree = discs.write_tree(tmp_path / "tree", discs.ubuntu_files())
    (tmp_path / "mbr").write_bytes(discs.noise(432, seed="mbr"))
    options = ("-rational-rock", "--grub2-mbr", str(tmp_path / "mbr"), "-partition_offset", "16",
               "-appended_part_as_gpt", "-append_partition", "2", "0xef", str(tree / discs.EFI_IMAGE))  # fmt: skip
    path = discs.make_iso(tree, tmp_path / "disc.iso", *options, label="HYBRID")
    assert path.read_bytes()[512:520] == b"EFI PART"
    found = inspect(path)
    assert found.reader is DiscReader.PYCDLIB
    assert found.read(".disk/info") == discs.ubuntu_files()[".disk/info"]


def check_big(path: Path, folder: Path) -> None:
    """Check that the file of several extents is whole, by what three others say of the disc, and its marks."""
    found = inspect(path)
    assert found.members == {"install.img": discs.BIG_SIZE, "small": 5}
    assert [extent.size for extent in found.tree.files["install.img"].extents or ()] == [
        discs.FIRST_EXTENT,
        discs.BIG_SIZE - discs.FIRST_EXTENT,
    ]
    assert found.reader is DiscReader.PYCDLIB
    assert read_by(path, DiscReader.LIBARCHIVE).members == found.members
    assert read_by(path, DiscReader.SEVEN_ZIP).members == found.members
    listing = run(["xorriso", "-indev", path, "-lsl", "/install.img"], timeout=60).stdout
    assert re.search(rf" {discs.BIG_SIZE} .*'/install.img'", listing)
    found.extract({"install.img": folder / "out", "small": folder / "small"})
    assert (folder / "out").stat().st_size == discs.BIG_SIZE
    assert (folder / "out").stat().st_blocks * 512 < 16 << 20, "its holes were written"
    with (folder / "out").open("rb") as stream:
        for place, mark in discs.BIG_MARKS.items():
            stream.seek(place)
            assert stream.read(len(mark)) == mark
    assert (folder / "small").read_bytes() == b"small"


def test_a_file_of_5_gib_is_whole(tmp_path: Path) -> None:
    check_big(discs.make_big_disc(tmp_path), tmp_path)


@pytest.mark.nightly
def test_a_file_of_5_gib_is_whole_as_xorriso_writes_it(tmp_path: Path) -> None:
    check_big(discs.make_big_disc_by_xorriso(tmp_path), tmp_path)


def test_pycdlib_alone_would_cut_it(tmp_path: Path) -> None:
    """What the two tests above guard against: should pycdlib mend it, the guard may go."""
    disc = pycdlib.PyCdlib()
    disc.open(str(discs.make_big_disc(tmp_path)))
    assert disc.get_record(rr_path="/install.img").get_data_length() < discs.BIG_SIZE
    disc.close()


def test_sizes_that_libarchive_does_not_find_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read_tree = discs.make_big_disc(tmp_path), disc_pycdlib.read_tree

    def shortened(descriptor: int) -> DiscTree:
        tree = read_tree(descriptor)
        first, second = tree.files["install.img"].extents or ()
        tree.files["install.img"] = DiscFile(size=first.size * 2, extents=(first, first))
        assert second != first
        return tree

    monkeypatch.setattr(disc_pycdlib, "read_tree", shortened)
    found = inspect(path)
    assert (found.reader, found.members["install.img"]) == (DiscReader.LIBARCHIVE, discs.BIG_SIZE)


@pytest.mark.parametrize("make", [discs.make_udf_disc, discs.make_bridge_disc])
def test_files_in_udf_come_by_7_zip(tmp_path: Path, make: Callable[..., Path]) -> None:
    files = {"sources/install.wim": discs.noise(300_001, seed="wim"), "boot.img": b"boot", "empty": b""}
    found = inspect(make(tmp_path / "udf.iso", files))
    assert found.reader is DiscReader.SEVEN_ZIP
    assert DiscFormat.UDF in found.formats
    assert (DiscFormat.ISO9660 in found.formats) == (make is discs.make_bridge_disc)
    assert found.volume_id == "BRIDGE"
    assert found.members == {path: len(content) for path, content in files.items()}
    (tmp_path / "out").mkdir()
    found.extract({path: tmp_path / "out" / str(number) for number, path in enumerate(files)})
    assert [(tmp_path / "out" / str(number)).read_bytes() for number in range(3)] == list(files.values())
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_disc_that_pycdlib_refuses_is_read_by_libarchive(ubuntu: Path, tmp_path: Path) -> None:
    data = bytearray(ubuntu.read_bytes())
    # the path table for big-endian machines is wrong: nobody but pycdlib looks at it
    place = struct.unpack_from(">I", data, 16 * 2048 + 148)[0] * 2048
    data[place + 2] ^= 0xFF
    (tmp_path / "odd.iso").write_bytes(data)
    found = inspect(tmp_path / "odd.iso")
    assert found.reader is DiscReader.LIBARCHIVE
    assert found.formats == _ALL_OF_ISO
    assert found.read("ubuntu/.disk/info") == discs.ubuntu_files()[".disk/info"]


def test_what_is_compressed_on_the_disc_is_decompressed(tmp_path: Path) -> None:
    content = b"text " * 100_000
    tree = discs.write_tree(tmp_path / "tree", {"text": content, "noise": discs.noise(900_000, seed="n")})
    path = tmp_path / "zisofs.iso"
    run(["xorriso", "-outdev", path, "-map", tree, "/", "-set_filter_r", "--zisofs", "/", "--", "-commit"], timeout=60)
    assert path.stat().st_size < 1_400_000
    found = inspect(path)
    assert found.members["text"] == len(content)
    found.extract({"text": tmp_path / "text"})
    assert (tmp_path / "text").read_bytes() == content


def test_truncated_discs_are_named_as_such(ubuntu: Path, tmp_path: Path) -> None:
    data = ubuntu.read_bytes()
    udf = discs.make_udf_disc(tmp_path / "udf.iso", {"file": bytes(100_000)}).read_bytes()
    for whole in (data, udf):
        for size in (40_960, len(whole) // 2, len(whole) * 9 // 10, len(whole) - 307_200 if whole is data else 540_000):
            (tmp_path / "cut.iso").write_bytes(whole[:size])
            with pytest.raises(
                DiscError, match=rf"cut.iso is truncated: it says \d+ bytes, there are {size}"
            ) as caught:
                inspect(tmp_path / "cut.iso")
            assert "fetch it again" in caught.value.resolution


def test_a_missing_file_names_those_that_may_be_meant(ubuntu: Path, tmp_path: Path) -> None:
    with pytest.raises(DiscError, match=r"ubuntu.iso has no file install/vmlinuz") as caught:
        extract(ubuntu, {_KERNEL: tmp_path / "kernel", "install/vmlinuz": tmp_path / "x"})
    assert caught.value.details == "likely ones: casper/vmlinuz"
    assert not list(tmp_path.iterdir()), "something was written before"
    with pytest.raises(DiscError, match="has no file zzz") as caught:
        inspect(ubuntu).require("zzz")
    assert "11 files on it, none like it" in caught.value.details


def test_only_small_files_are_read(ubuntu: Path) -> None:
    with pytest.raises(DiscError, match="has a file casper/initrd of 2500321 bytes, more than 1048576"):
        inspect(ubuntu).read(_INITRD)


def with_file(found: Disc, file: DiscFile) -> Disc:
    """Return the disc with another idea of its kernel."""
    tree = DiscTree()
    tree.files = {**found.tree.files, _KERNEL: file}
    return dataclasses.replace(found, tree=tree, members=sizes(tree.files))


@pytest.mark.parametrize("reader", [DiscReader.LIBARCHIVE, DiscReader.SEVEN_ZIP])
def test_other_sizes_than_promised_are_refused(ubuntu: Path, tmp_path: Path, reader: DiscReader) -> None:
    found = read_by(ubuntu, reader)
    size = found.members[_KERNEL]
    for wrong in (size - 1, size + 1):
        with pytest.raises(DiscError, match=r"bytes of casper/vmlinuz, which has|cannot be read whole"):
            with_file(found, DiscFile(size=wrong)).extract({_KERNEL: tmp_path / "out"})
    with pytest.raises(DiscError, match="says that casper/vmlinuz is larger than all of it"):
        with_file(found, DiscFile(size=found.size + 1)).extract({_KERNEL: tmp_path / "out"})


def test_what_lies_beyond_the_end_is_refused(ubuntu: Path, tmp_path: Path) -> None:
    found = inspect(ubuntu)
    beyond = DiscFile(size=10, extents=(Extent(found.size - 5, 10),))
    with pytest.raises(DiscError, match="is damaged: a file on it cannot be read whole") as caught:
        with_file(found, beyond).extract({_KERNEL: tmp_path / "out"})
    assert "casper/vmlinuz lies beyond the end of the disc" in caught.value.details


def test_a_disc_that_nobody_reads_says_what_each_said(tmp_path: Path, ubuntu: Path) -> None:
    data = bytearray(ubuntu.read_bytes())
    data[17 * 2048 : 20 * 2048] = bytes(3 * 2048)  # descriptors after the first
    data[16 * 2048 + 156 : 16 * 2048 + 190] = bytes(34)  # the root directory
    (tmp_path / "odd.iso").write_bytes(data)
    with pytest.raises(DiscError, match=r"odd.iso cannot be read as a disc") as caught:
        inspect(tmp_path / "odd.iso")
    for word in ("pycdlib", "libarchive", "7-Zip", "Ubuntu-Server"):
        assert word in caught.value.details


def test_an_output_that_cannot_be_written_is_the_hosts_fault(ubuntu: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        extract(ubuntu, {_KERNEL: tmp_path / "missing" / "out"})


def test_libarchive_has_a_deadline_and_7_zip_a_complaint(ubuntu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disc_libarchive, "_SECONDS", -1.0)
    with ubuntu.open("rb") as stream, pytest.raises(UnreadableError, match="libarchive: its directories take more"):
        disc_libarchive.read_tree(stream.fileno())
    with pytest.raises(UnreadableError, match="7-Zip: "):
        disc_7zip.read_tree(ubuntu.with_name("missing.iso"), is_udf=False)
    with pytest.raises(UnreadableError, match="7-Zip: "), open(os.devnull, "wb") as sink:  # noqa: PTH123
        disc_7zip.write_content(ubuntu.with_name("missing.iso"), "x", sink, is_udf=False)
