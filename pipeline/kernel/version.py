"""Versions of kernels, as ``uname -r`` says them (``kver``): read out of the kernel's own file, and compared."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from pipeline.errors import PvmlabError, UsageError
from pipeline.kernel.packed import unpack

_MAX_KERNEL = 512 << 20  # bytes, unpacked
_SETUP_MAGIC, _SETUP_PLACE, _VERSION_POINTER = b"HdrS", 0x202, 0x20E  # Documentation/arch/x86/boot.rst, "kernel header"
_SETUP_OFFSET = 0x200
_ARM64_MAGIC, _ARM64_PLACE = b"ARM\x64", 0x38  # Documentation/arch/arm64/booting.rst, "magic"
_ZBOOT_MAGIC, _ZBOOT_HEADER = b"MZ\0\0zimg", struct.Struct("<8xII8x32s")  # include/linux/pe.h: offset, size, method
_BANNER = re.compile(rb"Linux version (\d[\x21-\x7e]*) ")
_COMPRESSED = {"gzip": "gz", "zstd": "zst", "zstd22": "zst", "xzkern": "xz"}
_PART = re.compile(r"(\d+)|([A-Za-z]+)|(~)")
_OF_RPM = re.compile(r".*\.(?:x86_64|aarch64)(?:\+([\w-]+))?")
_CANDIDATE = re.compile(r"rc\d+")


class NotAKernelError(PvmlabError):
    """A file that should be a kernel is none."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"/{path} is no Linux kernel",
            details="It has neither the header of an x86 kernel nor that of an arm64 one.",
            resolution="check that the medium the root filesystem comes from is whole",
        )


class AmbiguousKernelError(UsageError):
    """A root filesystem holds kernels of several flavours. :ivar versions: of all of them."""

    def __init__(self, versions: Iterable[str]) -> None:
        self.versions = tuple(sorted(versions, key=version_key))
        super().__init__(
            "no single kernel to boot: there are several flavours",
            details=f"The root filesystem holds {', '.join(self.versions)}; of one flavour the newest would count.",
            resolution="take a medium, or a set of packages, with kernels of one flavour",
        )


def read_version(kernel: bytes, *, path: str) -> str | None:
    """Return the version of the kernel in the file *kernel*; None if it is packed in a way not read here.

    :param path: where the file was, for the error. :raises NotAKernelError: if it is none.
    """
    if kernel[_SETUP_PLACE : _SETUP_PLACE + 4] == _SETUP_MAGIC:
        (pointer,) = struct.unpack_from("<H", kernel, _VERSION_POINTER)
        text = kernel[_SETUP_OFFSET + pointer :][:512].partition(b"\0")[0].split(b" ")[0]
        return text.decode(errors="replace") if pointer and text else None
    image: bytes | None = kernel
    if kernel.startswith(_ZBOOT_MAGIC):
        offset, size, method = _ZBOOT_HEADER.unpack_from(kernel)
        suffix = _COMPRESSED.get(method.partition(b"\0")[0].decode(errors="replace"))
        image = None if suffix is None else unpack(kernel[offset : offset + size], suffix, limit=_MAX_KERNEL, name=path)
    elif kernel.startswith(b"\x1f\x8b"):
        image = unpack(kernel, "gz", limit=_MAX_KERNEL, name=path)
    if image is None:
        return None
    if image[_ARM64_PLACE : _ARM64_PLACE + 4] != _ARM64_MAGIC:
        raise NotAKernelError(path)
    banner = _BANNER.search(image)
    return banner[1].decode() if banner else None


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return what versions sort by, as for dpkg and rpm: numbers as numbers; ``~`` comes before the end."""
    parts = [
        (2, int(number), "") if number else (-1, 0, "") if tilde else (1, 0, letters)
        for number, letters, tilde in _PART.findall(version)
    ]
    return [*parts, (0, 0, "")]


def flavour(version: str) -> str:
    """Return what kind of kernel it is: ``6.8.0-31-generic`` is ``generic``, ``5.14.0-503.el9.x86_64+rt`` is ``rt``."""
    if match := _OF_RPM.fullmatch(version):
        return match[1] or ""
    parts = version.split("-")
    words = [number for number, part in enumerate(parts) if part[:1].isalpha() and not _CANDIDATE.fullmatch(part)]
    return "-".join(parts[words[0] :]) if words else ""


def newest(versions: Iterable[str]) -> str:
    """Return the newest of *versions*, of which there is at least one.

    :raises AmbiguousKernelError: if they are of several flavours: none of these is newer than another.
    """
    known = set(versions)
    if len({flavour(version) for version in known}) > 1:
        raise AmbiguousKernelError(known)
    return max(known, key=version_key)
