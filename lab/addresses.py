"""Addresses: MAC and IPv4 of machines, and a free TCP port of the host."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Collection
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network

from contracts.lan import IPV6_PREFIX, Lan
from pipeline.errors import ConflictError, UsageError

LOOPBACK = "127.0.0.1"
FIRST_SSH_PORT = 2222
_PORTS_TRIED = 200


def derive_mac(identity: str, name: str, *, card: str = "lan") -> str:
    """Return the MAC address of a machine's *card*: the same lab, name and card always give the same one.

    It begins with QEMU's own prefix 52:54:00; the rest has 24 bits, so that it must be checked against the others.
    """
    digits = hashlib.sha256(f"{identity}/{name}/{card}".encode()).hexdigest()[:6]
    return ":".join(["52", "54", "00", digits[:2], digits[2:4], digits[4:]])


def derive_ipv6_subnet(identity: str) -> str:
    """Return the unique local /64 of a lab: the same *identity* always gives the same one.

    RFC 4193, section 3.1: ``fd``, a global identifier of 40 bits that hardly two sites share, a subnet of 16 bits (0).
    """
    digits = hashlib.sha256(f"{identity}/ula".encode()).hexdigest()[:10]
    return str(IPv6Network(f"fd{digits[:2]}:{digits[2:6]}:{digits[6:]}::/{IPV6_PREFIX}"))


def ipv6_of(lan: Lan, ip: str) -> str:
    """Return the IPv6 address of the machine with the address *ip*; empty in a network without IPv6."""
    return str(lan.ipv6_of(IPv4Address(ip)) or "")


def choose_address(lan: Lan, taken: Collection[str]) -> str:
    """Return the lowest address of the reservable half of *lan* that is not *taken*.

    :raises ConflictError: if all are.
    """
    for address in lan.network.hosts():
        if lan.is_reservable(address) and str(address) not in taken:
            return str(address)
    raise ConflictError(
        f"the lab's network {lan.subnet} has no free address left for a machine",
        resolution="./pvmlab vm.clean NAME gives one back",
    )


def require_reservable(lan: Lan, text: str) -> str:
    """Return the address *text* in its usual spelling.

    :raises UsageError: if it is no address that a machine of *lan* may have.
    """
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise UsageError(f"{text!r} is not an IPv4 address", details=str(error)) from None
    if not lan.is_reservable(address):
        first, last = lan.network[2], lan.last_reservable
        raise UsageError(
            f"{address} cannot be a machine's address in {lan.subnet}", resolution=f"choose one of {first} to {last}"
        )
    return str(address)


def require_reservable_ipv6(lan: Lan, text: str) -> str:
    """Return the IPv6 address *text* in its usual spelling.

    :raises UsageError: if it is no address that a machine of *lan* may have.
    """
    try:
        address = IPv6Address(text if "%" not in text else "")  # a zone is no part of it
    except AddressValueError as error:
        raise UsageError(f"{text!r} is not an IPv6 address", details=str(error)) from None
    if (network := lan.ipv6_network) is None or (pool := lan.ipv6_pool) is None:
        raise UsageError("the lab's network has no IPv6", resolution="leave out --ipv6")
    if not lan.is_reservable_ipv6(address):
        raise UsageError(
            f"{address} cannot be a machine's address in {network}",
            resolution=f"choose one of {network[2]} to {pool[0] - 1}",
        )
    return str(address)


def choose_port(preferred: int | None) -> int:
    """Return a TCP port that is free on 127.0.0.1: *preferred* if it is.

    :raises ConflictError: if none is free.
    """
    candidates = range(FIRST_SSH_PORT, FIRST_SSH_PORT + _PORTS_TRIED)
    ports: list[int] = [*([preferred] if preferred else []), *candidates]
    for port in ports:
        if is_free(port):
            return port
    raise ConflictError(
        f"no TCP port from {candidates[0]} to {candidates[-1]} is free on {LOOPBACK}",
        resolution="PVMLAB_SSH_PORT names one to use",
    )


def is_free(port: int) -> bool:
    """Tell whether a server could listen on *port* of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as QEMU does: a connection of the last run that is still in TIME_WAIT is no obstacle
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return True
    return False
