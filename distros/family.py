"""Families of distributions: what is the same for all releases of one, and differs from the others."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from contracts.machine import Installer


@dataclasses.dataclass(frozen=True, kw_only=True)
class NativeInstaller:
    """The distribution's own installer, as booted over the network.

    :ivar kind: whose answer file it takes.
    :ivar members: file under ``images/<distro>/<arch>/native/`` to the names it may have on the ISO (the first that
        is there counts).
    :ivar wants_iso: whether it downloads the whole ISO (``native/install.iso``).
    """

    kind: Installer
    members: Mapping[str, tuple[str, ...]]
    wants_iso: bool = False


class Family(enum.StrEnum):
    """A family, by the name that definitions use."""

    DEBIAN = "debian"
    UBUNTU = "ubuntu"
    FEDORA = "fedora"  # and what is built like it: Rocky, Alma, RHEL
    ALPINE = "alpine"
    SUSE = "suse"

    @property
    def iso_holds_rootfs(self) -> bool:
        """Whether its installer ISO holds a system to take a root filesystem from, not only packages."""
        return self is Family.UBUNTU

    @property
    def native(self) -> NativeInstaller | None:
        """Its own installer, if pvmlab can drive it."""
        return _NATIVE.get(self)


_NATIVE = {
    Family.DEBIAN: NativeInstaller(
        kind=Installer.PRESEED,
        members={
            "vmlinuz": ("install.amd/vmlinuz", "install.a64/vmlinuz"),
            "initrd": ("install.amd/initrd.gz", "install.a64/initrd.gz"),
        },
    ),
    Family.UBUNTU: NativeInstaller(
        kind=Installer.AUTOINSTALL,
        members={"vmlinuz": ("casper/vmlinuz",), "initrd": ("casper/initrd", "casper/initrd.gz", "casper/initrd.lz")},
        wants_iso=True,
    ),
    Family.FEDORA: NativeInstaller(
        kind=Installer.KICKSTART,
        members={
            "vmlinuz": ("images/pxeboot/vmlinuz",),
            "initrd": ("images/pxeboot/initrd.img",),
            "images/install.img": ("images/install.img",),
        },
    ),
}
