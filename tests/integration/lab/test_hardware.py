"""Each kind of hardware, accepted by the real QEMU: it starts, halted, and tells by QMP what it was given."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.arch import Arch
from contracts.machine import DiskBus, NicModel
from lab import processes, qmp, tpm
from lab.accelerator import choose_accelerator
from lab.disks import create_empty_disk
from lab.firmware import own_firmware
from lab.machine import Machine, MachineState, QemuStartError
from lab.network import SwitchNetwork
from lab.qemu import GUEST_AGENT, qemu_program
from lab.spec import Bios, Disk, LanCard, MachineSpec
from pipeline.errors import PrerequisiteError
from pipeline.run import find_program
from pipeline.workspace import Home

Make = Callable[..., tuple[Machine, MachineSpec]]


@pytest.fixture
def make(home: Home, network: SwitchNetwork, tmp_path: Path) -> Iterator[Make]:
    """Return a maker of halted machines, each with an NVMe disk of 1 GiB and a virtio card unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def make_halted(
            arch: Arch = Arch.X86_64, *, secure: bool = False, **changes: Any
        ) -> tuple[Machine, MachineSpec]:
            if find_program(qemu_program(arch)) is None:
                pytest.skip(f"no {qemu_program(arch)} here")
            machine = Machine("web1", home=home)
            disk = tmp_path / "web1.qcow2"
            create_empty_disk(disk, 1)
            values: dict[str, Any] = {
                "name": "web1", "uuid": str(uuid.uuid4()), "arch": arch, "cpus": 1, "memory_mib": 256,
                "accelerator": choose_accelerator(arch, state=tmp_path), "disks": (Disk(disk, DiskBus.NVME, 0),),
                "lan": LanCard("52:54:00:00:00:01", boot_index=1), "lan_socket": network.ensure_started(),
                "serial_log": machine.logs.serial, "qmp_socket": machine.qmp_socket, "paused": True,
            }  # fmt: skip
            if "boot" not in changes:
                values["boot"] = own_firmware(arch, tmp_path / f"{arch}.vars.fd", secure=secure)
            stack.callback(machine.kill)
            return machine, MachineSpec(**values | changes)

        yield make_halted


def devices(machine: Machine) -> list[str]:
    """Return the types of the devices that QEMU has, which somebody named on its command line."""
    with qmp.connect(machine.qmp_socket) as client:
        found = []
        for place in ("/machine/peripheral", "/machine/peripheral-anon"):
            found += [str(entry["type"]) for entry in client.execute("qom-list", {"path": place})]
    return [kind.removeprefix("child<").removesuffix(">") for kind in found]


@pytest.mark.parametrize("arch", Arch)
@pytest.mark.parametrize("bus", DiskBus)
def test_disks_of_each_bus(make: Make, arch: Arch, bus: DiskBus, tmp_path: Path) -> None:
    more = [tmp_path / f"more{number}.qcow2" for number in (1, 2)]
    for path in more:
        create_empty_disk(path, 1)
    machine, spec = make(arch)
    disks = (*(dataclasses.replace(disk, bus=bus) for disk in spec.disks), *(Disk(path, bus) for path in more))
    machine.start(dataclasses.replace(spec, disks=disks))
    model = {DiskBus.NVME: "nvme", DiskBus.VIRTIO: "virtio-blk-pci", DiskBus.SATA: "ide-hd"}[bus]
    assert devices(machine).count(model) == 3


@pytest.mark.parametrize("arch", Arch)
@pytest.mark.parametrize("model", NicModel)
def test_cards_of_each_model(make: Make, arch: Arch, model: NicModel) -> None:
    cards = [LanCard(f"52:54:00:00:00:0{number}", boot_index=number, model=model) for number in (1, 2)]
    machine, spec = make(arch, lan=cards[0], more_lan=(cards[1],))
    machine.start(spec)
    assert devices(machine).count({NicModel.VIRTIO: "virtio-net-pci", NicModel.E1000E: "e1000e"}[model]) == 2


def test_the_most_disks_that_a_definition_may_have(make: Make, tmp_path: Path) -> None:
    machine, spec = make()
    buses = [*[DiskBus.SATA] * 6, *[DiskBus.VIRTIO] * 5, *[DiskBus.NVME] * 5]
    disks = []
    for number, bus in enumerate(buses):
        create_empty_disk(path := tmp_path / f"{number}.qcow2", 1)
        disks.append(Disk(path, bus, 0 if number == 0 else None))
    cards = [LanCard(f"52:54:00:00:00:0{number}", boot_index=number) for number in range(1, 9)]
    machine.start(
        dataclasses.replace(
            spec, disks=tuple(disks), lan=cards[0], more_lan=tuple(cards[1:]), display=True,
            guest_agent_socket=machine.qmp_socket.with_suffix(".agent"),
        )
    )  # fmt: skip
    assert len([kind for kind in devices(machine) if kind in {"ide-hd", "virtio-blk-pci", "nvme"}]) == 16


def test_a_bios_and_what_goes_with_it(make: Make) -> None:
    machine, spec = make(boot=Bios(), display=True)
    machine.start(spec)
    assert "VGA" in devices(machine)


@pytest.mark.parametrize("arch", Arch)
def test_display_guest_agent_and_random_numbers(make: Make, arch: Arch) -> None:
    machine, spec = make(arch, display=True)
    machine.start(dataclasses.replace(spec, guest_agent_socket=machine.qmp_socket.with_suffix(".agent")))
    assert {"virtio-rng-pci", "virtserialport", "VGA" if arch is Arch.X86_64 else "virtio-gpu-pci"} <= {
        *devices(machine)
    }
    with qmp.connect(machine.qmp_socket) as client:
        channels = [str(entry["label"]) for entry in client.execute("query-chardev")]
    assert "agent0" in channels
    assert GUEST_AGENT == "org.qemu.guest_agent.0"


@pytest.mark.parametrize("arch", Arch)
def test_secure_boot(make: Make, arch: Arch) -> None:
    try:
        machine, spec = make(arch, secure=True)
    except PrerequisiteError as error:
        pytest.skip(error.brief)
    machine.start(spec)
    if arch is Arch.X86_64:
        with qmp.connect(machine.qmp_socket) as client:
            assert client.execute("qom-get", {"path": "/machine", "property": "smm"}) == "on"


def test_arguments_of_a_persons_own_are_the_last(make: Make, home: Home) -> None:
    machine, spec = make(more_arguments=("-device", "edu", "-m", "300"))
    machine.start(spec)
    assert "edu" in devices(machine)
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-memory-size-summary")["base-memory"] == 300 << 20


def test_arguments_that_qemu_does_not_know_are_told_in_its_words(make: Make) -> None:
    machine, spec = make(more_arguments=("-device", "no-such-thing"))
    with pytest.raises(QemuStartError) as caught:
        machine.start(spec)
    assert "no-such-thing" in caught.value.details
    assert machine.state() is MachineState.OFF


def test_a_machine_that_may_not_reboot_is_off_instead(make: Make) -> None:
    machine, spec = make(reboots=False)
    machine.start(spec)
    with qmp.connect(machine.qmp_socket) as client:
        client.execute("cont")
        client.execute("system_reset")
    deadline = time.monotonic() + 10
    while machine.state() is MachineState.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert machine.state() is MachineState.OFF


class TestTpm:
    """A TPM 2.0."""

    @pytest.fixture
    def with_tpm(self, make: Make, home: Home) -> Callable[..., tuple[Machine, MachineSpec]]:
        if find_program(tpm.PROGRAM) is None:
            pytest.skip(f"no {tpm.PROGRAM} here")
        return lambda arch=Arch.X86_64, **more: make(arch, tpm=tpm.tpm_of(home, "web1"), **more)

    @staticmethod
    def process_id(home: Home) -> int:
        record = processes.find_record(home.run / "_tpm-web1.json")
        assert record is not None
        assert record.pid is not None
        return record.pid

    @pytest.mark.parametrize("arch", Arch)
    def test_is_there_as_long_as_the_machine(self, with_tpm: Make, home: Home, arch: Arch) -> None:
        machine, spec = with_tpm(arch)
        machine.start(spec)
        with qmp.connect(machine.qmp_socket) as client:
            assert [entry["model"] for entry in client.execute("query-tpm")] == [
                {Arch.X86_64: "tpm-crb", Arch.AARCH64: "tpm-tis"}[arch]
            ]
        pid = self.process_id(home)
        assert tpm.find_fault(home, "web1") is None
        assert list(tpm.tpm_of(home, "web1").state.glob("tpm2-*"))
        assert tpm.tpm_of(home, "web1").state.stat().st_mode & 0o777 == 0o700
        machine.stop(timeout=0, force=True)
        assert not Path(f"/proc/{pid}").exists()
        assert {path.suffix for path in home.run.iterdir()} <= {".lock", ".json", ".lan", ".ask", ".log"}
        assert not list(home.run.glob("*tpm*"))

    def test_ends_with_a_machine_that_is_killed(self, with_tpm: Make, home: Home) -> None:
        machine, spec = with_tpm()
        machine.start(spec)
        pid = self.process_id(home)
        record = processes.find_record(home.run / "web1.json")
        assert record is not None
        assert record.pid is not None
        os.kill(record.pid, signal.SIGKILL)
        deadline = time.monotonic() + 2
        while Path(f"/proc/{pid}/exe").exists():
            assert time.monotonic() < deadline
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            time.sleep(0.02)

    def test_whose_process_died_is_told_and_comes_back(self, with_tpm: Make, home: Home) -> None:
        machine, spec = with_tpm()
        machine.start(spec)
        os.kill(self.process_id(home), signal.SIGKILL)
        deadline = time.monotonic() + 2
        while (fault := tpm.find_fault(home, "web1")) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "its TPM" in fault
        assert "has died" in fault
        assert machine.is_running()
        machine.stop(timeout=0, force=True)
        machine.start(spec)
        assert tpm.find_fault(home, "web1") is None

    def test_keeps_what_is_in_it(self, with_tpm: Make, home: Home) -> None:
        machine, spec = with_tpm()
        machine.start(spec)
        machine.stop(timeout=0, force=True)
        kept = sorted(path.name for path in tpm.tpm_of(home, "web1").state.iterdir())
        machine.start(spec)
        assert "tpm2-00.permall" in kept
        assert machine.is_running()

    def test_whose_state_is_damaged_keeps_the_machine_off(self, with_tpm: Make, home: Home) -> None:
        machine, spec = with_tpm()
        machine.start(spec)
        machine.stop(timeout=0, force=True)
        (tpm.tpm_of(home, "web1").state / "tpm2-00.permall").write_bytes(b"damaged")
        with pytest.raises(QemuStartError, match="web1") as caught:
            machine.start(spec)
        assert "tpm" in caught.value.details.lower()
        assert not list(home.run.glob("*tpm*"))

    def test_of_a_start_that_fails_is_not_left(self, with_tpm: Make, home: Home) -> None:
        machine, spec = with_tpm(more_arguments=("-device", "no-such-thing"))
        with pytest.raises(QemuStartError):
            machine.start(spec)
        assert not list(home.run.glob("*tpm*"))

    def test_without_swtpm_is_refused(self, with_tpm: Make, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        machine, spec = with_tpm()
        monkeypatch.setattr(tpm, "PROGRAM", "swtpm-of-nobody")
        with pytest.raises(PrerequisiteError, match="swtpm-of-nobody is not installed"):
            machine.start(spec)
        assert machine.state() is MachineState.OFF
