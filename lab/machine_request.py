"""What a person asks for of a new machine, and the definition that it becomes."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence

from contracts.arch import Arch
from contracts.machine import (
    AnswerFile,
    DiskBus,
    ExtraDisk,
    FirmwareKind,
    Installer,
    Label,
    MachineSource,
    Nic,
    NicModel,
    SshHostKey,
    VmDefinition,
)
from lab.native import OwnAnswers
from pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardRequest:
    """What a person asks for of a LAN card: its addresses. None: the store chooses."""

    mac: str | None = None
    ip: str | None = None
    ipv6: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineRequest:
    """What a person asks for. None: the store chooses.

    :ivar cards: how many LAN cards it has. :ivar mac: :ivar ip: :ivar ipv6: addresses of the first one.
    :ivar more_cards: addresses of further ones, as far as somebody asks for any.
    :ivar answers: what the distribution's own installer is to be told; None for what the lab tells it.
    :ivar image: with the source ``image``, the path of a person's own cloud image; empty for the distribution's.
    :ivar user_data: a person's own, besides what the lab tells cloud-init; None for nothing.
    """

    name: str
    distro: str
    arch: Arch = Arch.X86_64
    cpus: int = 2
    memory_mib: int = 1024
    disk_gib: int = 8
    disk_bus: DiskBus = DiskBus.NVME
    firmware: FirmwareKind = FirmwareKind.UEFI
    mac: str | None = None
    ip: str | None = None
    ipv6: str | None = None
    more_cards: tuple[CardRequest, ...] = ()
    cards: int = 1
    nic_model: NicModel = NicModel.VIRTIO
    more_disks: tuple[ExtraDisk, ...] = ()
    secure_boot: bool = False
    tpm: bool = False
    labels: tuple[Label, ...] = ()
    qemu_arguments: tuple[str, ...] = ()
    installer: Installer = Installer.PVMLAB
    answers: OwnAnswers | None = None
    source: MachineSource = MachineSource.NETWORK
    image: str = ""
    user_data: str | None = None

    def on_cards(self, cards: Sequence[Nic]) -> MachineRequest:
        """Return it asking for all the addresses of *cards*."""
        first, *others = (CardRequest(mac=card.mac, ip=card.ip, ipv6=card.ipv6 or None) for card in cards)
        return dataclasses.replace(self, mac=first.mac, ip=first.ip, ipv6=first.ipv6, more_cards=tuple(others))


def define(
    request: MachineRequest, cards: tuple[Nic, ...], *, host_key: SshHostKey, authorized_key: str
) -> VmDefinition:  # fmt: skip
    """Return the definition that *request* asks for, with these *cards*: a new machine, with a UUID of its own.

    :raises UsageError: if there cannot be such a machine.
    """
    if request.user_data is not None and request.installer.is_native:
        raise UsageError(
            "user-data of one's own is for machines that pvmlab installs or that come from a cloud image",
            resolution="a distribution's own installer is told with --answer-file",
        )
    from_network = request.source is MachineSource.NETWORK
    if request.firmware is FirmwareKind.BIOS and from_network and not request.installer.is_native:
        raise UsageError(
            "pvmlab's own installer makes disks that only UEFI boots",
            resolution="--installer=native, or another --firmware",
        )
    try:
        return VmDefinition(
            name=request.name, arch=request.arch, distro=request.distro,
            mac=cards[0].mac, ip=cards[0].ip, ipv6=cards[0].ipv6, nics=cards[1:], firmware=request.firmware,
            uuid=str(uuid.uuid4()), cpus=request.cpus, memory_mib=request.memory_mib, disk_gib=request.disk_gib,
            disk_bus=request.disk_bus, ssh_authorized_keys=(authorized_key,), ssh_host_key=host_key,
            installer=request.installer, answer_file=request.answers.kind if request.answers else AnswerFile.LAB,
            source=request.source, image=request.image, nic_model=request.nic_model,
            more_disks=request.more_disks, secure_boot=request.secure_boot, tpm=request.tpm,
            labels=request.labels, qemu_arguments=request.qemu_arguments,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"a machine cannot be made like this: {error}") from None
