"""iPXE as boot programs, from Debian's ``ipxe`` package: Debian 13's has those of both architectures, and is for any.

x86_64 machines boot by UEFI or BIOS, so that there are two programs for them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.arch import BIOS_BINARY, Arch
from pipeline.artifact import Artifact, Making
from pipeline.debian.deb_file import newest_time, unpack_debs
from pipeline.debian.package_set import PackageSet
from pipeline.errors import PvmlabError
from pipeline.recipes.packages import fetch, manifest_path, package_facts
from pipeline.workspace import Cache, in_repository

_SUITE = "trixie"


def package_set() -> PackageSet:
    """Return the package that iPXE is taken from. It is in the lists of any architecture; these are there anyway."""
    return PackageSet(name="ipxe", suite=_SUITE, arch=Arch.X86_64, packages=("ipxe",), base=False)


def ipxe(arch: Arch, cache: Cache) -> Artifact:
    """Return the network boot programs for machines of *arch*."""
    wanted = package_set()
    names = _programs(arch, cache)

    def make(making: Making) -> Mapping[str, Any]:
        packages, debs = fetch(wanted, cache, making)
        unpack_debs(debs, making.scratch / "tree", making=making)
        for target, name in names.items():
            binary = making.scratch / "tree/usr/lib/ipxe" / name
            if not binary.exists():
                raise PvmlabError(f"Debian's ipxe package has no {binary.name}", details=f"suite {_SUITE}")
            shutil.copyfile(binary, making.outputs[target])
        return package_facts(packages, newest_time(debs))

    return Artifact(
        name=f"ipxe:{arch}",
        doc=f"iPXE, {arch}",
        cache=cache,
        targets=tuple(names),
        inputs=(manifest_path(wanted, cache),),
        sources=in_repository("pipeline/debian/deb_file.py", "pipeline/recipes/ipxe.py"),
        tools=("dpkg-deb",),
        make=make,
    )


def _programs(arch: Arch, cache: Cache) -> dict[Path, str]:
    """Return for each program of *arch* its name in Debian's package."""
    bios = {cache.ipxe_bios: BIOS_BINARY} if arch is Arch.X86_64 else {}
    return {cache.ipxe(arch): f"ipxe-{arch.debian}.efi", **bios}
