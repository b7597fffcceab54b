"""What a QEMU machine is made of, as data. ``lab.qemu`` turns a :class:`MachineSpec` into an argument list."""

from __future__ import annotations

import dataclasses
import enum
import sys
from pathlib import Path

from contracts.arch import Arch
from contracts.machine import DiskBus, NicModel


class AcceleratorKind(enum.StrEnum):
    """How guest instructions run."""

    KVM = "kvm"
    HVF = "hvf"
    TCG = "tcg"


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """The accelerator of this host for one architecture.

    :ivar cpu: QEMU's ``-cpu`` value that is right with it.
    :ivar reason: why this one, for people: ``/dev/kvm did not boot a kernel: ...``.
    :ivar patience: factor by which waits are longer than on hardware acceleration (1 for KVM).
    """

    kind: AcceleratorKind
    cpu: str
    reason: str
    patience: float


@dataclasses.dataclass(frozen=True)
class Firmware:
    """UEFI firmware: the read-only code and this machine's own writable variables.

    :ivar http: boot from the network by HTTP, without trying PXE first.
    :ivar smm: the firmware protects its variables by System Management Mode: builds for Secure Boot on x86_64.
    """

    code: Path
    variables: Path
    http: bool = False
    smm: bool = False


@dataclasses.dataclass(frozen=True)
class Bios:
    """The BIOS that comes with QEMU (SeaBIOS, x86_64 only); so do the boot ROMs of network cards."""


@dataclasses.dataclass(frozen=True)
class DirectKernel:
    """A kernel that QEMU starts itself, without firmware or bootloader."""

    kernel: Path
    initrd: Path
    cmdline: str


@dataclasses.dataclass(frozen=True)
class Disk:
    """A qcow2 disk. :ivar boot_index: place in the firmware's boot order, None to leave it out."""

    path: Path
    bus: DiskBus
    boot_index: int | None = None


@dataclasses.dataclass(frozen=True)
class LanTaps:
    """Tap devices of this host, ports of the lab's bridge: one for each LAN card of a machine, in their order."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LanCard:
    """A network card on the lab's private network.

    :ivar pci_slot: fixed PCI slot, so that the guest can name the card by its path, or None.
    """

    mac: str
    boot_index: int | None = None
    pci_slot: int | None = None
    model: NicModel = NicModel.VIRTIO


@dataclasses.dataclass(frozen=True)
class WanCard:
    """A network card on QEMU's user-mode network, with SSH forwarded from 127.0.0.1:*ssh_port* only."""

    mac: str
    ssh_port: int
    pci_slot: int | None = None


@dataclasses.dataclass(frozen=True)
class Share:
    """A host directory shared into the guest by 9p under the mount tag *tag*."""

    tag: str
    path: Path
    writable: bool = False


@dataclasses.dataclass(frozen=True)
class Tpm:
    """A TPM 2.0, which ``lab.tpm`` runs. :ivar socket: where swtpm listens. :ivar state: folder of what it keeps."""

    socket: Path
    state: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """One QEMU machine, complete: the same spec gives the same arguments.

    :ivar uuid: SMBIOS UUID, also how its process is recognised. :ivar memory_mib: in MiB.
    :ivar lan: its first card on the private network. :ivar more_lan: its further ones.
    :ivar lan_socket: what its LAN cards are plugged into: the AF_UNIX stream socket of the switch (or of socket_vmnet),
        or taps of this host.
    :ivar serial_log: file the serial console is appended to. :ivar qmp_socket: AF_UNIX socket, at most 103 bytes.
    :ivar seed: NoCloud seed disc, which the guest can only read; None without.
    :ivar guest_agent_socket: AF_UNIX socket of the channel to a QEMU guest agent, at most 103 bytes; None without.
    :ivar display: it has a graphics card, for screenshots. :ivar paused: it starts when QMP says ``cont``.
    :ivar reboots: False ends QEMU where the guest would reboot: the machine is off then.
    :ivar more_arguments: further arguments, after all others.
    :ivar sandbox: let the kernel refuse QEMU what it never needs (seccomp, on Linux only).
    """

    name: str
    uuid: str
    arch: Arch
    cpus: int
    memory_mib: int
    accelerator: Accelerator
    boot: Firmware | Bios | DirectKernel
    disks: tuple[Disk, ...]
    lan: LanCard
    lan_socket: Path | LanTaps
    serial_log: Path
    qmp_socket: Path
    more_lan: tuple[LanCard, ...] = ()
    wan: WanCard | None = None
    shares: tuple[Share, ...] = ()
    seed: Path | None = None
    tpm: Tpm | None = None
    guest_agent_socket: Path | None = None
    display: bool = False
    paused: bool = False
    reboots: bool = True
    more_arguments: tuple[str, ...] = ()
    sandbox: bool = sys.platform == "linux"

    @property
    def serial_socket(self) -> Path:
        """AF_UNIX socket for typing on the serial console."""
        return self.qmp_socket.with_suffix(".serial")
