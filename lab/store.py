"""The definitions of a lab's target machines: ``$PVMLAB_HOME/vms/<name>.json``."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from pathlib import Path

from contracts import document
from contracts.answers import OWN_SUFFIX
from contracts.arch import Arch
from contracts.document import DocumentError
from contracts.lan import DhcpMode
from contracts.machine import (
    MAX_FURTHER_NICS,
    AnswerFile,
    DiskBus,
    FirmwareKind,
    Installer,
    Nic,
    SshHostKey,
    VmDefinition,
)
from contracts.names import PROVISIONER_NAME, normalize_mac, validate_machine_name
from lab import addresses
from lab.lab import Lab
from lab.native import OwnAnswers
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
class MachineRequest:
    """What a person asks for. None: the store chooses.

    :ivar cards: how many LAN cards it has. :ivar mac: of the first one. :ivar ip: of the first one.
    :ivar answers: what the distribution's own installer is to be told; None for what the lab tells it.
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
    cards: int = 1
    installer: Installer = Installer.PVMLAB
    answers: OwnAnswers | None = None


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

    def plan(
        self,
        request: MachineRequest,
        *,
        host_key: SshHostKey,
        authorized_key: str,
        package_sources: tuple[str, ...] = (),
        repository: str = "",
    ) -> VmDefinition:
        """Return the definition that *request* asks for, with free addresses; nothing is written.

        :raises UsageError: if a value makes no sense.
        :raises ConflictError: if the name, the MAC or the IP address is taken.
        """
        if self.exists(request.name):
            raise ConflictError(
                f"there is a machine {request.name!r} already",
                resolution=f"choose another name, or ./pvmlab vm.clean {request.name} first",
            )
        if request.firmware is FirmwareKind.BIOS and not request.installer.is_native:
            raise UsageError(
                "pvmlab's own installer makes disks that only UEFI boots",
                resolution="--installer=native, or another --firmware",
            )
        cards = self._plan_cards(request, self.load_all())
        try:
            return VmDefinition(
                name=request.name, arch=request.arch, distro=request.distro,
                mac=cards[0].mac, ip=cards[0].ip, ipv6=cards[0].ipv6, nics=cards[1:], firmware=request.firmware,
                uuid=str(uuid.uuid4()), cpus=request.cpus, memory_mib=request.memory_mib, disk_gib=request.disk_gib,
                disk_bus=request.disk_bus, ssh_authorized_keys=(authorized_key,), ssh_host_key=host_key,
                package_sources=package_sources, installer=request.installer, repository=repository,
                answer_file=request.answers.kind if request.answers else AnswerFile.LAB,
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(f"a machine cannot be made like this: {error}") from None

    def _plan_cards(self, request: MachineRequest, others: Sequence[VmDefinition]) -> tuple[Nic, ...]:
        """Return the LAN cards of the machine, with addresses that none of *others* has.

        :raises UsageError: if there cannot be so many, or the first one's address is not ours to choose.
        :raises ConflictError: if an address is taken.
        """
        if not 1 <= request.cards <= 1 + MAX_FURTHER_NICS:
            raise UsageError(f"a machine has 1 to {1 + MAX_FURTHER_NICS} cards, not {request.cards}")
        lan, identity = self._lab.lan, self._lab.identity()
        if lan.dhcp is DhcpMode.PROXY and not request.ip:
            raise UsageError(
                f"the address of {request.name} must be said", details="another DHCP server gives out the addresses",
                resolution="--ip=ADDRESS, the one that it gives to this machine's MAC address",
            )  # fmt: skip
        owners = {address: other.name for other in others for card in other.cards for address in (card.mac, card.ip)}
        cards: list[Nic] = []
        for number in range(1, request.cards + 1):
            first = number == 1
            named = addresses.derive_mac(identity, request.name, card="lan" if first else f"lan{number}")
            mac = _require_mac(request.mac) if first and request.mac else named
            if mac in owners:
                raise ConflictError(f"the MAC address {mac} is taken by {owners[mac]}", resolution="choose another one")
            ip = addresses.require_reservable(lan, request.ip) if first and request.ip else None
            if ip in owners:
                raise ConflictError(f"the address {ip} is taken by {owners[ip]}", resolution="choose another one")
            ip = ip or addresses.choose_address(lan, owners)
            owners |= {mac: request.name, ip: request.name}
            cards.append(Nic(mac=mac, ip=ip, ipv6=addresses.ipv6_of(lan, ip)))
        return tuple(cards)

    def answers_path(self, name: str) -> Path:
        """Return where a person's own answer file for the machine *name* is, if there is one."""
        return self.path(name).with_name(f"{name}{OWN_SUFFIX}")

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

    def delete(self, name: str) -> None:
        """Remove the definition of the machine *name* and what goes with it; do nothing if there is none."""
        self.answers_path(name).unlink(missing_ok=True)
        self.path(name).unlink(missing_ok=True)

    def _stems(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json") if not path.name.startswith("."))

    def _known(self) -> str:
        names = self.names()
        if not names:
            return "there is none at all: ./pvmlab vm.create NAME makes one"
        return f"known are: {', '.join(names)}; ./pvmlab vm.create NAME makes one"


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


def _require_mac(text: str) -> str:
    try:
        return normalize_mac(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _without_secrets(faults: Sequence[str]) -> list[str]:
    """A fault quotes the value it is about; a private key must not get onto a screen."""
    return ["ssh_host_key: not valid" if fault.startswith("ssh_host_key") else fault for fault in faults]
