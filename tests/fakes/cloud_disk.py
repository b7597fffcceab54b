"""A cloud image that boots: the system of our own root filesystem, as distributions publish theirs.

::

    GPT ── ESP (FAT16): EFI/BOOT/BOOTX64.EFI = Debian's GRUB, EFI/DEBIAN/GRUB.CFG
        └─ root (ext4): rootfs.tar.zst with cloud-init, which is to grow it

No guest is needed to make it: the FAT is written here, the ext4 by ``mke2fs -d``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import zstandard

from pipeline.disk_image import NO_DEVICES, as_root
from pipeline.run import run

_MIB = 1 << 20
_SECTOR = 512
_CLUSTER = 4 * _SECTOR
_ROOT_UUID = "11111111-aaaa-4bbb-8ccc-0000000000c1"
_TIMEOUT = 300.0
_GRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
# What our own rootfs leaves out, as our installer fills the disk, and every published image has.
_GROWS = """\
cloud_init_modules: [growpart, resizefs, bootcmd, write-files, set_hostname, update_hostname, users-groups, ssh]
"""
_GRUB_CFG = f"""\
search --no-floppy --fs-uuid --set=root {_ROOT_UUID}
linux /boot/KERNEL root=UUID={_ROOT_UUID} ro console=ttyS0,115200 quiet
initrd /boot/INITRD
boot
"""


def make_cloud_disk(rootfs: Path, output: Path, *, scratch: Path, root_mib: int = 1024, esp_mib: int = 16) -> Path:
    """Write the qcow2 image *output* with the system of *rootfs* (tar, compressed by zstd); return it.

    :param scratch: an empty folder, which takes two gigabytes for a while.
    """
    tree, root, raw = scratch / "tree", scratch / "root.ext4", scratch / "disk.raw"
    tree.mkdir()
    archive = scratch / "root.tar"
    with rootfs.open("rb") as packed, archive.open("wb") as unpacked:
        zstandard.ZstdDecompressor().copy_stream(packed, unpacked)
    run(as_root(["tar", "--extract", "--file", archive, "--directory", tree, "--numeric-owner",
                 "--preserve-permissions", NO_DEVICES]), timeout=_TIMEOUT)  # fmt: skip
    archive.unlink()
    kernel, initrd = (next((tree / "boot").glob(f"{kind}-*")).name for kind in ("vmlinuz", "initrd.img"))
    settings = scratch / "99-grows.cfg"
    settings.write_text(_GROWS)
    run(as_root(["cp", "--no-preserve=ownership", settings, tree / "etc/cloud/cloud.cfg.d/99-grows.cfg"]), timeout=60)
    fstab = scratch / "fstab"
    fstab.write_text(f"UUID={_ROOT_UUID} / ext4 rw,discard 0 1\n")
    run(as_root(["cp", "--no-preserve=ownership", fstab, tree / "etc/fstab"]), timeout=60)
    grub = (tree / _GRUB).read_bytes()
    run(as_root(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-U", _ROOT_UUID, "-E",
                 "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1", "-d", tree, root, f"{root_mib}M"]),
        timeout=_TIMEOUT)  # fmt: skip
    run(as_root(["rm", "--recursive", "--force", tree]), timeout=_TIMEOUT)
    config = _GRUB_CFG.replace("KERNEL", kernel).replace("INITRD", initrd)
    esp = make_fat16({"EFI/BOOT/BOOTX64.EFI": grub, "EFI/DEBIAN/GRUB.CFG": config.encode()}, esp_mib)
    _assemble(raw, root=root, root_mib=root_mib, esp=esp, esp_mib=esp_mib)
    run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, output], timeout=_TIMEOUT)
    for path in (root, raw):
        path.unlink()
    return output


def _assemble(raw: Path, *, root: Path, root_mib: int, esp: bytes, esp_mib: int) -> None:
    """Write the whole disk. The root comes last, so that it can grow."""
    with raw.open("wb") as stream:
        stream.truncate((esp_mib + root_mib + 2) * _MIB)
    table = f"label: gpt\nsize={esp_mib}MiB, type=uefi\nsize={root_mib}MiB, type=linux\n"
    run(["sfdisk", "--quiet", raw], input=table, timeout=60)
    with raw.open("r+b") as stream:
        stream.seek(_MIB)
        stream.write(esp)
    run(["dd", f"if={root}", f"of={raw}", "bs=1M", f"seek={1 + esp_mib}", "conv=notrunc,sparse", "status=none"],
        timeout=_TIMEOUT)  # fmt: skip


def make_fat16(files: Mapping[str, bytes], mib: int) -> bytes:
    """Return a FAT16 file system of *mib* MiB with *files*, whose names are upper case, eight letters and three.

    Format: Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103).
    """
    sectors = mib * _MIB // _SECTOR
    fat_sectors = -(-(sectors * _SECTOR // _CLUSTER + 2) * 2 // _SECTOR)
    boot = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s", b"\xeb\x3c\x90", b"PVMLAB  ", _SECTOR, _CLUSTER // _SECTOR, 1, 2, 512,
        sectors if sectors < 65536 else 0, 0xF8, fat_sectors, 32, 64, 0, sectors if sectors >= 65536 else 0, 0x80, 0,
        0x29, 0x1234ABCD, b"ESP        ", b"FAT16   ",
    )  # fmt: skip
    image = bytearray(sectors * _SECTOR)
    image[: len(boot)] = boot
    image[510:512] = b"\x55\xaa"
    root_at = (1 + 2 * fat_sectors) * _SECTOR
    data_at = root_at + 512 * 32
    fat = [0xFFF8, 0xFFFF]

    def store(data: bytes) -> int:
        first, count = len(fat), max(1, -(-len(data) // _CLUSTER))
        fat.extend([*range(first + 1, first + count), 0xFFFF])
        place = data_at + (first - 2) * _CLUSTER
        image[place : place + len(data)] = data
        return first

    def folder(prefix: str, parent: int | None) -> bytes:
        below = {path[len(prefix) :]: data for path, data in files.items() if path.startswith(prefix)}
        entries = []
        for name in sorted({path.partition("/")[0] for path in below}):
            if name in below:
                entries.append(_entry(name, 0x20, store(below[name]), len(below[name])))
            else:
                own = store(bytes(_CLUSTER))  # its cluster is known before what is in it, whose ".." names it
                place = data_at + (own - 2) * _CLUSTER
                content = folder(f"{prefix}{name}/", own)
                dots = _entry(".", 0x10, own, 0) + _entry("..", 0x10, parent or 0, 0)
                image[place : place + len(dots + content)] = dots + content
                entries.append(_entry(name, 0x10, own, 0))
        return b"".join(entries)

    top = folder("", None)
    image[root_at : root_at + len(top)] = top
    for number in range(2):
        table = struct.pack(f"<{len(fat)}H", *fat)
        place = (1 + number * fat_sectors) * _SECTOR
        image[place : place + len(table)] = table
    return bytes(image)


def _entry(name: str, attributes: int, cluster: int, size: int) -> bytes:
    stem, _, suffix = (name, "", "") if name.startswith(".") else name.partition(".")
    short = stem.ljust(8).encode() + suffix.ljust(3).encode()
    return struct.pack("<11sB14xHI", short, attributes, cluster, size)
