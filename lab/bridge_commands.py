"""The commands that make and remove a lab's bridge and its taps: pure functions. All are for root, see ip-link(8)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

MARK = "pvmlab:"  # begins the alias of every interface of ours; the lab's home follows
LONGEST_ALIAS = 255  # bytes, IFALIASZ less its end
_IPV6 = Path("/proc/sys/net/ipv6")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BridgePlan:
    """A lab's bridge.

    :ivar name: of the interface, at most 11 bytes, the same for a lab for ever. :ivar home: the lab's.
    :ivar interface: the host's own address with the prefix length, ``192.168.100.9/24``; empty for none.
    """

    name: str
    home: Path
    interface: str = ""

    def tap(self, number: int) -> str:
        """Return the name of a tap, *number* from 0: at most 15 bytes, as the kernel wants (IFNAMSIZ)."""
        return f"{self.name}t{number}"

    @property
    def host_addresses(self) -> list[str]:
        """What `ip address` is to show of the host's on it."""
        return [self.interface] if self.interface else []

    @property
    def alias(self) -> str:
        """What the interfaces say of whose they are."""
        return os.fsencode(f"{MARK}{self.home}")[:LONGEST_ALIAS].decode(errors="replace")


def bridge_name(identity: str) -> str:
    """Return the name of the bridge of the lab with that *identity*."""
    return f"pvm{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def make_bridge(plan: BridgePlan, *, ipv6: bool | None = None) -> list[list[str]]:
    """Return the commands that make the bridge.

    No spanning tree and no delay: there is one bridge, and its machines ask for a boot in their first second. No
    snooping: nobody on it asks for group memberships. The host has no address on it and answers nobody there:
    neither by IPv4 (``arp_ignore``) nor by IPv6, where a machine could otherwise give it one by a router advertisement.

    :param ipv6: whether the kernel knows IPv6; None to look.
    """
    options = ["stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"]
    return [
        ["ip", "link", "add", "name", plan.name, "type", "bridge", *options],
        ["ip", "link", "set", "dev", plan.name, "alias", plan.alias],
        *([_set_ipv6_off(plan.name)] if (_IPV6.exists() if ipv6 is None else ipv6) else []),
        ["sh", "-c", f"echo 1 >/proc/sys/net/ipv4/conf/{plan.name}/arp_ignore"],
        *_add_address(plan),
        ["ip", "link", "set", "dev", plan.name, "up"],
    ]


def change_address(plan: BridgePlan) -> list[list[str]]:
    """Return the commands that give the host the address of *plan* on a bridge that is there, and no other."""
    return [["ip", "-4", "address", "flush", "dev", plan.name], *_add_address(plan)]


def show_addresses(plan: BridgePlan) -> list[str]:
    """Return the command that prints the host's IPv4 addresses on the bridge, as JSON."""
    return ["ip", "-json", "-4", "address", "show", "dev", plan.name]


def make_tap(plan: BridgePlan, number: int, *, user: int, ipv6: bool | None = None) -> list[list[str]]:
    """Return the commands that make a tap which *user* (a user id) may open, as a port of the bridge."""
    name = plan.tap(number)
    return [
        ["ip", "tuntap", "add", "dev", name, "mode", "tap", "user", str(user)],
        ["ip", "link", "set", "dev", name, "alias", plan.alias],
        *([_set_ipv6_off(name)] if (_IPV6.exists() if ipv6 is None else ipv6) else []),
        ["ip", "link", "set", "dev", name, "master", plan.name],
        ["ip", "link", "set", "dev", name, "up"],
    ]


def remove(name: str) -> list[str]:
    """Return the command that removes the bridge or the tap *name*."""
    return ["ip", "link", "delete", "dev", name]


def _add_address(plan: BridgePlan) -> list[list[str]]:
    return [["ip", "address", "add", plan.interface, "dev", plan.name]] if plan.interface else []


def _set_ipv6_off(name: str) -> list[str]:
    return ["sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6"]
