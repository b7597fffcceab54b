"""What happened to a machine, event by event: written by the boot handler, read on the host.

Changes of the install state are in the machine's status (:class:`contracts.report.MachineStatus`), safe before anybody
is answered and in its file a moment later. All else, what DHCP, TFTP and HTTP were asked, is in
``status/<name>.events.json``: written about once a second and not flushed, so a crash of the provisioner loses at most
the last seconds of it.
"""

from __future__ import annotations

import dataclasses
import enum

MAX_EVENTS = 200  # of one machine's timeline; the oldest go first
COLLAPSE_WITHIN = 30.0  # seconds between two of the same that are one event: DHCP comes in fours
EVENTS_SUFFIX = ".events.json"  # after a machine's name, which has no dot


class Source(enum.StrEnum):
    """Which service an event comes from."""

    DHCP = "dhcp"
    TFTP = "tftp"
    HTTP = "http"
    BOOT = "boot"  # the boot handler
    INSTALL = "install"  # the installer


class EventKind(enum.StrEnum):
    """What happened. The value is what programs go by; people read the event's text."""

    DISCOVER = "dhcp-discover"
    OFFER = "dhcp-offer"
    REQUEST = "dhcp-request"
    ACK = "dhcp-ack"
    NAK = "dhcp-nak"
    PROXY = "dhcp-proxy"  # it was told what to boot; its address is another server's affair
    DHCP_OTHER = "dhcp-other"
    TFTP_SENT = "tftp-sent"
    TFTP_FAILED = "tftp-failed"
    FILE = "http-file"  # a file was fetched whole
    FILE_FAILED = "http-file-failed"  # it is not there, or was not fetched whole
    CHAIN = "boot-chain"  # boot.ipxe: iPXE runs
    INSTALL_SCRIPT = "boot-install"
    DISK_SCRIPT = "boot-disk"
    RESCUE_SCRIPT = "boot-rescue"
    MENU = "boot-menu"  # the machine was unknown
    FOREIGN = "boot-foreign"  # it asked from an address that is not its own
    REFUSED = "boot-refused"  # it could not be given a script
    DOCUMENT = "boot-document"  # configuration, seed, answers
    DENIED = "boot-denied"  # somebody asked for what is this machine's, and was refused
    ORDERED = "boot-ordered"  # a person's order was carried out
    PHASE = "install-phase"
    FAILED = "install-failed"
    DONE = "install-done"
    NOTE = "boot-note"

    @property
    def source(self) -> Source:
        """Where it comes from."""
        return Source(self.value.partition("-")[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a machine's timeline, which may stand for several of the same.

    :ivar time: seconds since the epoch, of the first. :ivar last: of the last one; 0 if there was only one.
    :ivar text: one line for people, without secrets.
    """

    time: float
    text: str
    kind: EventKind = EventKind.NOTE
    count: int = 1
    last: float = 0.0

    @property
    def latest(self) -> float:
        """When it happened last, seconds since the epoch."""
        return self.last or self.time

    def is_again(self, other: Event) -> bool:
        """Tell whether this is *other* once more, so soon after it that one line can stand for both."""
        return (self.kind, self.text) == (other.kind, other.text) and self.time - other.latest <= COLLAPSE_WITHIN

    def counted_on(self, other: Event) -> Event:
        """Return *other* as it stands for this, too."""
        return Event(time=other.time, kind=other.kind, text=other.text, count=other.count + 1, last=self.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline:
    """``status/<name>.events.json``. :ivar uuid: of the machine it is about; of another, it is stale."""

    schema: int = 1
    name: str
    uuid: str
    events: tuple[Event, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stranger:
    """A machine that the lab does not know, as it was seen on the network.

    :ivar first: seconds since the epoch. :ivar last: the same. :ivar address: the last one it had, or nothing.
    """

    mac: str
    first: float
    last: float
    address: str = ""
    events: tuple[Event, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strangers:
    """``status/_strangers.json``: the last ones seen, the latest first."""

    schema: int = 1
    strangers: tuple[Stranger, ...] = ()


STRANGERS_FILE = "_strangers.json"  # an underscore is in no machine's name


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefusedDefinition:
    """A definition that the services do not use as it is.

    :ivar kept: whether they go on with its last good version.
    """

    name: str
    reason: str
    kept: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceFaults:
    """``status/_faults.json``: what the services cannot use, as they found it last.

    :ivar unreadable: why the definitions cannot be read at all, or nothing.
    """

    schema: int = 1
    unreadable: str = ""
    definitions: tuple[RefusedDefinition, ...] = ()


FAULTS_FILE = "_faults.json"
