from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.machine import FIRST_DISK_SERIAL, DiskBus, NicModel
from lab.qemu import qemu_arguments
from lab.spec import (
    Accelerator,
    AcceleratorKind,
    Bios,
    DirectKernel,
    Disk,
    Firmware,
    LanCard,
    LanTaps,
    MachineSpec,
    Share,
    Tpm,
    WanCard,
)

TCG = Accelerator(AcceleratorKind.TCG, "max,-cx16", "because", 5.0)
KVM = Accelerator(AcceleratorKind.KVM, "host", "because", 1.0)

FIRMWARE = Firmware(Path("/fw/CODE.fd"), Path("/home/disks/web1.vars.fd"))
TARGET = MachineSpec(
    name="web1",
    uuid="5a3b2c1d-0000-4000-8000-000000000001",
    arch=Arch.X86_64,
    cpus=2,
    memory_mib=1024,
    accelerator=TCG,
    boot=FIRMWARE,
    disks=(Disk(Path("/home/disks/web1.qcow2"), DiskBus.NVME, boot_index=0),),
    lan=LanCard("52:54:00:00:00:01", boot_index=1),
    lan_socket=Path("/home/run/_switch.lan"),
    serial_log=Path("/home/logs/web1.serial.log"),
    qmp_socket=Path("/home/run/web1.qmp"),
    sandbox=True,
)

PROVISIONER = dataclasses.replace(
    TARGET,
    name="provisioner",
    accelerator=KVM,
    boot=DirectKernel(Path("/c/vmlinuz"), Path("/c/initrd"), "root=/dev/vda console=ttyS0,115200"),
    disks=(Disk(Path("/home/disks/provisioner.qcow2"), DiskBus.VIRTIO),),
    lan=LanCard("52:54:00:00:00:02", pci_slot=0x10),
    wan=WanCard("52:54:00:00:00:03", ssh_port=2222, pci_slot=0x11),
    shares=(Share("images", Path("/c/images")), Share("status", Path("/home/status"), writable=True)),
    qmp_socket=Path("/home/run/provisioner.qmp"),
    serial_log=Path("/home/logs/provisioner.serial.log"),
    sandbox=False,
)

_DISK = "format=qcow2,cache=unsafe,discard=unmap"
_CHARDEV = "server=on,wait=off,logfile=/home/logs/{0}.serial.log,logappend=on"


def test_a_target_boots_its_disk_and_else_the_network() -> None:
    assert qemu_arguments(TARGET) == [
        "qemu-system-x86_64",
        "-name", "web1,process=pvmlab-web1",
        "-uuid", "5a3b2c1d-0000-4000-8000-000000000001",
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine", "q35",
        "-accel", "tcg,thread=multi,tb-size=256",
        "-cpu", "max,-cx16",
        "-smp", "2",
        "-m", "1024",
        "-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/fw/CODE.fd",
        "-drive", "if=pflash,unit=1,format=raw,file=/home/disks/web1.vars.fd",
        "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
        "-device", "virtio-rng-pci",
        "-drive", f"if=none,id=disk0,{_DISK},file=/home/disks/web1.qcow2",
        "-device", "nvme,drive=disk0,serial=pvmlab-disk0,bootindex=0",
        "-netdev", "stream,id=lan,server=off,addr.type=unix,addr.path=/home/run/_switch.lan",
        "-device", "virtio-net-pci,netdev=lan,mac=52:54:00:00:00:01,romfile=,bootindex=1",
        "-chardev", "socket,id=serial0,path=/home/run/web1.serial," + _CHARDEV.format("web1"),
        "-serial", "chardev:serial0",
        "-qmp", "unix:/home/run/web1.qmp,server=on,wait=off",
    ]  # fmt: skip


def test_the_provisioner_boots_a_kernel_and_has_a_way_out() -> None:
    assert qemu_arguments(PROVISIONER) == [
        "qemu-system-x86_64",
        "-name", "provisioner,process=pvmlab-provisioner",
        "-uuid", "5a3b2c1d-0000-4000-8000-000000000001",
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-machine", "q35",
        "-accel", "kvm",
        "-cpu", "host",
        "-smp", "2",
        "-m", "1024",
        "-kernel", "/c/vmlinuz",
        "-initrd", "/c/initrd",
        "-append", "root=/dev/vda console=ttyS0,115200",
        "-device", "virtio-rng-pci",
        "-drive", f"if=none,id=disk0,{_DISK},file=/home/disks/provisioner.qcow2",
        "-device", "virtio-blk-pci,drive=disk0,serial=pvmlab-disk0",
        "-netdev", "stream,id=lan,server=off,addr.type=unix,addr.path=/home/run/_switch.lan",
        "-device", "virtio-net-pci,netdev=lan,mac=52:54:00:00:00:02,romfile=,addr=0x10",
        "-netdev", "user,id=wan,hostfwd=tcp:127.0.0.1:2222-:22",
        "-device", "virtio-net-pci,netdev=wan,mac=52:54:00:00:00:03,romfile=,addr=0x11",
        "-virtfs", "local,path=/c/images,mount_tag=images,security_model=none,readonly=on,multidevs=remap",
        "-virtfs", "local,path=/home/status,mount_tag=status,security_model=none,readonly=off,multidevs=remap",
        "-chardev", "socket,id=serial0,path=/home/run/provisioner.serial," + _CHARDEV.format("provisioner"),
        "-serial", "chardev:serial0",
        "-qmp", "unix:/home/run/provisioner.qmp,server=on,wait=off",
    ]  # fmt: skip


def test_uefi_http_boot_is_not_held_up_by_pxe() -> None:
    boot = Firmware(Path("/fw/CODE.fd"), Path("/home/disks/web1.vars.fd"), http=True)
    words = qemu_arguments(dataclasses.replace(TARGET, boot=boot))
    assert "name=opt/org.tianocore/IPv4PXESupport,string=n" in words
    assert "name=opt/org.tianocore/IPv4PXESupport,string=n" not in qemu_arguments(TARGET)


def test_a_bios_boots_by_the_cards_rom_and_speaks_on_the_serial_port() -> None:
    words = qemu_arguments(dataclasses.replace(TARGET, boot=Bios()))
    assert words[words.index("-machine") + 1] == "q35,graphics=off"
    assert "virtio-net-pci,netdev=lan,mac=52:54:00:00:00:01,bootindex=1" in words
    assert not [word for word in words if "pflash" in word or "tianocore" in word]


def test_every_card_is_on_the_private_network_by_a_connection_of_its_own() -> None:
    more = (LanCard("52:54:00:00:00:04", boot_index=2), LanCard("52:54:00:00:00:05", boot_index=3))
    words = qemu_arguments(dataclasses.replace(TARGET, more_lan=more))
    at = words.index("virtio-net-pci,netdev=lan,mac=52:54:00:00:00:01,romfile=,bootindex=1") + 1
    assert words[at : at + 8] == [
        "-netdev", "stream,id=lan2,server=off,addr.type=unix,addr.path=/home/run/_switch.lan",
        "-device", "virtio-net-pci,netdev=lan2,mac=52:54:00:00:00:04,romfile=,bootindex=2",
        "-netdev", "stream,id=lan3,server=off,addr.type=unix,addr.path=/home/run/_switch.lan",
        "-device", "virtio-net-pci,netdev=lan3,mac=52:54:00:00:00:05,romfile=,bootindex=3",
    ]  # fmt: skip


def test_aarch64_machines_are_virt() -> None:
    words = qemu_arguments(dataclasses.replace(TARGET, arch=Arch.AARCH64))
    assert words[0] == "qemu-system-aarch64"
    assert words[words.index("-machine") + 1] == "virt,gic-version=max"


def test_no_path_can_become_an_option() -> None:
    """Whatever a path holds, it stays one value: commas are doubled, and nothing else means anything to QEMU."""
    nasty = Path("/a,readonly=off,b=c d\ne:f'\"$(x)")
    spec = dataclasses.replace(
        PROVISIONER,
        boot=Firmware(nasty, nasty),
        disks=(Disk(nasty, DiskBus.VIRTIO),),
        lan_socket=nasty,
        serial_log=nasty,
        qmp_socket=nasty / "x.qmp",
        shares=(Share("t", nasty),),
    )
    words = qemu_arguments(spec)
    assert len(words) == len(qemu_arguments(dataclasses.replace(PROVISIONER, boot=TARGET.boot, shares=spec.shares)))
    doubled = str(nasty).replace(",", ",,")
    holding = [word for word in words if "$(x)" in word]
    assert len(holding) == 7  # code, variables, disk, switch, serial, QMP, share
    assert all(word.replace(doubled, "PATH").count("readonly=off") == 0 for word in holding)
    assert all(doubled in word for word in holding)


def test_a_kernels_paths_are_whole_arguments() -> None:
    spec = dataclasses.replace(PROVISIONER, boot=DirectKernel(Path("/a,b/k"), Path("/a,b/i"), "x=1,2"))
    words = qemu_arguments(spec)
    assert words[words.index("-kernel") : words.index("-append") + 2] == [
        "-kernel", "/a,b/k", "-initrd", "/a,b/i", "-append", "x=1,2",
    ]  # fmt: skip


def test_every_forwarded_port_is_on_the_loopback_address_only() -> None:
    forwards = [word for word in qemu_arguments(PROVISIONER) if "hostfwd" in word]
    assert forwards == ["user,id=wan,hostfwd=tcp:127.0.0.1:2222-:22"]


def test_cards_on_a_bridge_have_a_tap_each() -> None:
    taps = LanTaps(("pvm0t0", "pvm0t5"))
    second = LanCard("52:54:00:00:00:09")
    words = qemu_arguments(dataclasses.replace(TARGET, lan_socket=taps, more_lan=(second,)))
    backends = [word for word in words if word.startswith(("tap,", "stream,"))]
    assert backends == [
        "tap,id=lan,ifname=pvm0t0,script=no,downscript=no",
        "tap,id=lan2,ifname=pvm0t5,script=no,downscript=no",
    ]


def test_an_intel_card_boots_by_its_rom() -> None:
    lan = LanCard("52:54:00:00:00:01", boot_index=1, model=NicModel.E1000E)
    words = qemu_arguments(dataclasses.replace(TARGET, lan=lan))
    assert "e1000e,netdev=lan,mac=52:54:00:00:00:01,bootindex=1" in words


def test_the_first_disk_has_the_serial_number_that_the_installer_looks_for() -> None:
    assert f"nvme,drive=disk0,serial={FIRST_DISK_SERIAL},bootindex=0" in qemu_arguments(TARGET)


def test_disks_of_all_buses_in_their_order() -> None:
    buses = [DiskBus.SATA, DiskBus.VIRTIO, DiskBus.SATA, DiskBus.NVME]
    disks = tuple(Disk(Path(f"/d/{number}"), bus) for number, bus in enumerate(buses))
    spec = dataclasses.replace(TARGET, disks=(dataclasses.replace(disks[0], boot_index=0), *disks[1:]))
    assert [word for word in qemu_arguments(spec) if "drive=" in word] == [
        "ide-hd,bus=ide.0,drive=disk0,serial=pvmlab-disk0,bootindex=0",
        "virtio-blk-pci,drive=disk1,serial=pvmlab-disk1",
        "ide-hd,bus=ide.1,drive=disk2,serial=pvmlab-disk2",
        "nvme,drive=disk3,serial=pvmlab-disk3",
    ]
    assert not [word for word in qemu_arguments(spec) if "ahci" in word]  # a q35 has one
    on_arm = qemu_arguments(dataclasses.replace(spec, arch=Arch.AARCH64))
    assert on_arm.index("ich9-ahci,id=ide") < on_arm.index(
        "ide-hd,bus=ide.0,drive=disk0,serial=pvmlab-disk0,bootindex=0"
    )


def test_secure_boot_protects_the_variables() -> None:
    words = qemu_arguments(dataclasses.replace(TARGET, boot=dataclasses.replace(FIRMWARE, smm=True)))
    assert words[words.index("-machine") + 1] == "q35,smm=on"
    at = words.index("-global")
    assert words[at : at + 4] == [
        "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1",
    ]  # fmt: skip
    assert "-global" not in qemu_arguments(TARGET)


@pytest.mark.parametrize(("arch", "model"), [(Arch.X86_64, "tpm-crb"), (Arch.AARCH64, "tpm-tis-device")])
def test_a_tpm_is_reached_by_its_socket(arch: Arch, model: str) -> None:
    words = qemu_arguments(dataclasses.replace(TARGET, arch=arch, tpm=Tpm(Path("/r/a,b.tpm"), Path("/d/web1.tpm"))))
    at = words.index("socket,id=tpm0,path=/r/a,,b.tpm") - 1
    assert words[at : at + 6] == [
        "-chardev", "socket,id=tpm0,path=/r/a,,b.tpm",
        "-tpmdev", "emulator,id=tpm0,chardev=tpm0",
        "-device", f"{model},tpmdev=tpm0",
    ]  # fmt: skip


def test_a_guest_agent_has_a_channel() -> None:
    words = qemu_arguments(dataclasses.replace(TARGET, guest_agent_socket=Path("/r/web1.agent")))
    at = words.index("virtio-serial-pci") - 3
    assert words[at : at + 6] == [
        "-chardev", "socket,id=agent0,path=/r/web1.agent,server=on,wait=off",
        "-device", "virtio-serial-pci",
        "-device", "virtserialport,chardev=agent0,name=org.qemu.guest_agent.0",
    ]  # fmt: skip


@pytest.mark.parametrize(("arch", "card"), [(Arch.X86_64, "VGA,edid=off"), (Arch.AARCH64, "virtio-gpu-pci")])
def test_a_display_is_for_screenshots_only(arch: Arch, card: str) -> None:
    words = qemu_arguments(dataclasses.replace(TARGET, arch=arch, display=True))
    assert card in words
    assert words[words.index("-display") + 1] == "none"
    assert card not in qemu_arguments(dataclasses.replace(TARGET, arch=arch))


def test_arguments_of_a_persons_own_come_last() -> None:
    spec = dataclasses.replace(TARGET, more_arguments=("-device", "edu"), reboots=False, paused=True)
    assert qemu_arguments(spec)[-5:] == ["-S", "-action", "reboot=shutdown", "-device", "edu"]


@pytest.mark.parametrize("arch", Arch)
def test_on_macos_the_hypervisor_framework_runs_it(arch: Arch) -> None:
    """The arguments only: no macOS is here to try them on."""
    hvf = Accelerator(AcceleratorKind.HVF, "host", "because", 1.0)
    spec = dataclasses.replace(TARGET, arch=arch, accelerator=hvf, sandbox=False)
    words = qemu_arguments(spec)
    assert words[words.index("-accel") : words.index("-accel") + 4] == ["-accel", "hvf", "-cpu", "host"]
    assert "-sandbox" not in words
    assert "kvm" not in " ".join(words)
    usual = qemu_arguments(dataclasses.replace(spec, accelerator=TCG))
    assert [word for word in words if word not in usual] == ["hvf", "host"]
