"""Takes back the addresses that dnsmasq has leased to somebody else than who they are reserved for.

dnsmasq gives a reserved address to nobody while a lease of it has not expired. A machine that was made, with the
address of one that was removed, would thus be a stranger for an hour: it would boot from an address of the pool,
and the boot handler would refuse it its configuration. So such leases are released, as their holder would do it
(RFC 2131, section 4.4.6): dnsmasq lets go without a restart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

from contracts.machine import VmDefinition
from contracts.names import normalize_mac

_LOG = logging.getLogger(__name__)
_SERVER_PORT = 67
_MAGIC_COOKIE = bytes.fromhex("63825363")  # RFC 2131, section 3
_RELEASE = bytes([53, 1, 7])  # option 53, DHCP message type: DHCPRELEASE
_SERVER_IDENTIFIER, _END = 54, 255


@dataclasses.dataclass(frozen=True)
class Lease:
    """Who has which address."""

    mac: str
    address: IPv4Address


def parse_leases(text: str) -> list[Lease]:
    """Return the IPv4 leases of a ``dhcp-leasefile``: time of expiry, MAC, address, name and client-id a line.

    Lines that are anything else are left out: dnsmasq writes its DUID and IPv6 leases there, too.
    """
    leases = []
    for line in text.splitlines():
        words = line.split()
        with contextlib.suppress(ValueError, IndexError):
            leases.append(Lease(normalize_mac(words[1]), IPv4Address(words[2])))
    return leases


def find_foreign(leases: Iterable[Lease], machines: Iterable[VmDefinition]) -> list[Lease]:
    """Return the leases of addresses that are reserved for another machine than their holder."""
    owners = {IPv4Address(card.ip): card.mac for machine in machines for card in machine.cards}
    return [lease for lease in leases if owners.get(lease.address, lease.mac) != lease.mac]


def release_message(lease: Lease, server: IPv4Address) -> bytes:
    """Return the DHCPRELEASE (RFC 2131, table 5) that the holder of *lease* would send."""
    op, ethernet, mac_length = 1, 1, 6
    header = struct.pack("!BBBB", op, ethernet, mac_length, 0) + os.urandom(4) + bytes(4)
    addresses = lease.address.packed + bytes(12)
    hardware = bytes.fromhex(lease.mac.replace(":", "")).ljust(16, b"\0")
    names = bytes(64 + 128)
    options = _RELEASE + bytes([_SERVER_IDENTIFIER, 4]) + server.packed + bytes([_END])
    return header + addresses + hardware + names + _MAGIC_COOKIE + options


def release(leases: Iterable[Lease], *, server: IPv4Address, interface: str) -> None:
    """Have dnsmasq forget *leases*. Nothing answers a release: whether it was heard is in the lease file.

    :param interface: where dnsmasq listens: what comes from elsewhere is none of its business.
    :raises OSError: if a message cannot be sent.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        for lease in leases:
            link.sendto(release_message(lease, server), (str(server), _SERVER_PORT))
            _LOG.info("%s gives back %s, which is not its own", lease.mac, lease.address)


def read_leases(path: Path) -> list[Lease]:
    """Return the leases in the file at *path*; none if dnsmasq has not written it yet."""
    try:
        return parse_leases(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return []
