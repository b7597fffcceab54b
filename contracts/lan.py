"""The address plan of a lab's private network, a pure function of its subnets."""

from __future__ import annotations

import dataclasses
import enum
import functools
import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

DEFAULT_SUBNET = "192.168.100.0/24"
DEFAULT_DOMAIN = "pvmlab.local"
SMALLEST_PREFIX = 28  # room for a router, a few reservations and a few strangers
# dnsmasq looks for a free address one by one, and at each through all leases: in a large pool that strangers have
# filled, one more of them costs it tens of milliseconds, in which known machines wait.
LARGEST_POOL = 256
IPV6_PREFIX = 64  # of a LAN (RFC 4291, section 2.5.1)
UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193
_RESERVABLE_IPV6 = 2**32  # interface identifiers below are for reservations, the pool begins here
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z")


class DhcpMode(enum.StrEnum):
    """Who gives out the addresses of the network."""

    SERVER = "server"  # we do, and nobody else
    PROXY = "proxy"  # somebody else does; we only tell machines what to boot (PXE specification 2.1, proxyDHCP)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lan:
    """The private network of a lab.

    The first address is the provisioner's (router, DHCP, DNS, HTTP). The lower half of the subnet holds the
    reservations of known machines, the upper half the pool for unknown ones, so neither can take from the other.

    :ivar subnet: IPv4 network in CIDR form.
    :ivar ipv6_subnet: unique local /64 (RFC 4193) in CIDR form; empty for IPv4 only.
    :ivar domain: DNS domain of the machines, lower case.
    :ivar dhcp: who gives out addresses.
    :ivar address: the provisioner's IPv4 address where it is not the first one: beside another DHCP server, that may
        be taken.
    """

    subnet: str = DEFAULT_SUBNET
    ipv6_subnet: str = ""
    domain: str = DEFAULT_DOMAIN
    dhcp: DhcpMode = DhcpMode.SERVER
    address: str = ""

    def __post_init__(self) -> None:
        network = ipaddress.IPv4Network(self.subnet)  # strict: host bits set is a ValueError
        if network.prefixlen > SMALLEST_PREFIX:
            raise ValueError(f"subnet {self.subnet} is too small: at most /{SMALLEST_PREFIX}")
        if not _DOMAIN.match(self.domain):
            raise ValueError(f"domain {self.domain!r} is not a DNS domain in lower case")
        if self.ipv6_subnet:
            self._validate_ipv6(ipaddress.IPv6Network(self.ipv6_subnet))
        if self.address:
            self._validate_address(IPv4Address(self.address))

    def _validate_ipv6(self, network: IPv6Network) -> None:
        if network.prefixlen != IPV6_PREFIX or not network.subnet_of(UNIQUE_LOCAL):
            raise ValueError(f"ipv6_subnet {self.ipv6_subnet} is not a unique local /{IPV6_PREFIX} (RFC 4193)")
        if self.dhcp is DhcpMode.PROXY:
            raise ValueError("ipv6_subnet needs dhcp to be server: beside another DHCP server, IPv6 is that one's")

    def _validate_address(self, address: IPv4Address) -> None:
        if address not in self.network or address in (self.network[0], self.network[-1]):
            raise ValueError(f"address {address} is not a host's address in {self.subnet}")
        if self.dhcp is DhcpMode.SERVER and address != self.network[1]:
            raise ValueError(f"address {address} is not the first of {self.subnet}: that is for dhcp proxy only")

    @functools.cached_property
    def network(self) -> IPv4Network:
        """The subnet, parsed."""
        return ipaddress.IPv4Network(self.subnet)

    @functools.cached_property
    def ipv6_network(self) -> IPv6Network | None:
        """The IPv6 subnet, parsed; None without one."""
        return ipaddress.IPv6Network(self.ipv6_subnet) if self.ipv6_subnet else None

    @functools.cached_property
    def provisioner(self) -> IPv4Address:
        """The provisioner's address."""
        return IPv4Address(self.address) if self.address else self.network[1]

    @property
    def provisioner_ipv6(self) -> IPv6Address | None:
        """The provisioner's IPv6 address: the first of the subnet; None without one."""
        return self.ipv6_network[1] if self.ipv6_network else None

    @property
    def provisioner_interface(self) -> str:
        """The provisioner's address with the prefix length, as ``192.168.100.1/24``."""
        return f"{self.provisioner}/{self.network.prefixlen}"

    @property
    def provisioner_interface_ipv6(self) -> str:
        """The provisioner's IPv6 address with the prefix length, as ``fd00::1/64``; empty without one."""
        return f"{self.provisioner_ipv6}/{IPV6_PREFIX}" if self.provisioner_ipv6 else ""

    @property
    def pool(self) -> tuple[IPv4Address, IPv4Address]:
        """First and last address of the dynamic pool for unknown machines: the end of the upper half."""
        last = self.network.num_addresses - 2
        first = max(self.network.num_addresses // 2, last - LARGEST_POOL + 1)
        return self.network[first], self.network[last]

    @property
    def ipv6_pool(self) -> tuple[IPv6Address, IPv6Address] | None:
        """First and last address of the dynamic IPv6 pool for unknown machines; None without IPv6."""
        network = self.ipv6_network
        return (network[_RESERVABLE_IPV6], network[_RESERVABLE_IPV6 + LARGEST_POOL - 1]) if network else None

    @functools.cached_property
    def last_reservable(self) -> IPv4Address:
        """The last address that may be reserved for a machine. Beside another DHCP server, any host's may."""
        count = self.network.num_addresses
        return self.network[count - 2 if self.dhcp is DhcpMode.PROXY else count // 2 - 1]

    @property
    def most_leases(self) -> int:
        """How many leases there can be at once: of all that may be reserved and of both pools."""
        reservable = self.network.num_addresses // 2 * (2 if self.ipv6_subnet else 1)
        return reservable + LARGEST_POOL * (2 if self.ipv6_subnet else 1)

    def is_reservable(self, address: IPv4Address) -> bool:
        """Tell whether *address* may be reserved for a machine: in the lower half, not network nor router."""
        return self.network[0] < address <= self.last_reservable and address not in (self.network[1], self.provisioner)

    def is_reservable_ipv6(self, address: IPv6Address) -> bool:
        """Tell whether *address* may be reserved for a machine: not the provisioner's, below the pool."""
        network = self.ipv6_network
        return network is not None and network[1] < address < network[_RESERVABLE_IPV6]

    def ipv6_of(self, address: IPv4Address) -> IPv6Address | None:
        """Return the IPv6 address that goes with the reservable *address*: it has the same number in its network.

        ``192.168.100.17`` goes with ``fd00::11``. None without IPv6.

        :raises ValueError: if *address* is not of this network.
        """
        if address not in self.network:
            raise ValueError(f"{address} is not in {self.subnet}")
        return self.ipv6_network[int(address) - int(self.network[0])] if self.ipv6_network else None

    @functools.cached_property
    def base_url(self) -> str:
        """Where the provisioner's HTTP services are."""
        return f"http://{self.provisioner}"
