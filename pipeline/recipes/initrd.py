"""The initrd the installer runs in: one for each architecture, for all distributions."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.arch import Arch
from pipeline import cpio
from pipeline.apt_sources import host_mirror
from pipeline.artifact import Artifact, Making
from pipeline.initrd import INITRD_PACKAGES, INITRD_SUITE, installer_initrd
from pipeline.mmdebstrap import PackageSet, extract_packages
from pipeline.workspace import REPOSITORY, Cache

_SOURCES = (
    "installer", "contracts", "pipeline/cpio.py", "pipeline/elf.py", "pipeline/initrd.py", "pipeline/sourceless.py",
)  # fmt: skip


def initrd(arch: Arch, cache: Cache) -> Artifact:
    """Return the installer's initrd."""
    wanted = PackageSet(suite=INITRD_SUITE, arch=arch, packages=INITRD_PACKAGES, variant="extract")

    def make(making: Making) -> Mapping[str, str]:
        tree = making.scratch / "tree"
        versions = extract_packages(wanted, host_mirror(), tree, making=making)
        cpio.write_gzip(making.output, installer_initrd(tree))
        return versions

    return Artifact(
        name=f"initrd:{arch}",
        doc=f"installer initrd, {arch}",
        cache=cache,
        targets=(cache.installer_initrd(arch),),
        sources=tuple(REPOSITORY / path for path in _SOURCES),
        options=wanted.options(),
        make=make,
    )
