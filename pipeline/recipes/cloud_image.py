"""Cloud images: the disk as it is published, and the root filesystem read out of it.

::

    fetch:<distro>:<arch>:cloud_image ─┬─> image   (disk.img.zst)
                                       └─> rootfs  (rootfs.tar.zst)
    packages ──> appliance ────────────────┘
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from contracts.arch import Arch
from distros.release import MediumKind, Release
from pipeline import cpio
from pipeline.appliance.boot import Appliance
from pipeline.appliance.contents import SUITE, find_kernel, initrd_entries, packages, read_module_tree
from pipeline.appliance.root_reader import read_members, read_root
from pipeline.appliance.traces import without_traces
from pipeline.artifact import Artifact, Making
from pipeline.debian.deb_file import newest_time, unpack_debs
from pipeline.debian.package_set import PackageSet
from pipeline.media.cloud_image import ZSTD_LEVEL, inspect_image, write_disk
from pipeline.media.rootfs_tar import write_rootfs
from pipeline.recipes.foreign_rootfs import SOURCES
from pipeline.recipes.media import medium_path
from pipeline.recipes.packages import fetch, manifest_path, package_facts
from pipeline.state import state_of
from pipeline.workspace import Cache, in_repository

_READING = (
    "pipeline/media/cloud_image.py", "pipeline/media/partitions.py", "pipeline/media/qcow2.py",
    "pipeline/media/qcow2_content.py",
)  # fmt: skip


def package_set(arch: Arch) -> PackageSet:
    """Return the packages the appliance is made of."""
    return PackageSet(name="appliance", suite=SUITE, arch=arch, packages=packages(arch), base=False)


def appliance_files(arch: Arch, cache: Cache) -> Appliance:
    """Return where kernel and initrd of the appliance are."""
    folder = cache.root / "appliance" / arch
    return Appliance(arch, kernel=folder / "vmlinuz", initrd=folder / "initrd.gz")


def appliance(arch: Arch, cache: Cache) -> Artifact:
    """Return the appliance: what QEMU boots to read file systems. Only that of the host's architecture is needed."""
    wanted, files = package_set(arch), appliance_files(arch, cache)

    def make(making: Making) -> Mapping[str, Any]:
        found, debs = fetch(wanted, cache, making)
        tree = making.scratch / "tree"
        unpack_debs(debs, tree, making=making)
        kver, kernel = find_kernel(tree)
        shutil.copyfile(kernel, making.outputs[files.kernel])
        making.report("choosing kernel modules")
        cpio.write_gzip(making.outputs[files.initrd], initrd_entries(tree, read_module_tree(tree, kver)))
        return {"kernel": kver, **package_facts(found, newest_time(debs))}

    return Artifact(
        name=f"appliance:{arch}",
        doc=f"the small Linux that reads file systems of cloud images, {arch}",
        cache=cache,
        targets=(files.kernel, files.initrd),
        inputs=(manifest_path(wanted, cache),),
        sources=in_repository(
            "pipeline/appliance/contents.py", "pipeline/appliance/guest", "pipeline/compression.py", "pipeline/cpio.py",
            "pipeline/debian/deb_file.py", "pipeline/elf.py", "pipeline/kernel", "pipeline/recipes/cloud_image.py",
        ),
        tools=("dpkg-deb", "py:isal"),
        make=make,
    )  # fmt: skip


def image(release: Release, arch: Arch, cache: Cache) -> Artifact:
    """Return the whole disk of the cloud image, raw and compressed: for installs that write it as it is."""
    medium = medium_path(release, arch, MediumKind.CLOUD_IMAGE, cache)

    def make(making: Making) -> Mapping[str, Any]:
        found = inspect_image(medium)
        making.note(f"{medium.name}: {found.format.value}, a disk of {found.size} bytes")
        disk = write_disk(found, making.output, listener=making.listener)
        return {"format": found.format.value, "virtual_size": disk.size, **disk.table.facts()}

    return Artifact(
        name=f"image:{release.name}:{arch}",
        doc=f"whole disk of {release.title}, {arch}",
        cache=cache,
        targets=(cache.image(release.name, arch, "disk.img.zst"),),
        inputs=(medium,),
        sources=in_repository(*_READING, "pipeline/recipes/cloud_image.py"),
        options={"zstd": ZSTD_LEVEL},
        tools=("py:isal", "py:zstandard"),
        make=make,
    )


def cloud_rootfs(release: Release, arch: Arch, cache: Cache) -> Artifact:
    """Return the root filesystem in the cloud image, whichever file system it is in."""
    medium = medium_path(release, arch, MediumKind.CLOUD_IMAGE, cache)
    files = appliance_files(Arch.of_host(), cache)

    def make(making: Making) -> Mapping[str, Any]:
        found = inspect_image(medium)
        tar, report = read_root(
            found, files, folder=making.scratch, log=making.log, state=state_of(cache), listener=making.listener
        )
        members = without_traces(read_members(tar))
        summary = write_rootfs(members, making.output, epoch=None, listener=making.listener)
        return {**summary.facts(), **report.facts()}

    return Artifact(
        name=f"rootfs:{release.name}:{arch}",
        doc=f"root filesystem of {release.title}, {arch}, out of its cloud image",
        cache=cache,
        targets=(cache.image(release.name, arch, "rootfs.tar.zst"),),
        inputs=(medium, files.kernel, files.initrd),
        sources=(
            *SOURCES,
            *in_repository(
                *_READING,
                "pipeline/appliance/root_reader.py",
                "pipeline/appliance/traces.py",
                "pipeline/recipes/cloud_image.py",
            ),
        ),
        tools=("py:zstandard",),
        make=make,
    )
