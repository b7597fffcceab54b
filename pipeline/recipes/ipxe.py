"""iPXE as an EFI program, from Debian's ``ipxe`` package: Debian 13's has both architectures, and the one is enough."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from contracts.arch import Arch
from pipeline.apt_sources import host_mirror
from pipeline.artifact import Artifact, Making
from pipeline.errors import PvmlabError
from pipeline.mmdebstrap import PackageSet, extract_packages
from pipeline.workspace import Cache

_SUITE = "trixie"


def ipxe(arch: Arch, cache: Cache) -> Artifact:
    """Return the network boot program for UEFI machines of *arch*."""
    # The package is for all architectures: unpack it as the host's own, no foreign code is run.
    wanted = PackageSet(suite=_SUITE, arch=Arch.of_host(), packages=("ipxe",), variant="extract")

    def make(making: Making) -> Mapping[str, str]:
        versions = extract_packages(wanted, host_mirror(), making.scratch / "tree", making=making)
        binary = making.scratch / f"tree/usr/lib/ipxe/ipxe-{arch.debian}.efi"
        if not binary.exists():
            raise PvmlabError(f"Debian's ipxe package has no {binary.name}", details=f"suite {_SUITE}")
        shutil.copyfile(binary, making.output)
        return versions

    return Artifact(
        name=f"ipxe:{arch}",
        doc=f"iPXE for UEFI, {arch}",
        cache=cache,
        targets=(cache.ipxe(arch),),
        options={"suite": _SUITE, "packages": wanted.packages, "binary": f"ipxe-{arch.debian}.efi"},
        make=make,
    )
