"""Kernels, modules and root filesystems as small as they can be, and what a family of distributions calls them."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import zstandard

COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=0),  # the kernel's xz knows no other check
    ".zst": zstandard.compress,
    ".gz": lambda data: gzip.compress(data, 1, mtime=0),
}


def make_vmlinuz(version: str) -> bytes:
    """Return the beginning of an x86 kernel (Documentation/arch/x86/boot.rst)."""
    data = bytearray(0x400)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x20E, 0x100)  # from 0x200 on
    text = f"{version} (builder@host) #1 SMP\0".encode()
    data[0x300 : 0x300 + len(text)] = text
    return bytes(data)


def make_arm64_image(version: str) -> bytes:
    """Return the beginning of an arm64 kernel (Documentation/arch/arm64/booting.rst), with its banner."""
    data = bytearray(0x200)
    data[0:2] = b"MZ"
    data[0x38:0x3C] = b"ARM\x64"
    return bytes(data) + f"\0Linux version {version} (builder@host) #1 SMP\n\0".encode()


def make_zboot(image: bytes, method: str) -> bytes:
    """Return *image*, compressed, in an EFI zboot program (drivers/firmware/efi/libstub/zboot-header.S)."""
    return b"MZ\0\0zimg" + struct.pack("<II8x32s", 64, len(image), method.encode()).ljust(56, b"\0") + image


def make_module(kver: str, **said: str | list[str]) -> bytes:
    """Return an ELF object with a ``.modinfo``: ``make_module("6.1", depends="a,b", alias=["x", "y"])``."""
    texts = [
        f"{key}={value}" for key, values in said.items() for value in ([values] if isinstance(values, str) else values)
    ]
    modinfo = b"".join(text.encode() + b"\0" for text in [*texts, f"vermagic={kver} SMP mod_unload "])
    names = b"\0.modinfo\0.shstrtab\0"
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 3, 2)
    start = 64 + 3 * 64
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, start, len(modinfo), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, start + len(modinfo), len(names), 0, 0, 1, 0)
    return header + sections + modinfo + names


def make_rootfs(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write a root filesystem of *files*: content, or where a symbolic link points (``=`` before it: a hard link)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type = tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE
                member.linkname = content.removeprefix("=")
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    path.write_bytes(zstandard.compress(raw.getvalue()))
    return path
