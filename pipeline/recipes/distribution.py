"""Artifacts of one distribution release.

::

    packages ──> rootfs ─┬─> kernel   (vmlinuz, initrd)
                         └─> modules  (modules.cpio.gz)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.arch import Arch
from distros import debian
from distros.release import Release
from pipeline import cpio, payload
from pipeline.artifact import Artifact, Making
from pipeline.debian.mmdebstrap import RootFilesystem
from pipeline.debian.package_set import PackageSet
from pipeline.kernel.boot_files import extract_boot_files
from pipeline.kernel.installer_modules import INSTALLER_MODULES, INSTALLER_MODULES_OPTIONAL
from pipeline.kernel.modules import pack_all_modules, pack_modules, read_modules
from pipeline.recipes.debian_rootfs import debian_rootfs
from pipeline.recipes.packages import inherited_facts
from pipeline.workspace import Cache, in_repository


def package_set(release: Release, arch: Arch) -> PackageSet:
    """Return the packages of an installed system."""
    return PackageSet(name=release.name, suite=release.suite, arch=arch, packages=debian.packages(release, arch))


def rootfs(release: Release, arch: Arch, cache: Cache) -> Artifact:
    """Return the root filesystem of an installed system."""
    return debian_rootfs(
        f"rootfs:{release.name}:{arch}",
        RootFilesystem(packages=package_set(release, arch), customize=debian.CUSTOMIZE),
        doc=f"root filesystem of {release.title}, {arch}",
        target=cache.image(release.name, arch, "rootfs.tar.zst"),
        cache=cache,
    )


def kernel(release: Release, arch: Arch, cache: Cache) -> Artifact:
    """Return the kernel and initrd out of the root filesystem."""
    archive = cache.image(release.name, arch, "rootfs.tar.zst")
    vmlinuz, initrd = (cache.image(release.name, arch, name) for name in ("vmlinuz", "initrd"))

    def make(making: Making) -> Mapping[str, Any]:
        found = extract_boot_files(archive, vmlinuz=making.outputs[vmlinuz], initrd=making.outputs[initrd])
        return {"kernel": found.kver, "initrd": found.has_initrd, "epoch": inherited_facts(archive)["epoch"]}

    return Artifact(
        name=f"kernel:{release.name}:{arch}",
        doc=f"kernel and initrd of {release.title}, {arch}",
        cache=cache,
        targets=(vmlinuz, initrd),
        inputs=(archive,),
        sources=in_repository("pipeline/cpio.py", "pipeline/kernel", "pipeline/recipes/distribution.py"),
        make=make,
    )


def modules(release: Release, arch: Arch, cache: Cache, *, selection: str) -> Artifact:
    """Return ``modules.cpio.gz``: the kernel modules an installer needs (*selection* ``installer``), or ``all``."""
    archive = cache.image(release.name, arch, "rootfs.tar.zst")

    def make(making: Making) -> Mapping[str, Any]:
        tree = read_modules(archive)
        if selection == "all":
            entries = pack_all_modules(tree)
        else:
            entries = pack_modules(tree, INSTALLER_MODULES, optional=INSTALLER_MODULES_OPTIONAL)
        cpio.write_gzip(making.output, entries)
        return {
            "kernel": tree.kver,
            "epoch": inherited_facts(archive)["epoch"],
            payload.FACT: payload.tree_digest(entries, modules=True),
        }

    return Artifact(
        name=f"modules:{release.name}:{arch}",
        doc=f"kernel modules for the installer, {release.title}, {arch}",
        cache=cache,
        targets=(cache.image(release.name, arch, "modules.cpio.gz"),),
        inputs=(archive,),
        sources=in_repository(
            "pipeline/compression.py",
            "pipeline/cpio.py",
            "pipeline/kernel",
            "contracts/payload.py",
            "pipeline/payload.py",
            "pipeline/recipes/distribution.py",
        ),
        options={"selection": selection},
        tools=("py:isal",),
        make=make,
    )
