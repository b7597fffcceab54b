"""The address plan of a lab's private network, a pure function of its subnet."""

from __future__ import annotations

import dataclasses
import ipaddress
from ipaddress import IPv4Address, IPv4Network

DEFAULT_SUBNET = "192.168.100.0/24"
DEFAULT_DOMAIN = "pvmlab.local"
SMALLEST_PREFIX = 28  # room for a router, a few reservations and a few strangers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lan:
    """The private network of a lab.

    The first address is the provisioner's (router, DHCP, DNS, HTTP). The lower half of the subnet holds the
    reservations of known machines, the upper half the pool for unknown ones, so neither can take from the other.

    :ivar subnet: IPv4 network in CIDR form.
    :ivar domain: DNS domain of the machines.
    """

    subnet: str = DEFAULT_SUBNET
    domain: str = DEFAULT_DOMAIN

    def __post_init__(self) -> None:
        network = ipaddress.IPv4Network(self.subnet)  # strict: host bits set is a ValueError
        if network.prefixlen > SMALLEST_PREFIX:
            raise ValueError(f"subnet {self.subnet} is too small: at most /{SMALLEST_PREFIX}")

    @property
    def network(self) -> IPv4Network:
        """The subnet, parsed."""
        return ipaddress.IPv4Network(self.subnet)

    @property
    def provisioner(self) -> IPv4Address:
        """The provisioner's address: the first of the subnet."""
        return self.network[1]

    @property
    def provisioner_interface(self) -> str:
        """The provisioner's address with the prefix length, as ``192.168.100.1/24``."""
        return f"{self.provisioner}/{self.network.prefixlen}"

    @property
    def pool(self) -> tuple[IPv4Address, IPv4Address]:
        """First and last address of the dynamic pool for unknown machines."""
        return self.network[self.network.num_addresses // 2], self.network[-2]

    def is_reservable(self, address: IPv4Address) -> bool:
        """Tell whether *address* may be reserved for a machine: in the lower half, not network nor router."""
        return self.provisioner < address < self.pool[0]

    @property
    def base_url(self) -> str:
        """Where the provisioner's HTTP services are."""
        return f"http://{self.provisioner}"
