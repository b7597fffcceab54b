"""Machines with nothing on them: UEFI firmware and an empty disk, so that no artifact is needed."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.machine import DiskBus
from lab.accelerator import choose_accelerator
from lab.disks import create_empty_disk
from lab.firmware import find_firmware
from lab.machine import Machine
from lab.network import SwitchNetwork
from lab.spec import Disk, Firmware, LanCard, MachineSpec
from pipeline.workspace import Home

MakeMachine = Callable[[str], tuple[Machine, MachineSpec]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def network(home: Home) -> Iterator[SwitchNetwork]:
    switch = SwitchNetwork(home.run)
    yield switch
    switch.stop()


@pytest.fixture
def make_machine(home: Home, network: SwitchNetwork, tmp_path: Path) -> Iterator[MakeMachine]:
    """Return a maker of firmware machines on the switch; they are gone after the test, whatever it did."""
    with contextlib.ExitStack() as stack:

        def make(name: str) -> tuple[Machine, MachineSpec]:
            machine = Machine(name, home=home)
            spec = firmware_spec(machine, network.ensure_started(), tmp_path)
            stack.callback(machine.kill)
            return machine, spec

        yield make


def firmware_spec(machine: Machine, lan_socket: Path, folder: Path) -> MachineSpec:
    firmware = find_firmware(Arch.X86_64)
    variables = folder / f"{machine.name}.vars.fd"
    shutil.copyfile(firmware.variables, variables)
    disk = folder / f"{machine.name}.qcow2"
    create_empty_disk(disk, 1)
    return MachineSpec(
        name=machine.name,
        uuid=str(uuid.uuid4()),
        arch=Arch.X86_64,
        cpus=1,
        memory_mib=256,
        accelerator=choose_accelerator(Arch.X86_64, state=folder),
        boot=Firmware(firmware.code, variables),
        disks=(Disk(disk, DiskBus.NVME, boot_index=0),),
        lan=LanCard(mac=f"52:54:00:00:00:{len(list(folder.glob('*.qcow2'))):02x}", boot_index=1),
        lan_socket=lan_socket,
        serial_log=machine.logs.serial,
        qmp_socket=machine.qmp_socket,
    )
