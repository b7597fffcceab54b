"""Which network a lab has: ``config/network.json`` (what carries the frames) and ``config/lab.json`` (the addresses).

Changing either below machines that are there would cut them off, so that is refused before anything is touched.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.lan import DhcpMode, Lan
from contracts.machine import VmDefinition
from lab.network import NetworkKind
from pipeline import commit
from pipeline.errors import ConflictError, UsageError
from pipeline.workspace import Home

MOST_TAPS = 64
_SHOWN = 10  # addresses named in an error
USER_NETWORK = ipaddress.IPv4Network("10.0.2.0/24")  # QEMU's user-mode network, the provisioner's way out
# RFC 1918; RFC 6598 (between carriers and customers); RFC 5737 and RFC 2544 (documentation, benchmarks)
_PRIVATE = tuple(
    map(
        ipaddress.IPv4Network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.2.0/24", "198.51.100.0/24",
         "203.0.113.0/24", "198.18.0.0/15"),
    )
)  # fmt: skip
_ROUTES = Path("/proc/net/route")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """What carries the frames of a lab.

    :ivar host_address: the host's own IPv4 address on the bridge; empty for none. :ivar taps: how many taps an
        ordinary user has made for himself by root. :ivar socket: of socket_vmnet; empty for where Homebrew has it.
    """

    schema: int = 1
    kind: NetworkKind = NetworkKind.SWITCH
    host_address: str = ""
    taps: int = 8
    socket: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.taps <= MOST_TAPS:
            raise ValueError(f"taps is {self.taps}, allowed are 1 to {MOST_TAPS}")
        if self.host_address and self.kind is not NetworkKind.BRIDGE:
            raise ValueError("host_address is for a bridge only")
        if self.socket and self.kind is not NetworkKind.VMNET:
            raise ValueError("socket is for vmnet only")
        if self.host_address:
            try:
                ipaddress.IPv4Address(self.host_address)
            except ValueError:
                raise ValueError(f"host_address {self.host_address!r} is not an IPv4 address") from None


def settings_path(home: Home) -> Path:
    """Return where the settings of the lab at *home* are."""
    return home.config / "network.json"


def lan_path(home: Home) -> Path:
    """Return where the address plan of the lab at *home* is."""
    return home.config / "lab.json"


def read_settings(home: Home) -> NetworkSettings:
    """Return the settings; the usual ones if there are none.

    :raises ConflictError: if the file is broken.
    """
    path = settings_path(home)
    try:
        return document.loads(NetworkSettings, path.read_bytes())
    except FileNotFoundError:
        return NetworkSettings()
    except DocumentError as error:
        raise ConflictError(
            f"the settings {path} of the lab's network are broken",
            details="\n".join(error.faults),
            resolution="repair the file, or remove it for the usual network",
        ) from None


def write_settings(home: Home, settings: NetworkSettings, lan: Lan) -> None:
    """Publish both. The usual settings are no file."""
    commit.publish_text(lan_path(home), document.dumps(lan))
    if settings == NetworkSettings():
        settings_path(home).unlink(missing_ok=True)
    else:
        commit.publish_text(settings_path(home), document.dumps(settings))


def require_usable_lan(lan: Lan, settings: NetworkSettings, *, has_way_out: bool = True) -> None:
    """Check what a :class:`Lan` cannot know: that its addresses can be used beside the others here.

    A network with another DHCP server was there before the lab: whose its addresses are is that one's affair.

    :param has_way_out: the provisioner has one of its own, as in a machine. :raises UsageError: if not.
    """
    network = lan.network
    if has_way_out and network.overlaps(USER_NETWORK):
        raise UsageError(
            f"the subnet {network} is the way out of the provisioner: QEMU has {USER_NETWORK} for it",
            resolution="choose another one, such as 192.168.100.0/24",
        )
    if lan.dhcp is DhcpMode.SERVER and not any(network.subnet_of(private) for private in _PRIVATE):
        raise UsageError(
            f"the subnet {network} is not for private use",
            details="machines would take addresses of others for their own",
            resolution="choose one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918)",
        )
    if settings.host_address:
        address = ipaddress.IPv4Address(settings.host_address)
        if address not in network or not lan.is_reservable(address):
            raise UsageError(
                f"{address} cannot be this host's address in {network}",
                resolution=f"choose one of {network[2]} to {lan.last_reservable}",
            )


def find_overlaps(lan: Lan, routes: str | None = None, *, besides: Collection[str] = ()) -> list[str]:
    """Return the networks of this host that the lab's subnet overlaps, default routes left out.

    :param besides: interfaces that do not count: the lab's own.
    :param routes: the text of ``/proc/net/route`` (proc(5)), read if None; without such a file there are none.
    """
    if routes is None:
        routes = _ROUTES.read_text() if _ROUTES.exists() else ""
    found = set()
    for line in routes.splitlines()[1:]:
        fields = line.split()
        base, mask = (int.from_bytes(bytes.fromhex(fields[number]), "little") for number in (1, 7))
        if (
            mask
            and fields[0] not in besides
            and (other := ipaddress.IPv4Network((base, mask.bit_count()))).overlaps(lan.network)
        ):
            found.add(f"{other} on {fields[0]}")
    return sorted(found)


def require_fitting(lan: Lan, definitions: Sequence[VmDefinition], settings: NetworkSettings) -> None:
    """Check that the machines that are defined keep their addresses in *lan*.

    :raises ConflictError: if one does not; nothing was changed.
    """
    homeless = [f"{each.name}: {fault}" for each in definitions for fault in _misfits(lan, each, settings)]
    if not homeless:
        return
    names = list(dict.fromkeys(line.partition(":")[0] for line in homeless))
    more = [f"and {len(homeless) - _SHOWN} more"] if len(homeless) > _SHOWN else []
    raise ConflictError(
        f"the network cannot be changed below {len(names)} defined machine(s)",
        details="\n".join([*homeless[:_SHOWN], *more]),
        resolution="choose a network with these addresses, or remove the machines first: ./pvmlab vm.clean "
        f"{names[0]}{' ...; ./pvmlab clean for all' if len(names) > 1 else ''}; then create them anew",
    )


def _misfits(lan: Lan, definition: VmDefinition, settings: NetworkSettings) -> Iterator[str]:
    """Yield what is wrong with the machine's addresses in *lan*. In a lab without IPv6, those of IPv6 lie idle."""
    for card in definition.cards:
        if not lan.is_reservable(ipaddress.IPv4Address(card.ip)):
            yield f"{card.ip} is no machine's address in {lan.subnet}"
        if card.ip == settings.host_address:
            yield f"{card.ip} would be this host's"
        if lan.ipv6_subnet and card.ipv6 and not lan.is_reservable_ipv6(ipaddress.IPv6Address(card.ipv6)):
            yield f"{card.ipv6} is no machine's address in {lan.ipv6_subnet}"
