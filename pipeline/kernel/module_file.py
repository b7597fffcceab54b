"""One module's file: its name, its content, and what it says of itself.

A module is an ELF object whose section ``.modinfo`` holds texts ``key=value``, each ended by a zero byte; that is what
depmod(8) reads as well.
"""

from __future__ import annotations

import re
import struct

from pipeline.errors import PvmlabError
from pipeline.kernel.packed import SUFFIXES, unpack

_COMPRESSED = re.compile(rf"\.ko\.({'|'.join(SUFFIXES)})\Z")
_MAX_MODULE = 256 << 20  # bytes; the largest there is has 20 to 30 MiB
_ELF64 = b"\x7fELF\2\1"  # little-endian
_SECTIONS, _SECTION = struct.Struct("<40xQ10xHHH"), struct.Struct("<I20xQQ24x")  # elf(5): Elf64_Ehdr, Elf64_Shdr
_VERMAGIC = b"vermagic="


class ModuleMismatchError(PvmlabError):
    """A module was built for another kernel than the one it lies with."""

    def __init__(self, path: str, *, kver: str, built_for: str) -> None:
        self.kver, self.built_for = kver, built_for
        super().__init__(
            f"{path} is a module of kernel {built_for}, not of {kver}",
            details="The kernel would refuse to load it.",
            resolution="make the root filesystem again from a whole medium",
        )


def module_name(path: str) -> str:
    """Return the name of the module at *path*: ``kernel/fs/nls/nls_iso8859-1.ko.xz`` is ``nls_iso8859_1``."""
    return path.rsplit("/", 1)[-1].partition(".ko")[0].replace("-", "_")


def compression(path: str) -> str | None:
    """Return how the module at *path* is compressed: ``xz``, ``zst``, ``gz``, or None."""
    match = _COMPRESSED.search(path)
    return match[1] if match else None


def uncompressed_path(path: str) -> str:
    """Return *path* as it is called once it is unpacked."""
    suffix = compression(path)
    return path.removesuffix(f".{suffix}") if suffix else path


def unpack_module(path: str, data: bytes) -> bytes:
    """Return the module itself.

    :raises DamagedFileError: if it is not whole, or larger than any module.
    """
    suffix = compression(path)
    return unpack(data, suffix, limit=_MAX_MODULE, name=path) if suffix else data


def require_version(path: str, module: bytes, kver: str) -> None:
    """Check which kernel an unpacked module was built for; one that does not say passes.

    :raises ModuleMismatchError: if it is another than *kver*.
    """
    place = module.find(_VERMAGIC)
    if place >= 0 and not module.startswith(kver.encode() + b" ", place + len(_VERMAGIC)):
        text = module[place + len(_VERMAGIC) :][:256].partition(b"\0")[0]
        raise ModuleMismatchError(path, kver=kver, built_for=text.decode(errors="replace").split(" ")[0])


def read_modinfo(path: str, module: bytes) -> dict[str, list[str]]:
    """Return what an unpacked module says of itself: ``depends``, ``alias``, ``softdep`` ... to values in order.

    :raises PvmlabError: if it is no ELF object of a 64-bit machine, or damaged.
    """
    try:
        section = _find_section(module, b".modinfo")
    except (struct.error, ValueError) as error:
        raise PvmlabError(f"{path} is no kernel module", details=str(error)) from error
    found: dict[str, list[str]] = {}
    for text in section.decode(errors="replace").split("\0"):
        key, equals, value = text.partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found


def _find_section(module: bytes, name: bytes) -> bytes:
    if not module.startswith(_ELF64):
        raise ValueError("it is no 64-bit ELF object")
    table, entry, count, names = _SECTIONS.unpack_from(module)
    headers = [_SECTION.unpack_from(module, table + number * entry) for number in range(count)]
    _, strings, _ = headers[names] if names < count else (0, 0, 0)
    for label, offset, size in headers:
        if module.startswith(name + b"\0", strings + label):
            return module[offset : offset + size]
    raise ValueError(f"it has no section {name.decode()}")
