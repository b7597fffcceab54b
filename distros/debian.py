"""The Debian family: what goes into an installed system that is made of packages."""

from __future__ import annotations

from pathlib import Path

from contracts.arch import Arch
from distros.release import Release

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


def packages(release: Release, arch: Arch) -> tuple[str, ...]:
    """Return the packages of an installed system, with kernel and bootloader: an install needs no network.

    :raises ValueError: if *release* is not made of packages for *arch*.
    """
    kernel = release.sources[arch].kernel_package
    if kernel is None:
        raise ValueError(f"{release.name}, {arch} is not made of packages")
    return (kernel, *_PACKAGES, *_BOOTLOADER[arch])
