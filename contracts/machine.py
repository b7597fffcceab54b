"""The definition of one lab machine: ``$PVMLAB_HOME/vms/<name>.json``.

The definition is the single source for QEMU's arguments, the DHCP reservation, the boot script, the installer's
configuration and the NoCloud seed. It holds the machine's SSH host key, so the file's mode is 0600.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import ipaddress
import re
import uuid

from contracts.arch import Arch
from contracts.names import normalize_mac, validate_machine_name

SCHEMA = 1
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}\Z")
_DISTRO_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}\Z")
_SOURCE_LINE = re.compile(r"deb [^\r\n]+\Z")
_SSH_PUBLIC_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+(?: [^\r\n]*)?\Z")
MAX_FURTHER_NICS = 7
MAX_FURTHER_DISKS = 15
MAX_SATA_DISKS = 6  # ports of an ICH9 AHCI controller
MAX_DISK_GIB = 64 * 1024
FIRST_DISK_SERIAL = "pvmlab-disk0"  # the serial number of a lab machine's first disk; the others' end in 1, 2, ...
MAX_LABELS = 64
MAX_QEMU_ARGUMENT = 4096  # characters
_LABEL_KEY = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"[ -~]{0,63}\Z")
_REPOSITORY = re.compile(r"https?://[A-Za-z0-9._~:/%+,=@-]+\Z")


class DiskBus(enum.StrEnum):
    """How the machine's disk is attached."""

    NVME = "nvme"
    VIRTIO = "virtio"
    SATA = "sata"

    @property
    def device(self) -> str:
        """The kernel's name of the first disk on this bus."""
        return {DiskBus.NVME: "/dev/nvme0n1", DiskBus.VIRTIO: "/dev/vda", DiskBus.SATA: "/dev/sda"}[self]


class NicModel(enum.StrEnum):
    """What the machine's LAN cards are."""

    VIRTIO = "virtio"
    E1000E = "e1000e"  # Intel 82574L: what real hardware is like, and systems without virtio drivers know


class MachineSource(enum.StrEnum):
    """Where the system on a machine's disk comes from."""

    NETWORK = "network"  # an installer that it boots from the network
    IMAGE = "image"  # a cloud image, which its disk is an overlay of


class PortProtocol(enum.StrEnum):
    """What a forwarded port carries."""

    TCP = "tcp"
    UDP = "udp"


class Installer(enum.StrEnum):
    """What installs a machine: ours, or the distribution's own, by the kind of answer file that it takes."""

    PVMLAB = "pvmlab"
    PRESEED = "preseed"  # debian-installer
    AUTOINSTALL = "autoinstall"  # Ubuntu's subiquity
    KICKSTART = "kickstart"  # Anaconda: Fedora, RHEL and its kin

    @property
    def is_native(self) -> bool:
        """Whether it is the distribution's own."""
        return self is not Installer.PVMLAB


class FirmwareKind(enum.StrEnum):
    """What a machine's firmware is, and so how it asks for its boot program."""

    UEFI = "uefi"  # PXE: DHCP, then TFTP
    UEFI_HTTP = "uefi-http"  # UEFI HTTP boot: DHCP, then HTTP
    BIOS = "bios"


class AnswerFile(enum.StrEnum):
    """Whose answer file a distribution's own installer gets."""

    LAB = "lab"  # the lab's, made for the machine
    VERBATIM = "verbatim"  # a person's, as it is
    TEMPLATE = "template"  # a person's, a Jinja2 template


@dataclasses.dataclass(frozen=True, kw_only=True)
class SshHostKey:
    """An ed25519 host key made by the lab, so that its first connection is already checked.

    :ivar private: the private key in OpenSSH's PEM-like form, with the final newline.
    :ivar public: the one-line public key.
    """

    private: str
    public: str

    def __post_init__(self) -> None:
        if not self.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n"):
            raise ValueError("private is not an OpenSSH private key")
        if not _SSH_PUBLIC_KEY.match(self.public):
            raise ValueError("public is not a one-line SSH public key")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nic:
    """A further LAN card of a machine. :ivar ip: its reserved IPv4 address. :ivar ipv6: its reserved IPv6 address."""

    mac: str
    ip: str
    ipv6: str = ""

    def __post_init__(self) -> None:
        _validate_card(self.mac, self.ip, self.ipv6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtraDisk:
    """A further disk of a machine, empty at first. :ivar size_gib: in GiB."""

    size_gib: int
    bus: DiskBus = DiskBus.NVME

    def __post_init__(self) -> None:
        _validate_range("size_gib", self.size_gib, 1, MAX_DISK_GIB)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """A word about a machine that only people and their programs understand.

    :ivar key: 1 to 63 of ``a-z 0-9 . _ - /``, a letter or digit at both ends.
    :ivar value: at most 63 printable ASCII characters, and maybe none.
    """

    key: str
    value: str

    def __post_init__(self) -> None:
        if not _LABEL_KEY.match(self.key):
            raise ValueError(
                f"label key {self.key!r} is not 1 to 63 of a-z, 0-9 and inner dots, hyphens, slashes and underscores"
            )
        if not _LABEL_VALUE.match(self.value):
            raise ValueError(f"label {self.key}: its value is not at most 63 printable ASCII characters")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PortForward:
    """A port of the host's loopback address that leads to a port of the machine. :ivar host: :ivar guest: numbers."""

    host: int
    guest: int
    protocol: PortProtocol = PortProtocol.TCP

    def __post_init__(self) -> None:
        _validate_range("host", self.host, 1, 65535)
        _validate_range("guest", self.guest, 1, 65535)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VmDefinition:
    """A target machine of the lab.

    :ivar mac: MAC address of its LAN card, lower case with colons.
    :ivar ip: its reserved IPv4 address. :ivar ipv6: its reserved IPv6 address, empty without one.
    :ivar nics: its further LAN cards; it may boot from any of them. :ivar nic_model: what all its LAN cards are.
    :ivar firmware: what boots it. :ivar secure_boot: UEFI starts only what is signed with a key that it knows.
    :ivar source: where its system comes from.
    :ivar image: absolute path of a person's own cloud image, qcow2 or raw; empty for the distribution's.
    :ivar uuid: SMBIOS system UUID; also how we recognise its QEMU process.
    :ivar memory_mib: memory in MiB. :ivar disk_gib: size of its first disk, the one with its system, in GiB.
    :ivar more_disks: its further disks. :ivar tpm: it has a TPM 2.0.
    :ivar qemu_arguments: further arguments of QEMU, after all others: the last resort.
    :ivar forwards: ports of the host that lead to it while it runs.
    :ivar labels: words about it, each key once.
    :ivar user: the account made by cloud-init, with passwordless sudo and key login only.
    :ivar package_sources: lines of its ``/etc/apt/sources.list``: its packages come from where the host's do.
    :ivar repository: base URL of the packages that its own installer takes; empty if it needs none, or has
        ``package_sources``.
    :ivar answer_file: what its own installer is told; a person's file is beside the definition (contracts.answers).
    :ivar managed: False for a machine that the lab does not run itself: it was adopted.
    :ivar reboot_on_success: False leaves the installer's shell on the console after an install.
    """

    schema: int = SCHEMA
    name: str
    arch: Arch
    distro: str
    mac: str
    ip: str
    ipv6: str = ""
    nics: tuple[Nic, ...] = ()
    firmware: FirmwareKind = FirmwareKind.UEFI
    uuid: str
    cpus: int = 2
    memory_mib: int = 1024
    disk_gib: int = 8
    disk_bus: DiskBus = DiskBus.NVME
    user: str = "lab"
    ssh_authorized_keys: tuple[str, ...]
    ssh_host_key: SshHostKey
    package_sources: tuple[str, ...] = ()
    installer: Installer = Installer.PVMLAB
    repository: str = ""
    answer_file: AnswerFile = AnswerFile.LAB
    managed: bool = True
    reboot_on_success: bool = True
    source: MachineSource = MachineSource.NETWORK
    image: str = ""
    nic_model: NicModel = NicModel.VIRTIO
    more_disks: tuple[ExtraDisk, ...] = ()
    labels: tuple[Label, ...] = ()
    secure_boot: bool = False
    tpm: bool = False
    qemu_arguments: tuple[str, ...] = ()
    forwards: tuple[PortForward, ...] = ()

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is unknown, this version reads {SCHEMA}")
        validate_machine_name(self.name)
        _validate_card(self.mac, self.ip, self.ipv6)
        self._validate_cards()
        if self.firmware is FirmwareKind.BIOS and self.arch is not Arch.X86_64:
            raise ValueError(f"firmware bios is of x86_64 machines only, and arch is {self.arch}")
        if str(uuid.UUID(self.uuid)) != self.uuid:
            raise ValueError(f"uuid {self.uuid!r} is not in its canonical form")
        if not _DISTRO_NAME.match(self.distro):
            raise ValueError(f"distro {self.distro!r} is not a distribution name")
        if not _USER_NAME.match(self.user):
            raise ValueError(f"user {self.user!r} is not a Unix account name")
        self._validate_sizes()
        if not self.ssh_authorized_keys or not all(map(_SSH_PUBLIC_KEY.match, self.ssh_authorized_keys)):
            raise ValueError("ssh_authorized_keys must hold at least one one-line SSH public key, and nothing else")
        if not all(map(_SOURCE_LINE.match, self.package_sources)):
            raise ValueError("package_sources must be lines that begin with `deb `")
        if self.repository and not _REPOSITORY.match(self.repository):
            raise ValueError(f"repository {self.repository!r} is not an http or https URL")
        if self.answer_file is not AnswerFile.LAB and not self.installer.is_native:
            raise ValueError("answer_file is for a distribution's own installer, and installer is pvmlab")
        self._validate_source()
        self._validate_hardware()
        self._validate_words()

    @functools.cached_property
    def cards(self) -> tuple[Nic, ...]:
        """All its LAN cards, the first one first."""
        return (Nic(mac=self.mac, ip=self.ip, ipv6=self.ipv6), *self.nics)

    @property
    def first_disk_is_uncertain(self) -> bool:
        """Whether Linux may give another disk the name that its first one should have.

        NVMe and SATA disks are named as they answer; virtio disks in the order of their PCI addresses.
        """
        return self.disk_bus is not DiskBus.VIRTIO and any(disk.bus is self.disk_bus for disk in self.more_disks)

    def _validate_cards(self) -> None:
        if len(self.nics) > MAX_FURTHER_NICS:
            raise ValueError(f"nics holds {len(self.nics)} cards, at most {MAX_FURTHER_NICS} are possible")
        cards = self.cards  # once: each is checked as it is made
        for what, values in (
            ("MAC", [card.mac for card in cards]),
            ("IPv4", [card.ip for card in cards]),
            ("IPv6", [card.ipv6 for card in cards if card.ipv6]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"two cards have the same {what} address")

    def _validate_sizes(self) -> None:
        for label, value, low, high in (
            ("cpus", self.cpus, 1, 255),
            ("memory_mib", self.memory_mib, 512, 1024 * 1024),
            ("disk_gib", self.disk_gib, 2, MAX_DISK_GIB),
        ):
            _validate_range(label, value, low, high)

    def _validate_source(self) -> None:
        if self.source is MachineSource.IMAGE and self.installer is not Installer.PVMLAB:
            raise ValueError("a machine from an image is not installed, and installer is the distribution's own")
        if self.image and self.source is not MachineSource.IMAGE:
            raise ValueError("image is of machines with source image")
        if self.image and not (self.image.startswith("/") and self.image.isprintable()):
            raise ValueError(f"image {self.image!r} is not an absolute path")

    def _validate_hardware(self) -> None:
        if self.secure_boot and self.firmware is FirmwareKind.BIOS:
            raise ValueError("secure_boot is of UEFI machines, and firmware is bios")
        if len(self.more_disks) > MAX_FURTHER_DISKS:
            raise ValueError(f"more_disks holds {len(self.more_disks)} disks, at most {MAX_FURTHER_DISKS} are possible")
        on_sata = [self.disk_bus, *(disk.bus for disk in self.more_disks)].count(DiskBus.SATA)
        if on_sata > MAX_SATA_DISKS:
            raise ValueError(f"{on_sata} disks are on SATA, at most {MAX_SATA_DISKS} are possible")
        for argument in self.qemu_arguments:
            if not 0 < len(argument) <= MAX_QEMU_ARGUMENT or not argument.isprintable():
                raise ValueError(f"qemu_arguments: {argument!r:.60} is empty, too long or not printable")

    def _validate_words(self) -> None:
        for what, keys in (
            ("labels have the key", [label.key for label in self.labels]),
            ("forwards have the host's port", [f"{forward.host}/{forward.protocol}" for forward in self.forwards]),
        ):
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise ValueError(f"two {what} {twice[0]}")
        if len(self.labels) > MAX_LABELS:
            raise ValueError(f"there are {len(self.labels)} labels, at most {MAX_LABELS} are possible")


def _validate_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{what} is {value}, allowed are {low} to {high}")


def _validate_card(mac: str, ip: str, ipv6: str) -> None:
    if normalize_mac(mac) != mac:
        raise ValueError(f"mac {mac!r} must be written as {normalize_mac(mac)}")
    ipaddress.IPv4Address(ip)
    if ipv6 and str(ipaddress.IPv6Address(ipv6)) != ipv6:
        raise ValueError(f"ipv6 {ipv6!r} must be written as {ipaddress.IPv6Address(ipv6)}")
