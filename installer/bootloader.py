"""Phase 7: put the bootloader where any firmware finds it, by copying files: no network, no chroot, no firmware entry.

    ESP/EFI/BOOT/   BOOTX64.EFI = shim, grubx64.efi, mmx64.efi    what firmware starts when it knows nothing
    ESP/EFI/<id>/   shimx64.efi, the same, BOOTX64.CSV, grub.cfg   where the signed GRUB looks for its configuration
    /boot/grub/grub.cfg                                            the menu; the one on the ESP only leads to it

The first file is written last: until it is there, the machine boots from the network again. ``<id>`` is the system's
own in os-release(5), ``debian`` or ``ubuntu``: the prefix that is built into its signed GRUB, wherever that is started.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from contracts.arch import Arch
from installer.disk import Layout
from installer.errors import InstallError

_OS_RELEASE = ("usr/lib/os-release", "etc/os-release")  # the latter is a link to the former, if it is not alone
_ID = re.compile(r"""^ID=(["']?)([a-z0-9][a-z0-9._-]*)\1$""", re.MULTILINE)
_DISK_DRIVERS = {  # what it takes to reach a disk, by how its device's name begins
    "/dev/nvme": ("nvme",),
    "/dev/vd": ("virtio_blk", "virtio_pci"),
    "/dev/sd": ("ahci", "libata", "sd_mod"),
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel of the installed system.

    :ivar kver: its version.
    :ivar has_initrd: whether ``/boot/initrd.img-<kver>`` is there.
    :ivar builtin: names of the modules built into it.
    """

    kver: str
    has_initrd: bool
    builtin: frozenset[str]

    def boots_without_initrd(self, device: str) -> bool:
        """Whether it reaches an ext4 root on the disk *device* with nothing but itself."""
        drivers = next((names for prefix, names in _DISK_DRIVERS.items() if device.startswith(prefix)), None)
        return drivers is not None and {"ext4", *drivers} <= self.builtin


def find_kernel(root: Path) -> Kernel:
    """Return the newest kernel installed in *root*.

    :raises InstallError: if there is none, or its modules are missing.
    """
    versions = [path.name.removeprefix("vmlinuz-") for path in root.glob("boot/vmlinuz-*")]
    if not versions:
        raise InstallError("the root filesystem has no /boot/vmlinuz-*: it holds no kernel to boot")
    kver = max(versions, key=_version_key)
    builtin = root / "usr/lib/modules" / kver / "modules.builtin"
    if not builtin.is_file():
        raise InstallError(f"the root filesystem has the kernel {kver}, but not its modules")
    names = (Path(line).name.removesuffix(".ko").replace("-", "_") for line in builtin.read_text().splitlines())
    return Kernel(kver, (root / f"boot/initrd.img-{kver}").is_file(), frozenset(names))


def render_esp_config(layout: Layout) -> str:
    """Return the ``grub.cfg`` on the ESP, which leads to the one on the root."""
    return (
        f"search --no-floppy --fs-uuid --set=root {layout.root_uuid}\n"
        "set prefix=($root)/boot/grub\n"
        "configfile $prefix/grub.cfg\n"
    )


def render_menu(layout: Layout, kernel: Kernel, kernel_args: Sequence[str]) -> str:
    """Return ``/boot/grub/grub.cfg``.

    The first entry needs no initrd if the kernel can do without: that saves seconds. Without an initrd nothing
    translates ``UUID=``, so there the root is named by ``PARTUUID=``.

    :raises InstallError: if the kernel needs an initrd and has none.
    """
    direct = kernel.boots_without_initrd(layout.device)
    if not direct and not kernel.has_initrd:
        raise InstallError(f"the kernel {kernel.kver} needs an initrd to reach {layout.device}, and has none in /boot")
    entries = []
    if direct:
        root = f"root=PARTUUID={layout.root_partuuid} rootfstype=ext4 rootwait"
        entries.append(_render_entry(f"Linux {kernel.kver}", kernel, [root, "ro", *kernel_args], initrd=False))
    if kernel.has_initrd:
        root = f"root=UUID={layout.root_uuid}"
        title = f"Linux {kernel.kver}, with initrd"
        entries.append(_render_entry(title, kernel, [root, "ro", *kernel_args], initrd=True))
    head = (
        "# Written by the pvmlab installer.\n"
        "set timeout=0\n"
        "set default=0\n"
        f"search --no-floppy --fs-uuid --set=root {layout.root_uuid}\n"
    )
    return head + "".join(entries)


def _render_entry(title: str, kernel: Kernel, words: Sequence[str], *, initrd: bool) -> str:
    lines = [f"linux /boot/vmlinuz-{kernel.kver} {' '.join(words)}"]
    if initrd:
        lines.append(f"initrd /boot/initrd.img-{kernel.kver}")
    return f"menuentry '{title}' {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def find_vendor(root: Path) -> str:
    """Return the folder of the ESP in which the system's signed GRUB looks for its configuration.

    :raises InstallError: if the system does not say what it is, or what it says is no name for a folder.
    """
    path = next((root / name for name in _OS_RELEASE if (root / name).is_file()), None)
    match = _ID.search(path.read_text(errors="replace")) if path is not None else None
    if match is None:
        raise InstallError("the root filesystem has no os-release with an ID: which bootloader it has is not known")
    return match[2]


def find_loaders(root: Path, arch: Arch) -> dict[str, Path]:
    """Return the signed programs that the distribution's packages left in *root*: name on the ESP to file.

    :raises InstallError: naming the program that is missing.
    """
    wanted = {
        f"shim{arch.efi}.efi": f"usr/lib/shim/shim{arch.efi}.efi.signed",
        f"grub{arch.efi}.efi": f"usr/lib/grub/*-efi-signed/grub{arch.efi}.efi.signed",
        f"mm{arch.efi}.efi": f"usr/lib/shim/mm{arch.efi}.efi*",  # the MOK manager: only some people need it
    }
    found = {name: _programs(root, pattern) for name, pattern in wanted.items()}
    for name, pattern in wanted.items():
        if not found[name] and not name.startswith("mm"):
            raise InstallError(
                f"the root filesystem has no /{pattern}: the package with the signed bootloader is missing"
            )
    return {name: paths[-1] for name, paths in found.items() if paths}


def _programs(root: Path, pattern: str) -> list[Path]:
    """Return the files that match, no links: Ubuntu's shim is an alternative, a link whose target starts at the root.

    What it leads to is called ``.latest`` (beside ``.previous``).
    """
    found = (path for name in (pattern, f"{pattern}.latest") for path in sorted(root.glob(name)))
    return [path for path in found if not path.is_symlink()]


def render_csv(arch: Arch, vendor: str) -> bytes:
    """Return ``BOOT<arch>.CSV``, from which shim's fallback program makes a firmware entry (UTF-16, as it wants)."""
    return f"shim{arch.efi}.efi,{vendor},,This is the boot entry for {vendor}\n".encode("utf-16")


def install(layout: Layout, kernel_args: Sequence[str], root: Path) -> str:
    """Write both configurations and copy the bootloader; return a sentence about what will boot.

    *root* has the ESP mounted at ``boot/efi``.

    :raises InstallError: if something the boot needs is missing in *root*, or was not written whole.
    """
    kernel = find_kernel(root)
    loaders, name = find_loaders(root, layout.arch), find_vendor(root)
    _write(root / "boot/grub/grub.cfg", render_menu(layout, kernel, kernel_args).encode())
    os.sync()  # all of the system is on the disk before anything can start it
    esp = root / "boot/efi/EFI"
    vendor, removable = esp / name, esp / "BOOT"
    suffix = layout.arch.efi.upper()
    _write(vendor / "grub.cfg", render_esp_config(layout).encode())
    _write(vendor / f"BOOT{suffix}.CSV", render_csv(layout.arch, name))
    for program, source in loaders.items():
        _copy(source, vendor / program)
        if not program.startswith("shim"):
            _copy(source, removable / program)
    os.sync()
    _copy(loaders[f"shim{layout.arch.efi}.efi"], removable / f"BOOT{suffix}.EFI")
    return f"kernel {kernel.kver}, {'without' if kernel.boots_without_initrd(layout.device) else 'with'} initrd"


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)
    if place.stat().st_size != source.stat().st_size or place.stat().st_size == 0:
        raise InstallError(f"{place.name} was not written whole")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if path.read_bytes() != data:
        raise InstallError(f"{path.name} was not written whole")


def _version_key(kver: str) -> list[tuple[int, str]]:
    """Return a key that sorts 6.1.0-9 before 6.1.0-10."""
    words = kver.replace("-", ".").replace("+", ".").split(".")
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]
