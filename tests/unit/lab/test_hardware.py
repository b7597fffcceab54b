from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

from contracts.arch import Arch
from contracts.machine import DiskBus, ExtraDisk, FirmwareKind, Installer, MachineSource, NicModel, VmDefinition
from lab import hardware, tpm
from lab.hardware import require_drivers, require_hardware
from lab.lab import Lab
from pipeline.errors import PrerequisiteError, UsageError

Make = Callable[..., VmDefinition]
INDEX = "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko:\n"


@pytest.fixture
def modules(lab: Lab) -> Callable[[str], None]:
    """Write the archive of modules that the usual distribution's kernel has."""

    def write(text: str) -> None:
        path = lab.cache.image("debian-12", Arch.X86_64, "modules.cpio.gz")
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(text.encode()))

    return write


def test_the_usual_hardware_goes_together(make_definition: Make) -> None:
    require_hardware(make_definition())
    require_hardware(make_definition(nic_model=NicModel.E1000E, disk_bus=DiskBus.SATA))


def test_an_arm_machine_does_not_boot_from_an_intel_card(
    make_definition: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = make_definition(nic_model=NicModel.E1000E)
    object.__setattr__(definition, "arch", Arch.AARCH64)
    with pytest.raises(UsageError, match="cannot boot from the network with an e1000e card"):
        require_hardware(definition)
    object.__setattr__(definition, "source", MachineSource.IMAGE)
    require_hardware(definition)


@pytest.mark.parametrize(
    ("first", "further", "fits"),
    [
        (DiskBus.NVME, DiskBus.NVME, False),
        (DiskBus.SATA, DiskBus.SATA, False),
        (DiskBus.NVME, DiskBus.SATA, True),
        (DiskBus.VIRTIO, DiskBus.VIRTIO, True),
    ],
)
def test_an_installer_of_a_distribution_must_know_the_first_disk(
    make_definition: Make, first: DiskBus, further: DiskBus, fits: bool
) -> None:
    disks = {"disk_bus": first, "more_disks": (ExtraDisk(size_gib=1, bus=further),)}
    native = make_definition(installer=Installer.PRESEED, **disks)
    if fits:
        require_hardware(native)
    else:
        with pytest.raises(UsageError, match=f"with two {first} disks, a distribution's installer cannot know"):
            require_hardware(native)
    require_hardware(make_definition(**disks))  # ours asks the disks for their serial numbers


def test_what_the_host_lacks_is_told_at_once(make_definition: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpm, "PROGRAM", "swtpm-of-nobody")
    with pytest.raises(PrerequisiteError, match="swtpm-of-nobody is not installed") as caught:
        require_hardware(make_definition(tpm=True))
    assert "./pvmlab doctor" in caught.value.resolution

    def none(arch: Arch) -> None:
        raise PrerequisiteError(f"none for {arch}")

    monkeypatch.setattr(hardware, "find_secure_firmware", none)
    with pytest.raises(PrerequisiteError, match="none for x86_64"):
        require_hardware(make_definition(secure_boot=True))


@pytest.mark.parametrize("changes", [{"nic_model": NicModel.E1000E}, {"disk_bus": DiskBus.SATA}])
def test_a_kernel_without_the_driver_is_refused(
    lab: Lab, make_definition: Make, modules: Callable[[str], None], changes: dict[str, object]
) -> None:
    modules("kernel/drivers/net/virtio_net.ko:\n")
    with pytest.raises(UsageError, match=r"the kernel of debian-12 has no driver for (e1000e|sata)") as caught:
        require_drivers(make_definition(**changes), lab.cache)
    assert "has no module" in caught.value.details
    assert "docs/how-to/choose-hardware.md" in caught.value.resolution


def test_a_kernel_with_the_driver_is_fine(lab: Lab, make_definition: Make, modules: Callable[[str], None]) -> None:
    modules(INDEX)
    require_drivers(make_definition(nic_model=NicModel.E1000E), lab.cache)


def test_what_is_not_known_is_not_refused(lab: Lab, make_definition: Make, modules: Callable[[str], None]) -> None:
    require_drivers(make_definition(nic_model=NicModel.E1000E), lab.cache)  # nothing is built yet
    modules("none")
    require_drivers(make_definition(), lab.cache)
    native = {"installer": Installer.PRESEED, "firmware": FirmwareKind.UEFI}
    require_drivers(make_definition(nic_model=NicModel.E1000E, **native), lab.cache)
    require_drivers(make_definition(nic_model=NicModel.E1000E, source=MachineSource.IMAGE), lab.cache)
