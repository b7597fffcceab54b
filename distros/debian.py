"""The Debian family: what goes into an installed system."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from contracts.arch import Arch

# Runs with the new root as $1 at the end of mmdebstrap; its text travels in the command line, because in a user
# namespace the script itself might lie in a home directory that the namespace's root may not enter.
CUSTOMIZE = (Path(__file__).parent / "debian-customize.sh").read_text()

_PACKAGES = (
    "systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "cloud-init", "openssh-server", "sudo", "iproute2",
    "netbase", "e2fsprogs", "fdisk", "dosfstools", "zstd", "initramfs-tools", "ca-certificates", "less",
    "cloud-guest-utils",
)  # fmt: skip
_BOOTLOADER = {
    Arch.X86_64: ("grub-efi-amd64-signed", "grub-efi-amd64-bin", "grub2-common", "shim-signed"),
    Arch.AARCH64: ("grub-efi-arm64-signed", "grub-efi-arm64-bin", "grub2-common", "shim-signed"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebianRelease:
    """One Debian release.

    :ivar suite: its code name, as apt calls it. :ivar kernel_package: for each architecture it can be built for.
    """

    name: str
    title: str
    suite: str
    kernel_package: Mapping[Arch, str]

    @property
    def arches(self) -> tuple[Arch, ...]:
        """The architectures it is built for."""
        return tuple(self.kernel_package)

    def packages(self, arch: Arch) -> tuple[str, ...]:
        """Return the packages of an installed system, with kernel and bootloader: an install needs no network."""
        return (self.kernel_package[arch], *_PACKAGES, *_BOOTLOADER[arch])
