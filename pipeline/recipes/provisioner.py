"""The provisioner: Debian with Docker, the services container already in Docker's store, and a small initrd.

::

    provisioner-rootfs ─┐
    container ──────────┴─> provisioner  (disk.qcow2, vmlinuz, initrd)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.arch import Arch
from pipeline import cpio
from pipeline.artifact import Artifact, Making
from pipeline.debian.mmdebstrap import RootFilesystem, open_tar_zst
from pipeline.debian.package_set import PackageSet
from pipeline.debian.rootfs import decompress
from pipeline.disk_image import Unpacked, make_ext4_qcow2
from pipeline.docker_store import layer_content, write_metadata
from pipeline.kernel.boot_files import extract_boot_files
from pipeline.kernel.modules import pack_modules, read_modules
from pipeline.oci import read_image
from pipeline.recipes.debian_rootfs import debian_rootfs
from pipeline.recipes.packages import inherited_facts
from pipeline.tree_tar import TreeTar
from pipeline.workspace import REPOSITORY, Cache, in_repository
from pxeboot_stack import provisioner as guest

_DISK_GIB = 8
_FILE_SYSTEM_UUID = "3f0e4cb2-6c36-4a36-9d6f-1f1e5c6a9a51"
_BUSYBOX = "usr/bin/busybox"
_INITRD_FOLDERS = ("dev", "proc", "sys", "root")


def _rootfs_path(arch: Arch, cache: Cache) -> Path:
    return cache.provisioner(arch, "rootfs.tar.zst")


def package_set(arch: Arch) -> PackageSet:
    """Return the packages of the provisioner's Debian."""
    return PackageSet(name=guest.NAME, suite=guest.SUITE, arch=arch, packages=guest.PACKAGES)


def rootfs(arch: Arch, cache: Cache) -> Artifact:
    """Return the provisioner's Debian, before our files are laid over it."""
    return debian_rootfs(
        f"provisioner-rootfs:{arch}",
        RootFilesystem(packages=package_set(arch), exclude=guest.EXCLUDED_PATHS, customize=guest.CUSTOMIZE),
        doc=f"the provisioner's Debian, {arch}",
        target=_rootfs_path(arch, cache),
        cache=cache,
    )


def provisioner(arch: Arch, cache: Cache) -> Artifact:
    """Return the provisioner's disk, kernel and initrd."""
    archive, container = _rootfs_path(arch, cache), cache.container(arch)
    disk, vmlinuz, initrd = (cache.provisioner(arch, name) for name in ("disk.qcow2", "vmlinuz", "initrd"))

    def make(making: Making) -> Mapping[str, Any]:
        found = extract_boot_files(archive, vmlinuz=making.outputs[vmlinuz])
        cpio.write_gzip(making.outputs[initrd], _initrd(archive))
        facts = inherited_facts(archive, container)
        _make_disk(archive, container, epoch=facts["epoch"], making=making, output=making.outputs[disk])
        return {"kernel": found.kver, **facts}

    return Artifact(
        name=f"provisioner:{arch}",
        doc=f"provisioner disk with Docker and the services container, {arch}",
        cache=cache,
        targets=(disk, vmlinuz, initrd),
        inputs=(archive, container),
        sources=in_repository(
            "pipeline/compression.py", "pipeline/cpio.py", "pipeline/debian/rootfs.py", "pipeline/disk_image.py",
            "pipeline/docker_store.py", "pipeline/kernel", "pipeline/oci.py",
            "pipeline/recipes/provisioner.py", "pipeline/tree_tar.py",
            "pxeboot_stack/provisioner", "pxeboot_stack/provisioner.py", "pxeboot_stack/provisioner-init",
        ),
        options={"size_gib": _DISK_GIB},
        tools=("mke2fs", "py:isal", "qemu-img", "tar"),
        make=make,
    )  # fmt: skip


def _make_disk(archive: Path, container: Path, *, epoch: int, making: Making, output: Path) -> None:
    system, ours, store = (making.scratch / name for name in ("system.tar", "ours.tar", "store.tar"))
    decompress(archive, system)
    _write_guest_files(ours)
    image = read_image(container, making.scratch)
    sizes = [path.stat().st_size for path in image.plain]
    write_metadata(store, tag=image.tag, image=image.document, layers=image.layers, sizes=sizes)
    make_ext4_qcow2(
        [Unpacked(system), Unpacked(ours), Unpacked(store), *layer_content(image.layers, image.plain)],
        label="provisioner",
        uuid=_FILE_SYSTEM_UUID,
        size_gib=_DISK_GIB,
        epoch=epoch,
        making=making,
        output=output,
    )


def _write_guest_files(output: Path) -> None:
    """Write our files of the provisioner and the links that enable and mask its units."""
    with TreeTar(output) as tree:
        tree.tree(guest.FILES, "")
        for unit, target in sorted(guest.ENABLED_UNITS.items()):
            tree.symlink(f"etc/systemd/system/{target}.wants/{unit}", guest.unit_path(unit))
        for unit in sorted(guest.MASKED_UNITS):
            tree.symlink(f"etc/systemd/system/{unit}", "/dev/null")


def _initrd(archive: Path) -> Iterator[cpio.Entry]:
    """Yield what it takes to reach a root file system on a virtio disk."""
    yield from (cpio.directory(folder) for folder in _INITRD_FOLDERS)
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.regular("init", (REPOSITORY / "pxeboot_stack/provisioner-init").read_bytes(), mode=0o755)
    yield cpio.regular("bin/busybox", _read_member(archive, _BUSYBOX), mode=0o755)
    yield cpio.symlink("bin/sh", "busybox")
    yield from pack_modules(read_modules(archive), guest.INITRD_MODULES)


def _read_member(archive: Path, name: str) -> bytes:
    with open_tar_zst(archive) as members:
        for member in members:
            if member.name.removeprefix("./") == name and (stream := members.extractfile(member)) is not None:
                return stream.read()
    raise FileNotFoundError(f"{name} in {archive}")
