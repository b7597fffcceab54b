"""The definitions of a lab's target machines: ``$PVMLAB_HOME/vms/<name>.json``."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts import document
from contracts.answers import OWN_SUFFIX
from contracts.arch import Arch
from contracts.document import DocumentError
from contracts.lan import DhcpMode, Lan
from contracts.machine import (
    MAX_FURTHER_NICS,
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
from contracts.names import PROVISIONER_NAME, normalize_mac, validate_machine_name
from contracts.nocloud import OWN_USER_DATA_SUFFIX
from lab import addresses
from lab.lab import Lab
from lab.native import OwnAnswers
from lab.network_settings import read_settings
from pipeline import commit
from pipeline.errors import ConflictError, NotFoundError, PvmlabError, UsageError

_RESERVED = {PROVISIONER_NAME: "the provisioner has it", "localhost": "every system calls itself so"}


class BrokenDefinitionError(PvmlabError):
    """A definition cannot be understood. :ivar faults: all that is wrong in it."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            f"the definition of {path.stem} is broken",
            details="\n".join([str(path), *faults]),
            resolution=f"repair the file, or ./pvmlab vm.clean {path.stem} removes the machine",
        )


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


class DefinitionStore:
    """The definitions in the home of *lab*."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @property
    def folder(self) -> Path:
        """Where the definitions are."""
        return self._lab.home.vms

    def path(self, name: str) -> Path:
        """Return where the definition of the machine *name* is.

        :raises UsageError: if that is not a machine's name.
        """
        return self.folder / f"{require_name(name)}.json"

    def exists(self, name: str) -> bool:
        """Tell whether there is a machine *name*, with a good definition or a broken one."""
        return self.path(name).exists()

    def load(self, name: str) -> VmDefinition:
        """Return the definition of the machine *name*.

        :raises NotFoundError: if there is none. :raises BrokenDefinitionError: if it makes no sense.
        """
        path = self.path(name)
        if path.exists() and not path.is_file():
            raise BrokenDefinitionError(path, ["it is no regular file"])
        try:
            definition = document.loads(VmDefinition, path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"there is no machine {name!r}", resolution=self._known()) from None
        except DocumentError as error:
            raise BrokenDefinitionError(path, _without_secrets(error.faults)) from None
        if definition.name != name:
            raise BrokenDefinitionError(path, [f"name: it says {definition.name!r}, the file says {name!r}"])
        return definition

    def names(self) -> list[str]:
        """Return the names of all machines, sorted, also of those with a broken definition."""
        return [name for name in self._stems() if _is_name(name)]

    def strays(self) -> list[str]:
        """Return the names of the files among the definitions that cannot be a machine's, without ``.json``."""
        return [name for name in self._stems() if not _is_name(name)]

    def load_all(self) -> list[VmDefinition]:
        """Return all definitions by name.

        :raises BrokenDefinitionError: for the first broken one.
        """
        return [self.load(name) for name in self.names()]

    def load_good(self) -> list[VmDefinition]:
        """Return all definitions by name but the broken ones, which the services do not use either."""
        good = []
        for name in self.names():
            with contextlib.suppress(BrokenDefinitionError):
                good.append(self.load(name))
        return good

    def plan(self, request: MachineRequest, *, host_key: SshHostKey, authorized_key: str) -> VmDefinition:
        """Return the definition that *request* asks for, with free addresses; nothing is written.

        :raises UsageError: if a value makes no sense.
        :raises ConflictError: if the name, the MAC or the IP address is taken.
        """
        if self.exists(request.name):
            raise ConflictError(
                f"there is a machine {request.name!r} already",
                resolution=f"choose another name, or ./pvmlab vm.clean {request.name} first",
            )
        cards = self._plan_cards(request, self.load_all())
        return define(request, cards, host_key=host_key, authorized_key=authorized_key)

    def _plan_cards(self, request: MachineRequest, others: Sequence[VmDefinition]) -> tuple[Nic, ...]:
        """Return the LAN cards of the machine, with addresses that none of *others* has.

        :raises UsageError: if there cannot be so many, or the first one's address is not ours to choose.
        :raises ConflictError: if an address is taken.
        """
        if not 1 <= request.cards <= 1 + MAX_FURTHER_NICS:
            raise UsageError(f"a machine has 1 to {1 + MAX_FURTHER_NICS} cards, not {request.cards}")
        asked = [CardRequest(mac=request.mac, ip=request.ip, ipv6=request.ipv6), *request.more_cards]
        if len(asked) > request.cards:
            raise UsageError(f"addresses for {len(asked)} cards are given, and the machine has {request.cards}")
        lan, identity = self._lab.lan, self._lab.find_identity()
        require_address_said(request, lan)
        owners = _owners(others, lan, identity)
        if host_address := read_settings(self._lab.home).host_address:
            owners[host_address] = "this host"
        # the addresses that somebody asks for come first: none of them may be chosen for a card before
        known = [require_addresses(card, lan, owners, request.name) for card in asked]
        cards: list[Nic] = []
        for number in range(1, request.cards + 1):
            card = known[number - 1] if number <= len(known) else CardRequest()
            label = "lan" if number == 1 else f"lan{number}"
            derived = addresses.derive_mac(identity, request.name, card=label)
            mac = card.mac or _take(owners, derived, request.name, what="MAC address")
            ip = card.ip or _take(owners, _choose_ip(lan, owners), request.name)
            twin = addresses.ipv6_of(lan, ip)
            ipv6 = card.ipv6 or (_take(owners, twin, request.name) if twin else "")
            cards.append(Nic(mac=mac, ip=ip, ipv6=ipv6))
        return tuple(cards)

    def answers_path(self, name: str) -> Path:
        """Return where a person's own answer file for the machine *name* is, if there is one."""
        return self.path(name).with_name(f"{name}{OWN_SUFFIX}")

    def user_data_path(self, name: str) -> Path:
        """Return where a person's own user-data for the machine *name* is, if there is any."""
        return self.path(name).with_name(f"{name}{OWN_USER_DATA_SUFFIX}")

    def write_user_data(self, name: str, text: str | None) -> None:
        """Publish a person's own user-data, or have there be none. It may hold passwords: its owner's only."""
        if text is None:
            self.user_data_path(name).unlink(missing_ok=True)
        else:
            commit.publish_text(self.user_data_path(name), text, mode=0o600)

    def find_user_data(self, name: str) -> str | None:
        """Return a person's own user-data for the machine *name*, or None."""
        try:
            return self.user_data_path(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def write(self, definition: VmDefinition, answers: OwnAnswers | None = None) -> None:
        """Publish *definition*. It holds a private key: only its owner may read it.

        :param answers: a person's own answer file. It is there before the definition speaks of it, and may hold
            passwords.
        """
        if answers is not None:
            commit.publish_text(self.answers_path(definition.name), answers.text, mode=0o600)
        else:
            self.answers_path(definition.name).unlink(missing_ok=True)
        commit.publish_text(self.path(definition.name), document.dumps(definition), mode=0o600)

    def rewrite(self, definition: VmDefinition) -> None:
        """Publish a changed *definition* in the place of the one that is there; what goes with it stays."""
        commit.publish_text(self.path(definition.name), document.dumps(definition), mode=0o600)

    def delete(self, name: str) -> None:
        """Remove the definition of the machine *name* and what goes with it; do nothing if there is none."""
        self.answers_path(name).unlink(missing_ok=True)
        self.user_data_path(name).unlink(missing_ok=True)
        self.path(name).unlink(missing_ok=True)

    def _stems(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json") if not path.name.startswith("."))

    def _known(self) -> str:
        names = self.names()
        if not names:
            return "there is none at all: ./pvmlab vm.create NAME makes one"
        return f"known are: {', '.join(names)}; ./pvmlab vm.create NAME makes one"


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


def require_name(name: str) -> str:
    """Return *name* if a target machine may have it.

    :raises UsageError: if not.
    """
    try:
        validate_machine_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if name in _RESERVED:
        raise UsageError(f"a machine cannot be called {name!r}: {_RESERVED[name]}", resolution="choose another name")
    return name


def _is_name(name: str) -> bool:
    try:
        require_name(name)
    except UsageError:
        return False
    return True


def _owners(others: Sequence[VmDefinition], lan: Lan, identity: str) -> dict[str, str]:
    """Return who has which address."""
    owners = {
        address: other.name
        for other in others
        for card in other.cards
        for address in (card.mac, card.ip, card.ipv6)
        if address
    }
    for card_name in ("lan", "wan"):
        owners[addresses.derive_mac(identity, PROVISIONER_NAME, card=card_name)] = PROVISIONER_NAME
    return owners | {str(lan.provisioner): PROVISIONER_NAME}


def require_address_said(request: MachineRequest, lan: Lan) -> None:
    """Check that the address of the machine's first card is asked for where it is not ours to choose.

    :raises UsageError: if it is not.
    """
    if lan.dhcp is DhcpMode.PROXY and not request.ip:
        raise UsageError(
            f"the address of {request.name} must be said", details="another DHCP server gives out the addresses",
            resolution="--ip=ADDRESS, the one that it gives to this machine's MAC address",
        )  # fmt: skip


def require_addresses(card: CardRequest, lan: Lan, owners: dict[str, str], name: str) -> CardRequest:
    """Return what somebody asks for in its usual spelling, after noting that it is the machine *name*'s now.

    :raises UsageError: if it is no address that a machine may have. :raises ConflictError: if it is taken.
    """
    mac = _require_mac(card.mac) if card.mac else None
    ip = addresses.require_reservable(lan, card.ip) if card.ip else None
    ipv6 = addresses.require_reservable_ipv6(lan, card.ipv6) if card.ipv6 else None
    if mac:
        _take(owners, mac, name, what="MAC address")
    for address in filter(None, (ip, ipv6)):
        _take(owners, address, name)
    return CardRequest(mac=mac, ip=ip, ipv6=ipv6)


def _choose_ip(lan: Lan, owners: Mapping[str, str]) -> str:
    """Return a free address whose IPv6 twin is free, too. :raises ConflictError: if there is none."""
    passed: set[str] = set()
    while (ip := addresses.choose_address(lan, owners.keys() | passed)) and addresses.ipv6_of(lan, ip) in owners:
        passed.add(ip)
    return ip


def _take(owners: dict[str, str], address: str, name: str, *, what: str = "address") -> str:
    """Give *address* to the machine *name*. :raises ConflictError: if it is taken."""
    if address in owners:
        owner = "another card of the machine" if owners[address] == name else owners[address]
        raise ConflictError(f"the {what} {address} is taken by {owner}", resolution="choose another one")
    owners[address] = name
    return address


def _require_mac(text: str) -> str:
    try:
        return normalize_mac(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _without_secrets(faults: Sequence[str]) -> list[str]:
    """A fault quotes the value it is about; a private key must not get onto a screen."""
    return ["ssh_host_key: not valid" if fault.startswith("ssh_host_key") else fault for fault in faults]
