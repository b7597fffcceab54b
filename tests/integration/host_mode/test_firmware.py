"""Real firmware that boots from the services of host mode, up to what the boot handler has iPXE show.

All of it is real: firmware, iPXE, the lab's switch, dnsmasq, nginx and the boot handler; and the other DHCP server.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from contracts.arch import Arch
from contracts.lan import DhcpMode
from contracts.machine import FirmwareKind
from lab import provisioner
from lab.accelerator import choose_accelerator
from lab.firmware import own_firmware
from lab.lab import Lab
from lab.lan_settings import LanRequest
from lab.machine import Machine
from lab.spec import Bios, LanCard, MachineSpec
from pipeline.errors import PrerequisiteError
from pipeline.recipes.build import ensure
from pipeline.workspace import Workspace
from tests.fakes.lab_files import make_machine, write_definition
from tests.integration.host_mode.conftest import KNOWN_THERE, Office, start_services

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]
MAC = KNOWN_THERE
SCREEN = f"pvmlab: no machine of this lab has the MAC address {MAC}"
StartFirmware = Callable[[Lab, Arch, FirmwareKind], Machine]


@pytest.fixture
def start_firmware() -> Iterator[StartFirmware]:
    """Start a machine without a disk that the lab does not know, with the boot programs of this checkout."""
    started: list[Machine] = []

    def start(lab: Lab, arch: Arch, kind: FirmwareKind) -> Machine:
        machine = Machine("unknown", home=lab.home)
        try:
            accelerator = choose_accelerator(arch, state=lab.home.run)
            firmware = own_firmware(arch, lab.home.disks / "unknown.vars.fd", http=kind is FirmwareKind.UEFI_HTTP)
        except PrerequisiteError as error:
            pytest.skip(error.brief)
        started.append(machine)
        machine.start(
            MachineSpec(
                name=machine.name, uuid="00000000-0000-4000-8000-0000000000bb", arch=arch, cpus=1, memory_mib=512,
                accelerator=accelerator, boot=Bios() if kind is FirmwareKind.BIOS else firmware, disks=(),
                lan=LanCard(MAC, boot_index=0), lan_socket=lab.network.attach(machine.name, 1),
                serial_log=machine.logs.serial, qmp_socket=machine.qmp_socket,
            )
        )  # fmt: skip
        return machine

    yield start
    for machine in started:
        machine.kill()


def put_boot_programs(lab: Lab) -> None:
    """Have the lab offer the iPXE programs of the cache, which are built now if they were not."""
    ensure([f"ipxe:{arch}" for arch in Arch])
    built = Workspace.from_environment().cache
    for arch in Arch:
        shutil.copyfile(built.ipxe(arch), lab.cache.ipxe(arch))


def wait_for_text(lab: Lab, machine: Machine, text: str, *, seconds: float) -> str:
    """Return what the services said until the machine showed *text*."""
    deadline = time.monotonic() + seconds
    while text not in (said := "\n".join(machine.serial_tail(200))):
        if time.monotonic() > deadline or not machine.is_running():
            services = "\n".join(lab.provisioner.serial_tail(40))
            pytest.fail(f"no {text!r}, the console said last:\n{said[-1500:]}\nthe services:\n{services}")
        time.sleep(0.1)
    return lab.provisioner.logs.serial.read_text()


@pytest.mark.parametrize(
    ("kind", "program"),
    [
        (FirmwareKind.UEFI, "/ipxe-x86_64.efi to 192.168.100.20"),  # asks on port 4011, then by TFTP
        pytest.param(FirmwareKind.UEFI_HTTP, '"path":"/ipxe/ipxe-x86_64.efi"', marks=pytest.mark.nightly),
        pytest.param(FirmwareKind.BIOS, '"path":"/boot.ipxe"', marks=pytest.mark.nightly),  # the card's ROM is an iPXE
    ],
)
def test_a_machine_boots_beside_a_foreign_dhcp_server(
    host_lab: Lab, office: Office, start_firmware: StartFirmware, kind: FirmwareKind, program: str
) -> None:
    put_boot_programs(host_lab)
    write_definition(host_lab.home.vms, make_machine(mac=MAC, ip="192.168.100.20"))  # where the other server has it
    proxy = LanRequest(dhcp=DhcpMode.PROXY, address="192.168.100.7")
    office.host.call(provisioner.create, host_lab, None, network=proxy, interface="br0")
    office.host.call(start_services, host_lab)
    machine = start_firmware(host_lab, Arch.X86_64, kind)
    said = wait_for_text(host_lab, machine, "web1 installs debian-12", seconds=150)
    assert program in said


@pytest.mark.nightly  # emulated on most hosts, and nothing of ours but the program's name is the architecture's
@pytest.mark.parametrize("kind", [FirmwareKind.UEFI, FirmwareKind.UEFI_HTTP])
def test_an_arm64_machine_boots_to_the_boot_handlers_screen(
    host_lab: Lab, start_firmware: StartFirmware, kind: FirmwareKind
) -> None:
    put_boot_programs(host_lab)
    start_services(host_lab)
    said = wait_for_text(host_lab, start_firmware(host_lab, Arch.AARCH64, kind), SCREEN, seconds=120)
    by_tftp, by_http = "/ipxe-aarch64.efi to 192.168.100.", '"path":"/ipxe/ipxe-aarch64.efi"'
    assert (by_tftp in said, by_http in said) == ((kind is FirmwareKind.UEFI), (kind is FirmwareKind.UEFI_HTTP))
