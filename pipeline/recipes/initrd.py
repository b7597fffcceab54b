"""The initrd the installer runs in: one for each architecture, for all distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.arch import Arch
from pipeline import cpio, payload
from pipeline.artifact import Artifact, Making
from pipeline.debian.deb_file import newest_time, unpack_debs
from pipeline.debian.package_set import PackageSet
from pipeline.initrd import INITRD_PACKAGES, INITRD_SUITE, installer_initrd
from pipeline.recipes.packages import fetch, manifest_path, package_facts
from pipeline.workspace import Cache, in_repository

_SOURCES = in_repository(
    "installer", "contracts", "pipeline/compression.py", "pipeline/cpio.py", "pipeline/debian/deb_file.py",
    "pipeline/elf.py", "pipeline/initrd.py", "pipeline/payload.py", "pipeline/recipes/initrd.py",
    "pipeline/sourceless.py",
)  # fmt: skip


def package_set(arch: Arch) -> PackageSet:
    """Return the packages that the installer's programs are taken from."""
    return PackageSet(name="initrd", suite=INITRD_SUITE, arch=arch, packages=INITRD_PACKAGES, base=False)


def initrd(arch: Arch, cache: Cache) -> Artifact:
    """Return the installer's initrd."""
    wanted = package_set(arch)

    def make(making: Making) -> Mapping[str, Any]:
        packages, debs = fetch(wanted, cache, making)
        tree = making.scratch / "tree"
        unpack_debs(debs, tree, making=making)
        entries = installer_initrd(tree)
        cpio.write_gzip(making.output, entries)
        return {**package_facts(packages, newest_time(debs)), payload.FACT: payload.tree_digest(entries, modules=False)}

    return Artifact(
        name=f"initrd:{arch}",
        doc=f"installer initrd, {arch}",
        cache=cache,
        targets=(cache.installer_initrd(arch),),
        inputs=(manifest_path(wanted, cache),),
        sources=_SOURCES,
        tools=("dpkg-deb", "py:isal"),
        make=make,
    )
