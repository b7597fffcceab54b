"""Disc images like those of distributions, small, and trees to put on them.

xorriso makes those of ISO 9660, as the distributions' own are made; pycdlib makes UDF, with ISO 9660 beside it, which
is then taken away.
"""

from __future__ import annotations

import contextlib
import io
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pycdlib

from pipeline.run import PIPE, run, spawn

_TIMEOUT = 120.0
_SECTOR = 2048
_VOLUME_SET = range(16, 48)  # sectors of volume descriptors
_ZEROS = bytes(1 << 20)

BIOS_IMAGE, EFI_IMAGE = "boot/grub/i386-pc/eltorito.img", "boot/grub/efi.img"
BIOS_LOADED, EFI_SIZE = 2048, 64 << 10
BIG_SIZE = 5 << 30
FIRST_EXTENT = 0xFFFFF800  # bytes; what 32 bits can say, in whole sectors
BIG_MARKS = {0: b"begin", FIRST_EXTENT - 4: b"last", FIRST_EXTENT: b"next", BIG_SIZE - 3: b"end"}


def noise(size: int, *, seed: str) -> bytes:
    """Return bytes that do not compress, the same for one *seed*."""
    return random.Random(seed).randbytes(size)


def write_tree(folder: Path, files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Path:
    """Write *files* and symbolic *links* (path to target) below *folder*; return it."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for path, target in (links or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(target)
    return folder


def ubuntu_files() -> dict[str, bytes]:
    """Return what is where Ubuntu's live-server disc has it; kernel and initrd are noise, the layers are stand-ins."""
    return {
        ".disk/info": b'Ubuntu-Server 24.04.3 LTS "Noble Numbat" - Release amd64 (20250805.1)\n',
        "casper/vmlinuz": noise(1_500_123, seed="vmlinuz"),
        "casper/initrd": noise(2_500_321, seed="initrd"),
        "casper/install-sources.yaml": b"- id: ubuntu-server-minimal\n",
        "casper/ubuntu-server-minimal.squashfs": noise(70_000, seed="minimal"),
        "casper/ubuntu-server-minimal.ubuntu-server.squashfs": noise(50_000, seed="server"),
        "dists/noble/Release": b"Suite: noble\n",
        "md5sum.txt": b"",
        BIOS_IMAGE: noise(BIOS_LOADED * 2, seed="bios"),
        EFI_IMAGE: noise(EFI_SIZE, seed="efi"),
    }


UBUNTU_LINKS = {"ubuntu": ".", "dists/stable": "noble", "dists/unstable": "noble"}


def fedora_files() -> dict[str, bytes]:
    """Return what is where Fedora's netinst disc has it."""
    treeinfo = "[release]\nname = Fedora\nversion = 42\n[images-x86_64]\nkernel = images/pxeboot/vmlinuz\n"
    return {
        ".discinfo": b"1744300000.0\n42\nx86_64\n",
        ".treeinfo": treeinfo.encode(),
        "images/pxeboot/vmlinuz": noise(1_200_001, seed="fedora vmlinuz"),
        "images/pxeboot/initrd.img": noise(1_900_777, seed="fedora initrd"),
        "images/install.img": noise(300_000, seed="install.img"),
        BIOS_IMAGE: noise(BIOS_LOADED * 2, seed="bios"),
        EFI_IMAGE: noise(EFI_SIZE, seed="efi"),
    }


def make_iso(tree: Path, output: Path, *options: str, label: str, publisher: str = "") -> Path:
    """Write an ISO 9660 of *tree*; it boots by BIOS and EFI if the two boot images are there. Return *output*.

    :param options: more of mkisofs', such as ``-joliet`` or ``-rock``.
    """
    boot = [
        "-b", BIOS_IMAGE, "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
        "-eltorito-alt-boot", "-e", EFI_IMAGE, "-no-emul-boot",
    ]  # fmt: skip
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-V", label, *(["-publisher", publisher] if publisher else []),
            *(boot if (tree / BIOS_IMAGE).exists() else []), *options, "-o", str(output), str(tree)]  # fmt: skip
    run(argv, timeout=_TIMEOUT)
    return output


def make_ubuntu_disc(folder: Path) -> Path:
    """Make a disc like Ubuntu's live-server: Rock Ridge, Joliet, BIOS and EFI, links; return its path."""
    tree = write_tree(folder / "ubuntu", ubuntu_files(), UBUNTU_LINKS)
    options = ("-rational-rock", "-joliet", "-joliet-long")
    return make_iso(tree, folder / "ubuntu.iso", *options, label="Ubuntu-Server 24.04.3 LTS amd64")


def make_fedora_disc(folder: Path) -> Path:
    """Make a disc like Fedora's netinst; return its path."""
    tree = write_tree(folder / "fedora", fedora_files())
    options = ("-rational-rock", "-joliet")
    return make_iso(tree, folder / "fedora.iso", *options, label="Fedora-E-dvd-x86_64-42", publisher="FEDORA PROJECT")


def make_big_disc(folder: Path) -> Path:
    """Make a disc with a file of :data:`BIG_SIZE`, of two extents, in a moment; both are holes, mostly.

    xorriso makes it with two small files whose records then become those of the two extents.
    """
    tree = write_tree(folder / "big", {"small": b"small", "install.im0": b"0", "install.im1": b"1"})
    output = make_iso(tree, folder / "big.iso", "-rational-rock", label="BIG")
    data = bytearray(output.read_bytes())
    first = -(-len(data) // _SECTOR)  # the sector where the big file begins
    for number, (size, flags) in enumerate([(FIRST_EXTENT, 0x80), (BIG_SIZE - FIRST_EXTENT, 0)]):  # 0x80: goes on
        record = data.index(b"INSTALL.IM%d" % number) - 33
        sector = first + number * (FIRST_EXTENT // _SECTOR)
        struct.pack_into("<I", data, record + 2, sector)
        struct.pack_into(">I", data, record + 6, sector)
        struct.pack_into("<I", data, record + 10, size)
        struct.pack_into(">I", data, record + 14, size)
        data[record + 25] = flags
    data = data.replace(b"INSTALL.IM0", b"INSTALL.IMG").replace(b"INSTALL.IM1", b"INSTALL.IMG")
    data = data.replace(b"install.im0", b"install.img").replace(b"install.im1", b"install.img")
    sectors = first + BIG_SIZE // _SECTOR
    struct.pack_into("<I", data, 16 * _SECTOR + 80, sectors)
    struct.pack_into(">I", data, 16 * _SECTOR + 84, sectors)
    with output.open("wb") as stream:
        stream.write(data)
        write_marks(stream, first * _SECTOR)
        stream.truncate(sectors * _SECTOR)
    return output


def make_big_disc_by_xorriso(folder: Path) -> Path:
    """Make the same with the real file, which takes as long as copying 5 GiB three times."""
    tree = write_tree(folder / "big", {"small": b"small"})
    with (tree / "install.img").open("wb") as stream:
        write_marks(stream, 0)
    output = folder / "big.iso"
    argv = [
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-iso-level",
        "3",
        "-rational-rock",
        "-V",
        "BIG",
        "-o",
        "-",
        str(tree),
    ]
    with spawn(argv, stdout=PIPE) as process, output.open("wb") as stream:
        assert process.stdout is not None
        _write_sparse(process.stdout, stream)
    assert process.returncode == 0
    return output


def write_marks(stream: IO[bytes], start: int) -> None:
    """Write the marks of the big file, which begins at *start* in *stream*."""
    for place, mark in BIG_MARKS.items():
        stream.seek(start + place)
        stream.write(mark)


def _write_sparse(source: IO[bytes], output: IO[bytes]) -> None:
    while data := source.read(len(_ZEROS)):
        if data == _ZEROS:
            output.seek(len(data), io.SEEK_CUR)
        else:
            output.write(data)
    output.truncate()


def make_bridge_disc(output: Path, files: Mapping[str, bytes]) -> Path:
    """Make a disc whose files are in UDF, with nothing but README.TXT in the ISO 9660 beside it; return its path."""
    disc = pycdlib.PyCdlib()
    disc.new(udf="2.60", vol_ident="BRIDGE")  # it writes UDF 1.02
    with contextlib.closing(disc):
        note = b"This disc contains a UDF file system.\n"
        disc.add_fp(io.BytesIO(note), len(note), "/README.TXT;1")
        for folder in sorted({str(parent) for path in files for parent in Path(path).parents} - {"."}):
            disc.add_directory(udf_path=f"/{folder}")
        with contextlib.ExitStack() as stack:
            for path, content in files.items():
                stream = stack.enter_context(io.BytesIO(content))
                disc.add_fp(stream, len(content), udf_path=f"/{path}")
            disc.write(str(output))
    return output


def make_udf_disc(output: Path, files: Mapping[str, bytes]) -> Path:
    """Make a disc that is UDF and nothing else; return its path."""
    data = bytearray(make_bridge_disc(output, files).read_bytes())
    recognition = [sector for sector in _sectors(data) if sector[1:6] in {b"BEA01", b"NSR02", b"TEA01"}]
    for place, sector in zip(_VOLUME_SET, [*recognition, *[bytes(_SECTOR)] * 4], strict=False):
        data[place * _SECTOR : (place + 1) * _SECTOR] = sector
    output.write_bytes(data)
    return output


def _sectors(data: bytearray) -> Iterator[bytes]:
    for place in _VOLUME_SET:
        yield bytes(data[place * _SECTOR : (place + 1) * _SECTOR])
