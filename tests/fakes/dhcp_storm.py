"""Many DHCP clients at once, over one socket: each discovers, requests what it is offered, and tries again in time."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence

from tests.fakes import wire

RETRY = 1.0  # seconds; iPXE's first pause (its dhcp.h), the shortest among those that boot
_BUFFER = 64 << 20  # bytes: what is lost here is not the server's fault


@dataclasses.dataclass
class Client:
    """One network card. :ivar seconds: how long it took to get its lease."""

    mac: str
    arch: int | None = 7
    lease: wire.Lease | None = None
    offer: wire.Lease | None = None
    refused: int = 0
    due: float = 0.0
    began: float = 0.0
    seconds: float | None = None


def open_link(interface: str) -> socket.socket:
    """Return a socket that DHCP clients share on *interface*."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    link.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
    link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    link.bind(("0.0.0.0", 68))  # noqa: S104 (in a namespace of its own)
    return link


def exchange(interface: str, clients: Sequence[Client], *, seconds: float, spread: float = 0.0) -> None:
    """Have all *clients* get a lease, until they have or *seconds* are over.

    :param spread: seconds over which they begin, evenly: no two machines that get power at once ask in the same
        millisecond, and a server's socket holds some 250 messages that it has not read.
    """
    with open_link(interface) as link:
        begin = time.monotonic()
        by_number = dict(enumerate(clients))
        for number, client in by_number.items():
            client.began = client.due = begin + spread * number / len(clients)
        open_numbers = set(by_number)
        while open_numbers and (now := time.monotonic()) < begin + seconds:
            for number in list(open_numbers):
                if by_number[number].due <= now:
                    _send(link, number, by_number[number])
                    _receive(link, by_number, open_numbers, 0)
            _receive(link, by_number, open_numbers, 0.05)


def _send(link: socket.socket, number: int, client: Client) -> None:
    client.due = time.monotonic() + RETRY
    offer = client.offer
    link.sendto(wire.message(client.mac, number, offer, arch=client.arch), ("255.255.255.255", 67))


def _receive(link: socket.socket, clients: dict[int, Client], waiting: set[int], seconds: float) -> None:
    while select.select([link], [], [], seconds)[0]:
        answer = link.recv(2048)
        number = struct.unpack("!I", answer[4:8])[0]
        client = clients.get(number)
        if client is None or number not in waiting or answer[28:34] != bytes.fromhex(client.mac.replace(":", "")):
            continue
        lease = wire.parse_lease(answer)
        if lease.kind == wire.OFFER and client.offer is None:
            client.offer = lease
            _send(link, number, client)
        elif lease.kind == wire.ACK:
            client.lease, client.seconds = lease, time.monotonic() - client.began
            waiting.discard(number)
        elif lease.kind == wire.NAK:
            client.refused += 1
            client.offer = None
        seconds = 0


def flood(interface: str, macs: Sequence[str], stop: threading.Event, *, rate: float) -> int:
    """Have strangers with *macs* discover, in turn, and request what they are offered, again and again until *stop*.

    :param rate: how many discover in a second: as many as there are, if each tries again as iPXE does.
    :return: how many messages that was.
    """
    sent = 0
    with open_link(interface) as link:
        link.setblocking(False)
        by_number = {0x80000000 + index: mac for index, mac in enumerate(macs)}
        begin, turns = time.monotonic(), itertools.cycle(by_number.items())
        asked = 0
        while not stop.wait(0.002):
            due = int((time.monotonic() - begin) * rate)
            for number, mac in itertools.islice(turns, due - asked):
                sent += _try(link, wire.message(mac, number, None, arch=7))
            asked = max(asked, due)
            sent += _accept_offers(link, by_number)
    return sent


def _accept_offers(link: socket.socket, macs: dict[int, str]) -> int:
    sent = 0
    while True:
        try:
            answer = link.recv(2048)
        except BlockingIOError:
            return sent
        mac = macs.get(struct.unpack("!I", answer[4:8])[0])
        if mac is not None and (lease := wire.parse_lease(answer)).kind == wire.OFFER:
            sent += _try(link, wire.message(mac, struct.unpack("!I", answer[4:8])[0], lease, arch=7))


def _try(link: socket.socket, message: bytes) -> int:
    try:
        link.sendto(message, ("255.255.255.255", 67))
    except BlockingIOError:
        return 0
    return 1


def mac_of(number: int, prefix: str = "52:54:01") -> str:
    """Return the MAC address of card *number*."""
    return f"{prefix}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def is_between(address: str, ends: tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]) -> bool:
    """Tell whether *address* is one of those."""
    return ends[0] <= ipaddress.IPv4Address(address) <= ends[1]
