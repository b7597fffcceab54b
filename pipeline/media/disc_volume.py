"""What a disc says of itself before any directory is read: its formats, its labels, its size, how it boots.

ISO 9660 is ECMA-119 (volume descriptors from sector 16 on, section 8), UDF is ECMA-167 (2/8 and 3/10), booting is the
El Torito specification 1.0. A sector has 2,048 bytes. At most 100 sectors are read, whatever is in them.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PvmlabError

_SECTOR = 2048
_FIRST, _MOST = 16, 48  # where the descriptors begin, how many are looked at
_JOLIET = (b"%/@", b"%/C", b"%/E")  # escape sequences of UCS-2 levels 1 to 3
_SUSP = b"SP\x07\x01\xbe\xef"  # IEEE P1281, 5.3: in the "." of the root of a disc with Rock Ridge
_EL_TORITO = b"EL TORITO SPECIFICATION".ljust(32, b"\0")
_CATALOG_SECTORS = 4
_ANCHOR = 256  # sector, ECMA-167 3/8.4.2.1
_UDF_SECTORS = (2048, 512, 4096)
_UDF_MOST = 32
_MAGIC = {
    b"\x1f\x8b": "compressed with gzip", b"\xfd7zXZ\0": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd", b"BZh": "compressed with bzip2",
    b"PK\x03\x04": "a zip archive", b"QFI\xfb": "a qcow2 disk image",
    b"\x7fELF": "a program", b"<!": "a web page", b"<html": "a web page", b"hsqs": "a squashfs file system",
    b"LUKS\xba\xbe": "an encrypted disk (LUKS)", b"KDMV": "a VMware disk image", b"7z\xbc\xaf": "a 7-Zip archive",
}  # fmt: skip


class DiscError(PvmlabError):
    """A file is not the disc it should be, or lacks what is wanted of it.

    :ivar path: the file.
    """

    def __init__(self, path: Path, problem: str, *, details: str = "", resolution: str = "") -> None:
        self.path = path
        super().__init__(f"{path.name} {problem}", details=details, resolution=resolution)


class DiscFormat(enum.StrEnum):
    """What may be on a disc, side by side."""

    ISO9660 = "iso9660"
    ROCK_RIDGE = "rock_ridge"
    JOLIET = "joliet"
    UDF = "udf"
    EL_TORITO = "el_torito"


class BootPlatform(enum.StrEnum):
    """Whose firmware starts a boot image."""

    BIOS = "bios"
    POWERPC = "powerpc"
    MAC = "mac"
    EFI = "efi"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, number: int) -> BootPlatform:
        """Return the platform with El Torito's *number*; 0xEF is the UEFI specification's (13.3.2.1)."""
        return {0: cls.BIOS, 1: cls.POWERPC, 2: cls.MAC, 0xEF: cls.EFI}.get(number, cls.UNKNOWN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BootImage:
    """An entry of the boot catalog.

    :ivar start: where the image begins, bytes from the disc's start.
    :ivar load_size: bytes that the firmware loads; some EFI images say 0 and are loaded whole.
    """

    platform: BootPlatform
    bootable: bool
    start: int
    load_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volume:
    """A disc as its descriptors tell it.

    :ivar size: bytes of the file. :ivar volume_id: the label. :ivar publisher: who made it, often empty.
    :ivar application: what it was made with or for, often empty.
    """

    size: int
    formats: frozenset[DiscFormat]
    volume_id: str
    publisher: str = ""
    application: str = ""
    boot: tuple[BootImage, ...] = ()


def read_volume(path: Path) -> Volume:
    """Return what the file *path* says of itself.

    :raises DiscError: if it is no disc, or truncated: shorter than it says.
    :raises OSError: if it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        volume, space = _described(path, descriptor, size)
    finally:
        os.close(descriptor)
    if space > size:
        raise DiscError(
            path,
            f"is truncated: it says {space} bytes, there are {size}",
            details=str(path),
            resolution="fetch it again and compare its digest",
        )
    return volume


def _described(path: Path, descriptor: int, size: int) -> tuple[Volume, int]:
    """Return the volume and how many bytes it says that it has."""
    descriptors = list(_descriptors(descriptor))
    primary = next((data for data in descriptors if data[:6] == b"\1CD001"), None)
    has_udf = any(data[1:6] in {b"NSR02", b"NSR03"} for data in descriptors)
    label, space = _udf_label(descriptor) if has_udf else ("", 0)
    formats = {DiscFormat.UDF} if has_udf else set()
    if primary is None:
        if not has_udf:
            raise DiscError(
                path,
                "is not a disc image",
                details=f"{path}: {_described_content(descriptor, size)}",
                resolution="compare its digest; a compressed image must be decompressed first",
            )
        return Volume(size=size, formats=frozenset(formats), volume_id=label), space
    formats.add(DiscFormat.ISO9660)
    if any(data[:6] == b"\2CD001" and data[88:91] in _JOLIET for data in descriptors):
        formats.add(DiscFormat.JOLIET)
    if _has_rock_ridge(descriptor, primary):
        formats.add(DiscFormat.ROCK_RIDGE)
    record = next((data for data in descriptors if data[:6] == b"\0CD001" and data[7:39] == _EL_TORITO), None)
    if record is not None:
        formats.add(DiscFormat.EL_TORITO)
    blocks, block = struct.unpack_from("<I", primary, 80)[0], struct.unpack_from("<H", primary, 128)[0]
    volume = Volume(
        size=size, formats=frozenset(formats), volume_id=_text(primary[40:72]), publisher=_text(primary[318:446]),
        application=_text(primary[574:702]), boot=tuple(_boot_images(descriptor, record)) if record else (),
    )  # fmt: skip
    return volume, max(space, blocks * block)


def _descriptors(descriptor: int) -> Iterator[bytes]:
    """Yield the volume descriptors: those of ISO 9660, then those of UDF."""
    for sector in range(_FIRST, _FIRST + _MOST):
        data = os.pread(descriptor, _SECTOR, sector * _SECTOR)
        if len(data) < _SECTOR or data[1:6] not in {b"CD001", b"BEA01", b"NSR02", b"NSR03", b"TEA01", b"BOOT2"}:
            return
        yield data


def _has_rock_ridge(descriptor: int, primary: bytes) -> bool:
    """Return whether the first record of the root directory says that system use fields follow its name."""
    block, start = struct.unpack_from("<H", primary, 128)[0], struct.unpack_from("<I", primary, 156 + 2)[0]
    record = os.pread(descriptor, 255, start * block)
    return _SUSP in record[34 : record[0] if record else 0]


def _boot_images(descriptor: int, record: bytes) -> Iterator[BootImage]:
    """Yield the entries of the boot catalog that the boot *record* points at; none if it is damaged."""
    start = struct.unpack_from("<I", record, 71)[0] * _SECTOR
    catalog = os.pread(descriptor, _CATALOG_SECTORS * _SECTOR, start)
    entries = [catalog[place : place + 32] for place in range(0, len(catalog) - 31, 32)]
    if len(entries) < 2 or entries[0][0] != 1 or sum(struct.unpack("<16H", entries[0])) & 0xFFFF:
        return
    platform, expected, is_last = BootPlatform.of(entries[0][1]), 1, False
    for entry in entries[1:]:
        if expected and entry[0] in {0x88, 0}:
            sectors, block = struct.unpack_from("<HI", entry, 6)
            yield BootImage(
                platform=platform, bootable=entry[0] == 0x88, start=block * _SECTOR, load_size=sectors * 512
            )
            expected -= 1
        elif entry[0] in {0x90, 0x91} and not is_last:
            platform, expected = BootPlatform.of(entry[1]), struct.unpack_from("<H", entry, 2)[0]
            is_last = entry[0] == 0x91
        elif entry[0] != 0x44:  # more about the entry before
            return


def _udf_label(descriptor: int) -> tuple[str, int]:
    """Return the label of the logical volume, and how many bytes it takes up to the end of its partition.

    Without an anchor there is nothing to be read; one must be at a place that is there in the smallest UDF.
    """
    for sector in _UDF_SECTORS:
        anchor = os.pread(descriptor, 512, _ANCHOR * sector)
        if len(anchor) == 512 and struct.unpack_from("<H", anchor)[0] == 2:
            break
    else:
        return "", (_ANCHOR + 1) * _SECTOR
    label, space = "", 0
    first = struct.unpack_from("<I", anchor, 20)[0]
    for number in range(first, first + _UDF_MOST):
        data = os.pread(descriptor, 512, number * sector)
        kind = struct.unpack_from("<H", data)[0] if len(data) == 512 else 8
        if kind == 5:  # partition
            begin, length = struct.unpack_from("<II", data, 188)
            space = max(space, (begin + length) * sector)
        elif kind == 6:  # logical volume
            label = _dstring(data[84:212])
        elif kind == 8:  # the end
            break
    return label, space


def _dstring(field: bytes) -> str:
    """Return a text of UDF (OSTA UDF 2.1.3): 8 or 16 bits a character by the first byte, its length in the last."""
    data = field[1 : field[-1]]
    return _printable(data.decode("utf-16-be" if field[0] == 16 else "latin-1", errors="replace"))


def _text(field: bytes) -> str:
    return _printable(field.decode(errors="replace"))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _described_content(descriptor: int, size: int) -> str:
    """Say what a file is that is no disc."""
    if size == 0:
        return "it is empty"
    head = os.pread(descriptor, _FIRST * _SECTOR + _SECTOR, 0)
    for magic, what in _MAGIC.items():
        if head[: len(magic)].lower() == magic.lower():
            return f"it is {what}"
    signs = {
        f"it begins with {len(head)} zero bytes": not head.strip(b"\0"),
        "it is a tar archive": head[257:262] == b"ustar",
        f"it has {size} bytes, too few for a disc": size < (_FIRST + 2) * _SECTOR,
        "it is a disk image with a boot sector, but without a file system for discs": head[510:512] == b"\x55\xaa",
    }
    return next(
        (what for what, is_it in signs.items() if is_it),
        "there is neither ISO 9660 nor UDF in it; it is encrypted, damaged, or something else",
    )
