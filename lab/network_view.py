"""How the lab's network stands and who is on it, as data. Looking changes nothing."""

from __future__ import annotations

import dataclasses
import time

from contracts.lan import DhcpMode, Lan
from contracts.machine import VmDefinition
from contracts.names import PROVISIONER_NAME
from contracts.timeline import EventKind
from lab import addresses, bridge, processes
from lab.bridge import BridgeNetwork
from lab.events import read_events, read_strangers
from lab.lab import Lab
from lab.network import NetworkKind, PortView
from lab.network_settings import read_settings
from lab.provisioner_record import ProvisionerMode
from lab.store import DefinitionStore
from lab.vmnet import VmnetNetwork
from pipeline.errors import PvmlabError

RECENT = 3600.0  # seconds in which a stranger was seen to be worth a line


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkView:
    """The lab's network.

    :ivar carrier: the switch's socket, the bridge's name, or socket_vmnet's socket. :ivar subnet: its IPv4 network.
    :ivar ipv6_subnet: its IPv6 network, empty without one. :ivar gateway: the provisioner's address.
    :ivar machines: first and last address that is for machines. :ivar pool: ... and for strangers; none if another
        DHCP server gives out the addresses.
    :ivar host_address: the host's own; empty for none. :ivar way_out: how targets reach other networks.
    :ivar leftovers: what is on this host of it, and of labs that are gone, and nobody uses.
    """

    kind: NetworkKind
    running: bool
    carrier: str
    subnet: str
    ipv6_subnet: str
    domain: str
    dhcp: str
    gateway: str
    machines: tuple[str, str]
    pool: tuple[str, ...]
    host_address: str
    way_out: str
    leftovers: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberView:
    """A card on the network.

    :ivar machine: its name; empty for a stranger. :ivar connected: its card is plugged in, as far as can be told.
    :ivar leased: when it was last given its address by DHCP, seconds since the epoch; 0 if never, as far as is known.
    :ivar port: see :class:`lab.network.PortView`; None if it is at none.
    """

    machine: str
    mac: str
    ip: str
    ipv6: str = ""
    connected: bool = False
    leased: float = 0.0
    port: PortView | None = None


def view_network(lab: Lab) -> NetworkView:
    """Return how the network stands."""
    network, lan, settings = lab.network, lab.lan, read_settings(lab.home)
    return NetworkView(
        kind=network.kind,
        running=network.is_running(),
        carrier=_carrier(lab),
        subnet=lan.subnet,
        ipv6_subnet=lan.ipv6_subnet,
        domain=lan.domain,
        dhcp=lan.dhcp.value,
        gateway=str(lan.provisioner),
        machines=(str(lan.network[2]), str(lan.last_reservable)),
        pool=(str(lan.pool[0]), str(lan.pool[1])) if lan.dhcp is DhcpMode.SERVER else (),
        host_address=settings.host_address,
        way_out=_way_out(lab, lan),
        leftovers=(*network.leftovers(), *stray_interfaces(lab)),
    )


def _way_out(lab: Lab, lan: Lan) -> str:
    """Return how targets reach other networks, for people."""
    if lan.dhcp is DhcpMode.PROXY:
        return "as the other DHCP server says"
    if lab.provisioner_mode is ProvisionerMode.HOST:
        return "none: the provisioner is in host mode"
    return "by NAT in the provisioner"


def view_members(lab: Lab) -> list[MemberView]:
    """Return who is on the network: the provisioner, the machines, then strangers that were seen of late."""
    ports = lab.network.ports()
    pids = {port.pid for port in ports if port.pid is not None}
    members = [_provisioner(lab, ports, pids)]
    store = DefinitionStore(lab)
    for name in store.names():
        try:
            definition = store.load(name)
        except PvmlabError:  # vm.list shows what is wrong with it
            continue
        members += _cards(lab, definition, ports, pids)
    known = {member.mac for member in members}
    now = time.time()
    return members + [
        MemberView(machine="", mac=stranger.mac, ip=stranger.address, port=_behind(ports, stranger.mac))
        for stranger in read_strangers(lab)
        if stranger.mac not in known and now - stranger.last < RECENT
    ]


def stray_interfaces(lab: Lab) -> list[str]:
    """Return the bridges and taps on this host that no lab uses: the lab that made them is gone, or not on a bridge."""
    network = lab.network
    mine = set(network.interfaces()) if isinstance(network, BridgeNetwork) else set()
    return [name for name in bridge.ours() if name not in mine and _is_stray(lab, name)]


def _is_stray(lab: Lab, interface: str) -> bool:
    if bridge.is_used(interface):  # of a machine that runs on, whatever became of its lab's folder
        return False
    return bridge.home_of(interface) == lab.home.root or bridge.is_abandoned(interface)


def _carrier(lab: Lab) -> str:
    network = lab.network
    if isinstance(network, BridgeNetwork):
        return network.plan.name
    if isinstance(network, VmnetNetwork):
        return str(network.socket)
    return str(network.socket) if hasattr(network, "socket") else ""


def _provisioner(lab: Lab, ports: list[PortView], pids: set[int]) -> MemberView:
    lan, identity = lab.lan, lab.find_identity()
    mac = addresses.derive_mac(identity, PROVISIONER_NAME) if identity else ""
    return MemberView(
        machine=PROVISIONER_NAME, mac=mac, ip=str(lan.provisioner), ipv6=str(lan.provisioner_ipv6 or ""),
        port=(port := _behind(ports, mac)), connected=_is_connected(lab, PROVISIONER_NAME, port, pids),
    )  # fmt: skip


def _cards(lab: Lab, definition: VmDefinition, ports: list[PortView], pids: set[int]) -> list[MemberView]:
    try:
        acks = [each.latest for each in read_events(lab, definition) if each.kind is EventKind.ACK]
    except PvmlabError:  # a broken status: vm.list shows it
        acks = []
    return [
        MemberView(
            machine=definition.name, mac=card.mac, ip=card.ip, ipv6=card.ipv6, leased=max(acks, default=0.0),
            port=(port := _behind(ports, card.mac)), connected=_is_connected(lab, definition.name, port, pids),
        )
        for card in definition.cards
    ]  # fmt: skip


def _behind(ports: list[PortView], mac: str) -> PortView | None:
    return next((port for port in ports if mac in port.addresses), None)


def _is_connected(lab: Lab, name: str, port: PortView | None, pids: set[int]) -> bool:
    """Tell whether the machine is plugged in: it was heard, or its process is at a port."""
    if port is not None and port.connected:
        return True
    try:
        record = processes.find_record(lab.home.run / f"{name}.json")
    except PvmlabError:
        return False
    return record is not None and record.pid in pids
