"""QEMU's arguments, a pure function of the machine's specification."""

from __future__ import annotations

import os
from pathlib import Path

from contracts.arch import Arch
from contracts.machine import DiskBus
from lab.spec import AcceleratorKind, Bios, DirectKernel, Disk, Firmware, LanCard, MachineSpec, Share, WanCard
from pipeline.emulation import TCG_OPTION

_MACHINE_TYPE = {Arch.X86_64: "q35", Arch.AARCH64: "virt,gic-version=max"}

# unsafe: a guest's flush reaches the host's page cache but is not forced to its disk. Everything survives the death of
# QEMU, however it dies; only a crash of the host loses writes, and a lab machine is then installed again in a minute.
_DISK = "format=qcow2,cache=unsafe,discard=unmap"

# What QEMU may no longer ask the kernel for once it runs: new programs, other users' rights, scheduling, old calls.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def qemu_program(arch: Arch) -> str:
    """Return the name of the QEMU program for *arch* machines."""
    return f"qemu-system-{arch}"


def qemu_arguments(spec: MachineSpec) -> list[str]:
    """Return the whole argument list of the machine, the program's name first. Paths may hold any character."""
    return [
        qemu_program(spec.arch),
        "-name", f"{spec.name},process=pvmlab-{spec.name}",
        "-uuid", spec.uuid,
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        *(["-sandbox", _SANDBOX] if spec.sandbox else []),
        "-machine", _machine_type(spec),
        "-accel", accelerator_option(spec.accelerator.kind),
        "-cpu", spec.accelerator.cpu,
        "-smp", str(spec.cpus),
        "-m", str(spec.memory_mib),
        *_boot(spec.boot),
        "-device", "virtio-rng-pci",  # newer UEFI network drivers and early user space wait for random numbers
        *(word for number, disk in enumerate(spec.disks) for word in _disk(number, disk)),
        *(word for number, card in enumerate((spec.lan, *spec.more_lan), start=1) for word in _lan(number, card, spec)),
        *(_wan(spec.wan) if spec.wan is not None else []),
        *(word for share in spec.shares for word in _share(share)),
        # The log has all output from the start; the socket lets a person type, now and then.
        "-chardev", _serial(spec),
        "-serial", "chardev:serial0",
        "-qmp", f"unix:{_escape(spec.qmp_socket)},server=on,wait=off",
    ]  # fmt: skip


def accelerator_option(kind: AcceleratorKind) -> str:
    """Return the value of ``-accel``."""
    return {AcceleratorKind.TCG: TCG_OPTION}.get(kind, kind.value)


def _machine_type(spec: MachineSpec) -> str:
    # graphics=off: SeaBIOS, and with it iPXE in a card's ROM, then write to the serial port
    return _MACHINE_TYPE[spec.arch] + (",graphics=off" if isinstance(spec.boot, Bios) else "")


def _serial(spec: MachineSpec) -> str:
    log = f"logfile={_escape(spec.serial_log)},logappend=on"
    return f"socket,id=serial0,path={_escape(spec.serial_socket)},server=on,wait=off,{log}"


def _escape(path: Path) -> str:
    """Write a path as part of an option value, where a comma ends a value and two commas are one comma."""
    return os.fspath(path).replace(",", ",,")


def _boot(boot: Firmware | Bios | DirectKernel) -> list[str]:
    match boot:
        case Bios():
            return []
        case Firmware():
            return [
                "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_escape(boot.code)}",
                "-drive", f"if=pflash,unit=1,format=raw,file={_escape(boot.variables)}",
                # nobody answers there, and trying takes a minute before the firmware asks by IPv4 again
                "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
                *(["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"] if boot.http else []),
            ]  # fmt: skip
        case DirectKernel():
            return ["-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", boot.cmdline]


def _disk(number: int, disk: Disk) -> list[str]:
    name = f"disk{number}"
    model = {DiskBus.NVME: "nvme", DiskBus.VIRTIO: "virtio-blk-pci"}[disk.bus]
    return [
        "-drive", f"if=none,id={name},{_DISK},file={_escape(disk.path)}",
        "-device", f"{model},drive={name},serial=pvmlab-{name}{_option('bootindex', disk.boot_index)}",
    ]  # fmt: skip


def _lan(number: int, card: LanCard, spec: MachineSpec) -> list[str]:
    network = "lan" if number == 1 else f"lan{number}"
    rom = isinstance(spec.boot, Bios)
    return [
        "-netdev", f"stream,id={network},server=off,addr.type=unix,addr.path={_escape(spec.lan_socket)}",
        "-device", _card(network, card.mac, card.pci_slot, rom=rom) + _option("bootindex", card.boot_index),
    ]  # fmt: skip


def _wan(card: WanCard) -> list[str]:
    return [
        "-netdev", f"user,id=wan,hostfwd=tcp:127.0.0.1:{card.ssh_port}-:22",
        "-device", _card("wan", card.mac, card.pci_slot),
    ]  # fmt: skip


def _card(network: str, mac: str, pci_slot: int | None, *, rom: bool = False) -> str:
    # romfile= (empty): QEMU's own old iPXE would boot instead of the firmware's PXE and skip our boot program. A BIOS
    # has no network driver: there QEMU's ROM is the only way.
    no_rom = "" if rom else ",romfile="
    return f"virtio-net-pci,netdev={network},mac={mac}{no_rom}" + (
        f",addr={pci_slot:#x}" if pci_slot is not None else ""
    )


def _option(name: str, value: int | None) -> str:
    return f",{name}={value}" if value is not None else ""


def _share(share: Share) -> list[str]:
    # security_model=none: files belong to the user who runs QEMU, whoever makes them in the guest.
    # multidevs=remap: two host file systems below one share may have equal inode numbers.
    access = "off" if share.writable else "on"
    return [
        "-virtfs",
        f"local,path={_escape(share.path)},mount_tag={share.tag},security_model=none,readonly={access},multidevs=remap",
    ]
