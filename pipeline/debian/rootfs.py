"""What is read back out of a root filesystem archive: kernel, initrd, kernel version."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import zstandard

from pipeline.debian.mmdebstrap import open_tar_zst
from pipeline.errors import PvmlabError

_BOOT_FILE = re.compile(r"(?:\./)?boot/(vmlinuz|initrd\.img)-(.+)")


def decompress(rootfs: Path, plain: Path) -> None:
    """Write the archive uncompressed to *plain*."""
    with rootfs.open("rb") as source, plain.open("wb") as sink:
        zstandard.ZstdDecompressor().copy_stream(source, sink)


def extract_boot_files(rootfs: Path, outputs: Mapping[str, Path]) -> str:
    """Copy the kernel (``vmlinuz``) and initrd (``initrd.img``) named in *outputs* out of the archive.

    The version is found, never written down.

    :returns: the kernel version.
    :raises PvmlabError: if the archive has none of one kind, or kernels of several versions.
    """
    found: dict[str, str] = {}
    with open_tar_zst(rootfs) as archive:
        for member in archive:
            match = _BOOT_FILE.fullmatch(member.name)
            if match is None or not member.isfile() or match[1] not in outputs:
                continue
            kind, version = match.groups()
            if kind in found:
                raise PvmlabError(f"{rootfs} has more than one {kind}: versions {found[kind]} and {version}")
            found[kind] = version
            source = archive.extractfile(member)
            assert source is not None  # noqa: S101 (isfile() was true)
            with source, outputs[kind].open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    if missing := sorted(outputs.keys() - found.keys()):
        raise PvmlabError(f"{rootfs} has no /boot/{missing[0]}-<version>: no kernel package in it?")
    versions = set(found.values())
    if len(versions) != 1:
        raise PvmlabError(f"{rootfs} has kernel and initrd of different versions: {', '.join(sorted(versions))}")
    return versions.pop()
