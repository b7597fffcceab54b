"""Which hardware goes together: told when a machine is made and before it starts, not by a boot that hangs."""

from __future__ import annotations

import gzip

from contracts.arch import Arch
from contracts.machine import DiskBus, Installer, MachineSource, NicModel, VmDefinition
from distros.registry import require_release
from lab import tpm
from lab.firmware import find_secure_firmware
from lab.native import require_memory, require_sources
from pipeline.errors import UsageError
from pipeline.workspace import Cache

_DRIVERS = {DiskBus.SATA: "ahci", NicModel.E1000E: "e1000e"}  # those that not every kernel has, by their module
_PAGE = "docs/how-to/choose-hardware.md"


def require_hardware(definition: VmDefinition) -> None:
    """Check that such a machine can be made on this host, and brought to a system.

    :raises UsageError: if parts of it do not go together. :raises PrerequisiteError: if this host lacks something.
    """
    from_network = definition.source is MachineSource.NETWORK
    if from_network and definition.arch is Arch.AARCH64 and definition.nic_model is NicModel.E1000E:
        raise UsageError(
            "an aarch64 machine cannot boot from the network with an e1000e card",
            details="its firmware has no driver for one, and the driver in the card's ROM is for x86 only",
            resolution="--nic-model=virtio",
        )
    if from_network and definition.installer.is_native and definition.first_disk_is_uncertain:
        raise UsageError(
            f"with two {definition.disk_bus} disks, a distribution's installer cannot know which one is the first",
            details="Linux looks at them all at once and names them as they answer",
            resolution=f"have the further ones on another bus: --more-disk SIZE:{DiskBus.VIRTIO}",
        )
    if definition.secure_boot:
        find_secure_firmware(definition.arch)
    if definition.tpm:
        tpm.require_swtpm()


def require_drivers(definition: VmDefinition, cache: Cache) -> None:
    """Check that the kernel that pvmlab installs has drivers for the machine, as far as that kernel is known yet.

    :raises UsageError: if it has not.
    """
    if definition.source is not MachineSource.NETWORK or definition.installer is not Installer.PVMLAB:
        return
    wanted = [part for part in (definition.disk_bus, definition.nic_model) if part in _DRIVERS]
    archive = cache.image(definition.distro, definition.arch, "modules.cpio.gz")
    if not wanted or not archive.exists():
        return
    # it has the modules that the installer needs, and the index of those that are built in
    data = gzip.decompress(archive.read_bytes())
    for part in wanted:
        if f"/{_DRIVERS[part]}.ko".encode() not in data:
            raise UsageError(
                f"the kernel of {definition.distro} has no driver for {part}: {definition.name} would not be installed",
                details=f"{archive} has no module {_DRIVERS[part]}",
                resolution=f"make the machine without it, or from a definition with another kernel: see {_PAGE}",
            )


def require_makeable(definition: VmDefinition, cache: Cache) -> None:
    """Check that this host can make the machine, as far as that is known before its start.

    :raises PvmlabError: if not.
    """
    if definition.installer.is_native:
        require_sources(definition)
    if definition.installer.is_native and definition.managed:
        require_memory(definition, cache, require_release(definition.distro, definition.arch))
    if definition.managed:
        require_hardware(definition)
        require_drivers(definition, cache)
