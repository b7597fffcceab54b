"""iPXE as an EFI program, from Debian's ``ipxe`` package: Debian 13's has both architectures, and the one is enough."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from contracts.arch import Arch
from pipeline.artifact import Artifact, Making
from pipeline.debian.deb_file import newest_time, unpack_debs
from pipeline.debian.package_set import PackageSet
from pipeline.errors import PvmlabError
from pipeline.recipes.packages import fetch, manifest_path, package_facts
from pipeline.workspace import Cache, in_repository

_SUITE = "trixie"


def package_set(arch: Arch) -> PackageSet:
    """Return the package that iPXE is taken from."""
    return PackageSet(name="ipxe", suite=_SUITE, arch=arch, packages=("ipxe",), base=False)


def ipxe(arch: Arch, cache: Cache) -> Artifact:
    """Return the network boot program for UEFI machines of *arch*."""
    wanted = package_set(arch)

    def make(making: Making) -> Mapping[str, Any]:
        packages, debs = fetch(wanted, cache, making)
        unpack_debs(debs, making.scratch / "tree", making=making)
        binary = making.scratch / f"tree/usr/lib/ipxe/ipxe-{arch.debian}.efi"
        if not binary.exists():
            raise PvmlabError(f"Debian's ipxe package has no {binary.name}", details=f"suite {_SUITE}")
        shutil.copyfile(binary, making.output)
        return package_facts(packages, newest_time(debs))

    return Artifact(
        name=f"ipxe:{arch}",
        doc=f"iPXE for UEFI, {arch}",
        cache=cache,
        targets=(cache.ipxe(arch),),
        inputs=(manifest_path(wanted, cache),),
        sources=in_repository("pipeline/debian/deb_file.py", "pipeline/recipes/ipxe.py"),
        tools=("dpkg-deb",),
        make=make,
    )
