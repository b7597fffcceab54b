"""Phase 4: partition the disk, make the file systems, mount them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from contracts.arch import Arch
from installer import command
from installer.errors import InstallError

TARGET = Path("/target")  # where the new root is mounted

MIB = 1 << 20
ESP_MIB = 256
SMALLEST_DISK = 1536 * MIB  # a Debian with cloud-init unpacks to 500 MB
_DISK_WITHIN = 20.0  # seconds for the disk, and for its partitions, to appear
_POLL = 0.05
_WIPED_ENDS = MIB  # GPT lies in the first and last 34 blocks, other systems' signatures not far from them

_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
# Root partitions have a type for each architecture (Discoverable Partitions Specification).
_ROOT_TYPES = {
    Arch.X86_64: "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    Arch.AARCH64: "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What will be on the disk. All identifiers are chosen here, so that nothing has to be read back.

    :ivar device: the disk. :ivar volume_id: of the ESP, eight hex digits.
    """

    device: str
    arch: Arch
    disk_uuid: str
    esp_partuuid: str
    root_partuuid: str
    root_uuid: str
    volume_id: str

    @property
    def esp(self) -> str:
        """Device of the EFI system partition."""
        return self._partition(1)

    @property
    def root(self) -> str:
        """Device of the root partition."""
        return self._partition(2)

    @property
    def esp_uuid(self) -> str:
        """The volume id as ``UUID=`` wants it: ``1A2B-3C4D``."""
        return f"{self.volume_id[:4]}-{self.volume_id[4:]}".upper()

    def _partition(self, number: int) -> str:
        # The kernel puts a "p" after names that end in a digit.
        return f"{self.device}{'p' if self.device[-1].isdigit() else ''}{number}"


def plan(device: str, arch: Arch) -> Layout:
    """Return a layout with fresh identifiers."""
    disk, esp, root, filesystem = (str(uuid.uuid4()) for _ in range(4))
    return Layout(device, arch, disk, esp, root, filesystem, uuid.uuid4().hex[:8])


def render_partition_script(layout: Layout) -> str:
    """Return the input of sfdisk: an ESP, and the root in all the rest."""
    return (
        "label: gpt\n"
        f"label-id: {layout.disk_uuid}\n"
        f"size={ESP_MIB}MiB, type={_ESP_TYPE}, uuid={layout.esp_partuuid}, name=ESP\n"
        f"type={_ROOT_TYPES[layout.arch]}, uuid={layout.root_partuuid}, name=root\n"
    )


def find(device: str, serial: str, *, blocks: Path = Path("/sys/block"), within: float = _DISK_WITHIN) -> str:
    """Return the device of the disk with the number *serial*; without a *serial*, that is *device*.

    :param blocks: where the kernel tells of its disks. :param within: seconds for the disk to appear.
    :raises InstallError: if there is no such disk.
    """
    deadline = time.monotonic() + within
    while serial:
        found = {read_serial(path): path.name for path in sorted(blocks.iterdir())}
        if serial in found:
            return f"/dev/{found[serial]}"
        if time.monotonic() > deadline:
            there = ", ".join(f"{name} ({number})" for number, name in found.items() if number) or "none that has one"
            raise InstallError(f"no disk with the serial number {serial} appeared within {within:g} s: {there}")
        time.sleep(_POLL)
    return device


def read_serial(block: Path) -> str:
    """Return the serial number of the disk *block*, a folder of ``/sys/block``; empty if it tells none."""
    for name in ("device/serial", "serial"):  # NVMe; virtio
        with contextlib.suppress(OSError):
            return (block / name).read_text(errors="replace").strip()
    with contextlib.suppress(OSError):  # SCSI and SATA: SPC-4, section 7.8.15, behind a header of four bytes
        return (block / "device/vpd_pg80").read_bytes()[4:].decode(errors="replace").strip("\0 \n")
    return ""


def require(device: str) -> str:
    """Check the disk, writing nothing; return a sentence about it.

    :raises InstallError: if it is missing, too small or no disk.
    """
    size = wait_for_disk(Path(device), within=_DISK_WITHIN)
    return f"{device} has {size / MIB / 1024:.1f} GiB"


def prepare(layout: Layout) -> None:
    """Wipe the disk, partition it, make both file systems.

    :raises CommandError: if a tool fails.
    :raises InstallError: if it cannot be written to, or the new partitions do not appear.
    """
    wipe(Path(layout.device))
    command.run(
        ["sfdisk", "--wipe", "always", "--wipe-partitions", "always", layout.device],
        timeout=60,
        input=render_partition_script(layout),
    )
    for partition in (layout.esp, layout.root):
        wait_for_disk(Path(partition), within=_DISK_WITHIN, smallest=1)
    command.run(["mkfs.vfat", "-F", "32", "-n", "ESP", "-i", layout.volume_id, layout.esp], timeout=60)
    command.run(
        [
            "mkfs.ext4", "-q", "-F", "-L", "root", "-U", layout.root_uuid,
            "-O", "^orphan_file,^metadata_csum_seed",  # GRUB 2.06 and e2fsprogs before 1.47 know neither
            layout.root,
        ],
        timeout=300,
    )  # fmt: skip


def wait_for_disk(device: Path, *, within: float, smallest: int = SMALLEST_DISK) -> int:
    """Return the size in bytes of the block device *device*, once it is there.

    :param within: seconds.
    :raises InstallError: if it does not appear, is no block device, or is smaller than *smallest* bytes.
    """
    deadline = time.monotonic() + within
    while not device.exists():
        if time.monotonic() > deadline:
            raise InstallError(f"the disk {device} did not appear within {within:g} s; there are: {_list_disks()}")
        time.sleep(_POLL)
    if not stat.S_ISBLK(device.stat().st_mode):
        raise InstallError(f"{device} is not a disk")
    with device.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
    if size < smallest:
        raise InstallError(f"the disk {device} has {size // MIB} MiB, an install needs {smallest // MIB} MiB")
    return size


def wipe(device: Path) -> None:
    """Overwrite both ends of *device*: no firmware, kernel or bootloader finds partitions or old signatures on it.

    :raises InstallError: if it cannot be written to.
    """
    try:
        with device.open("r+b") as disk:
            size = disk.seek(0, os.SEEK_END)
            for start in (0, max(0, size - _WIPED_ENDS)):
                disk.seek(start)
                disk.write(bytes(min(_WIPED_ENDS, size)))
            disk.flush()
            os.fsync(disk.fileno())
    except OSError as error:
        raise InstallError(f"{device} cannot be written to: {error.strerror}") from None


@contextlib.contextmanager
def mounted(layout: Layout, target: Path = TARGET) -> Iterator[Path]:
    """Mount the new file systems at *target* (the ESP at ``boot/efi``); flush and unmount them at the end.

    :raises CommandError: if that fails; at the end too, because then not all was written.
    """
    esp = target / "boot/efi"
    # noinit_itable: the kernel would zero inode tables in the background, in the way of what we write
    command.run(["mount", "-t", "ext4", "-o", "noatime,noinit_itable", layout.root, str(target)], timeout=60)
    esp.mkdir(parents=True)
    command.run(["mount", "-t", "vfat", "-o", "umask=0077", layout.esp, str(esp)], timeout=60)
    try:
        yield target
    except BaseException:
        for place in (esp, target):
            with contextlib.suppress(command.CommandError):  # the first error is the one to tell
                command.run(["umount", "-l", str(place)], timeout=60)
        raise
    for place in (esp, target):
        command.run(["umount", str(place)], timeout=600)


def _list_disks() -> str:
    blocks = Path("/sys/block")
    names = sorted(path.name for path in blocks.iterdir()) if blocks.is_dir() else []
    return ", ".join(f"/dev/{name}" for name in names if not name.startswith(("loop", "ram", "zram"))) or "none"
