"""QEMU's arguments, a pure function of the machine's specification."""

from __future__ import annotations

import os
from pathlib import Path

from contracts.arch import Arch
from contracts.machine import DiskBus, NicModel
from lab.spec import AcceleratorKind, Bios, DirectKernel, Disk, Firmware, LanCard, LanTaps, MachineSpec, Share, WanCard
from pipeline.emulation import TCG_OPTION

_MACHINE_TYPE = {Arch.X86_64: "q35", Arch.AARCH64: "virt,gic-version=max"}
# Whatever is drawn on it is seen by QMP's screendump only. edid=off: nothing tells the guest of a large screen.
_DISPLAY = {Arch.X86_64: "VGA,edid=off", Arch.AARCH64: "virtio-gpu-pci"}
_TPM = {Arch.X86_64: "tpm-crb", Arch.AARCH64: "tpm-tis-device"}
GUEST_AGENT = "org.qemu.guest_agent.0"  # the name that the agent in the guest looks for

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
        *_sata_controller(spec),
        *(word for number, disk in enumerate(spec.disks) for word in _disk(number, disk, spec)),
        *(word for number, card in enumerate((spec.lan, *spec.more_lan), start=1) for word in _lan(number, card, spec)),
        *(_wan(spec.wan) if spec.wan is not None else []),
        *(word for share in spec.shares for word in _share(share)),
        *(_seed(spec.seed) if spec.seed is not None else []),
        *(_tpm(spec.tpm.socket, spec.arch) if spec.tpm is not None else []),
        *(_guest_agent(spec.guest_agent_socket) if spec.guest_agent_socket is not None else []),
        *(["-device", _DISPLAY[spec.arch]] if spec.display else []),
        # The log has all output from the start; the socket lets a person type, now and then.
        "-chardev", _serial(spec),
        "-serial", "chardev:serial0",
        "-qmp", f"unix:{_escape(spec.qmp_socket)},server=on,wait=off",
        *(["-S"] if spec.paused else []),
        *([] if spec.reboots else ["-action", "reboot=shutdown"]),
        *spec.more_arguments,
    ]  # fmt: skip


def accelerator_option(kind: AcceleratorKind) -> str:
    """Return the value of ``-accel``."""
    return {AcceleratorKind.TCG: TCG_OPTION}.get(kind, kind.value)


def _machine_type(spec: MachineSpec) -> str:
    # graphics=off: SeaBIOS, and with it iPXE in a card's ROM, then write to the serial port
    graphics = ",graphics=off" if isinstance(spec.boot, Bios) else ""
    smm = ",smm=on" if isinstance(spec.boot, Firmware) and spec.boot.smm else ""
    return f"{_MACHINE_TYPE[spec.arch]}{graphics}{smm}"


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
                # only code in System Management Mode may write the variables; the 64-bit builds cannot wake up from S3
                *(["-global", "driver=cfi.pflash01,property=secure,value=on"] if boot.smm else []),
                *(["-global", "ICH9-LPC.disable_s3=1"] if boot.smm else []),
                "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_escape(boot.code)}",
                "-drive", f"if=pflash,unit=1,format=raw,file={_escape(boot.variables)}",
                # nobody answers there, and trying takes a minute before the firmware asks by IPv4 again
                "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
                *(["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"] if boot.http else []),
            ]  # fmt: skip
        case DirectKernel():
            return ["-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", boot.cmdline]


def _sata_controller(spec: MachineSpec) -> list[str]:
    """Return what SATA disks are plugged into where the board has no controller: a q35 has one."""
    wanted = spec.arch is not Arch.X86_64 and any(disk.bus is DiskBus.SATA for disk in spec.disks)
    return ["-device", "ich9-ahci,id=ide"] if wanted else []  # its ports are ide.0 and so on, as the q35's are


def _disk(number: int, disk: Disk, spec: MachineSpec) -> list[str]:
    name = f"disk{number}"
    port = sum(other.bus is DiskBus.SATA for other in spec.disks[:number])
    model = {DiskBus.NVME: "nvme", DiskBus.VIRTIO: "virtio-blk-pci", DiskBus.SATA: f"ide-hd,bus=ide.{port}"}[disk.bus]
    return [
        "-drive", f"if=none,id={name},{_DISK},file={_escape(disk.path)}",
        "-device", f"{model},drive={name},serial=pvmlab-{name}{_option('bootindex', disk.boot_index)}",
    ]  # fmt: skip


def _lan(number: int, card: LanCard, spec: MachineSpec) -> list[str]:
    network = "lan" if number == 1 else f"lan{number}"
    # A BIOS has no network driver, and UEFI builds have none for an Intel card: there QEMU's ROM is the only way.
    rom = isinstance(spec.boot, Bios) or card.model is NicModel.E1000E
    return [
        "-netdev", _lan_backend(number, network, spec),
        "-device", _card(network, card, rom=rom) + _option("bootindex", card.boot_index),
    ]  # fmt: skip


def _lan_backend(number: int, network: str, spec: MachineSpec) -> str:
    if isinstance(spec.lan_socket, LanTaps):
        # no scripts: the tap is a port of the bridge already, and QEMU may start no programs
        return f"tap,id={network},ifname={spec.lan_socket.names[number - 1]},script=no,downscript=no"
    return f"stream,id={network},server=off,addr.type=unix,addr.path={_escape(spec.lan_socket)}"


def _wan(card: WanCard) -> list[str]:
    return [
        "-netdev", f"user,id=wan,hostfwd=tcp:127.0.0.1:{card.ssh_port}-:22",
        "-device", _card("wan", LanCard(card.mac, pci_slot=card.pci_slot)),
    ]  # fmt: skip


def _card(network: str, card: LanCard, *, rom: bool = False) -> str:
    # romfile= (empty): QEMU's own old iPXE would boot instead of the firmware's PXE and skip our boot program.
    no_rom = "" if rom else ",romfile="
    slot = f",addr={card.pci_slot:#x}" if card.pci_slot is not None else ""
    model = {NicModel.VIRTIO: "virtio-net-pci", NicModel.E1000E: "e1000e"}[card.model]
    return f"{model},netdev={network},mac={card.mac}{no_rom}{slot}"


def _tpm(socket: Path, arch: Arch) -> list[str]:
    return [
        "-chardev", f"socket,id=tpm0,path={_escape(socket)}",
        "-tpmdev", "emulator,id=tpm0,chardev=tpm0",
        "-device", f"{_TPM[arch]},tpmdev=tpm0",
    ]  # fmt: skip


def _guest_agent(socket: Path) -> list[str]:
    return [
        "-chardev", f"socket,id=agent0,path={_escape(socket)},server=on,wait=off",
        "-device", "virtio-serial-pci",
        "-device", f"virtserialport,chardev=agent0,name={GUEST_AGENT}",
    ]  # fmt: skip


def _seed(disc: Path) -> list[str]:
    # A disk, not a drive of discs: kernels made for clouds know virtio, and some know no AHCI. cloud-init looks for the
    # label on any block device. After the disks: /dev/vda is what it would be without.
    return [
        "-drive", f"if=none,id=seed,format=raw,readonly=on,file={_escape(disc)}",
        "-device", "virtio-blk-pci,drive=seed,serial=pvmlab-seed",
    ]  # fmt: skip


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
