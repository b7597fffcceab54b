"""Just enough of DHCP, TFTP and DNS to ask real servers: by hand, so that nothing of ours answers for itself."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import select
import socket
import struct
import time

_MAGIC = bytes.fromhex("63825363")
_WANTED = bytes([1, 3, 6, 12, 15, 43, 51, 60, 66, 67, 119])  # option 55
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6


@dataclasses.dataclass(frozen=True)
class Lease:
    """A server's answer. :ivar bootfile: header field ``file``, or option 67."""

    kind: int
    address: str
    next_server: str
    bootfile: str
    options: dict[int, bytes]


def dhcp(
    interface: str,
    mac: str,
    *,
    arch: int | None = None,
    user_class: str = "",
    client_id: bytes = b"",
    name: str = "",
    vendor: str = "PXEClient",
) -> Lease | None:
    """Discover, and request what is offered; return the acknowledgement, or None if nobody answers within 3 s."""
    more = {
        **({77: user_class.encode()} if user_class else {}),
        **({61: client_id} if client_id else {}),
        **({12: name.encode()} if name else {}),
    }
    with _link(interface, 68) as link:
        offer = _exchange(link, mac, None, arch=arch, vendor=vendor, more=more)
        return offer and _exchange(link, mac, offer, arch=arch, vendor=vendor, more=more)


def offers(interface: str, mac: str, *, arch: int, user_class: str = "", vendor: str = "PXEClient") -> list[Lease]:
    """Discover, and return every offer that comes within a second."""
    more = {77: user_class.encode()} if user_class else {}
    found = []
    with _link(interface, 68) as link:
        number = _number()
        link.sendto(message(mac, number, None, arch=arch, vendor=vendor, more=more), ("255.255.255.255", 67))
        deadline = time.monotonic() + 1
        while (left := deadline - time.monotonic()) > 0:
            link.settimeout(left)
            try:
                answer = link.recv(2048)
            except TimeoutError:
                break
            if answer[4:8] == struct.pack("!I", number):
                found.append(parse_lease(answer))
    return found


def boot_server(server: str, mac: str, address: str, *, arch: int) -> Lease:
    """Ask the proxyDHCP service on port 4011 (PXE specification 2.1, section 2.2.3) from *address*."""
    request = {53: bytes([REQUEST]), **_identity(arch, "PXEClient"), 55: _WANTED}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(3.0)
        link.bind((address, 68))
        number = _number()
        own = ipaddress.IPv4Address(address).packed
        link.sendto(_pack(mac, number, request, ciaddr=own, broadcast=False), (server, 4011))
        while True:
            answer = link.recv(2048)
            if answer[4:8] == struct.pack("!I", number):
                return parse_lease(answer)


def message(
    mac: str,
    number: int,
    offer: Lease | None,
    *,
    arch: int | None,
    vendor: str = "PXEClient",
    more: dict[int, bytes] | None = None,
) -> bytes:
    """Return a DHCPDISCOVER, or the DHCPREQUEST for *offer*. :param number: the transaction's."""
    if offer is None:
        begin = {53: bytes([DISCOVER])}
    else:
        begin = {53: bytes([REQUEST]), 50: ipaddress.IPv4Address(offer.address).packed, 54: offer.options[54]}
    return _pack(mac, number, {**begin, **_identity(arch, vendor), **(more or {}), 55: _WANTED})


def _identity(arch: int | None, vendor: str) -> dict[int, bytes]:
    return {} if arch is None else {93: struct.pack("!H", arch), 60: f"{vendor}:Arch:{arch:05d}:UNDI:003001".encode()}


def _number() -> int:
    return int.from_bytes(os.urandom(4)) & 0x7FFFFFFF


def _link(interface: str, port: int) -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    link.settimeout(3.0)
    link.bind(("0.0.0.0", port))  # noqa: S104 (in a namespace of its own)
    return link


def _exchange(
    link: socket.socket, mac: str, offer: Lease | None, *, arch: int | None, vendor: str, more: dict[int, bytes]
) -> Lease | None:
    number = _number()
    link.sendto(message(mac, number, offer, arch=arch, vendor=vendor, more=more), ("255.255.255.255", 67))
    while True:
        try:
            answer = link.recv(2048)
        except TimeoutError:
            return None
        if answer[4:8] == struct.pack("!I", number):
            return parse_lease(answer)


def _pack(
    mac: str, number: int, options: dict[int, bytes], *, ciaddr: bytes = bytes(4), broadcast: bool = True
) -> bytes:
    header = struct.pack("!BBBBIHH", 1, 1, 6, 0, number, 0, 0x8000 if broadcast else 0) + ciaddr + bytes(12)
    chaddr = bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0")
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items()) + b"\xff"
    return (header + chaddr + bytes(192) + _MAGIC + body).ljust(300, b"\0")


def parse_lease(data: bytes) -> Lease:
    """Return what a DHCP answer says."""
    options: dict[int, bytes] = {}
    rest = data[240:]
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        options[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    file = data[108:236].split(b"\0")[0] or options.get(67, b"").rstrip(b"\0")
    return Lease(options[53][0], socket.inet_ntoa(data[16:20]), socket.inet_ntoa(data[20:24]), file.decode(), options)


def tftp(server: str, name: str) -> bytes:
    """Fetch a file. :raises OSError: if the server refuses it or does not answer."""
    data = b""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(3.0)
        link.sendto(b"\0\1" + name.encode() + b"\0octet\0", (server, 69))
        while True:
            packet, peer = link.recvfrom(4096)
            kind, number = struct.unpack("!HH", packet[:4])
            if kind == 5:
                raise OSError(number, packet[4:].rstrip(b"\0").decode())
            data += packet[4:]
            link.sendto(struct.pack("!HH", 4, number), peer)
            if len(packet) < 516:
                return data


def tftp_many(server: str, name: str, count: int, *, block: int = 1428, seconds: float = 60.0) -> list[bytes]:
    """Fetch a file *count* times at once, in blocks of *block* bytes (RFC 2348); return what each fetch got.

    A message that is not answered within a second is sent again, as firmware does.

    :raises OSError: if the server refuses it, or if not all have ended after *seconds*.
    """
    request = b"\0\1" + name.encode() + b"\0octet\0blksize\0" + str(block).encode() + b"\0"
    with contextlib.ExitStack() as stack, select.epoll() as poll:
        fetches = {}
        for _ in range(count):
            link = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            link.bind(("0.0.0.0", 0))  # noqa: S104 (in a namespace of its own)
            poll.register(link, select.EPOLLIN)
            fetches[link.fileno()] = _Fetch(link, (server, 69), request, block=block)
        deadline, waiting = time.monotonic() + seconds, set(fetches)
        while waiting:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(waiting)} of {count} fetches have not ended within {seconds:g} s")
            for number, _ in poll.poll(0.1):
                if fetches[number].take():
                    waiting.discard(number)
            for number in waiting:
                fetches[number].try_again()
        return [b"".join(fetch.blocks) for fetch in fetches.values()]


class _Fetch:
    """One fetch of a file. It begins at once."""

    def __init__(self, link: socket.socket, server: tuple[str, int], request: bytes, *, block: int) -> None:
        self.blocks: list[bytes] = []
        self._link, self._block = link, block
        self._say(request, server)

    def take(self) -> bool:
        """Take a message; tell whether the file is whole."""
        packet, peer = self._link.recvfrom(4096)
        kind, number = struct.unpack("!HH", packet[:4])
        if kind == 5:
            raise OSError(number, packet[4:].rstrip(b"\0").decode())
        if kind == 6:  # the options are accepted (RFC 2347)
            self._say(b"\0\4\0\0", peer)
            return False
        if number == (len(self.blocks) + 1) & 0xFFFF:
            self.blocks.append(packet[4:])
            self._say(struct.pack("!HH", 4, number), peer)
            return len(packet) < self._block + 4
        return False

    def try_again(self) -> None:
        """Say the last thing again, if it was not answered within a second."""
        if time.monotonic() > self._due:
            self._say(*self._last)

    def _say(self, message: bytes, peer: tuple[str, int]) -> None:
        self._last, self._due = (message, peer), time.monotonic() + 1
        self._link.sendto(message, peer)


_RECORDS = {"A": 1, "PTR": 12, "AAAA": 28}


def dns(server: str, name: str, kind: str = "A") -> list[str]:
    """Return the addresses or names that *name* has; none if there is no such name. The server may be IPv6."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    question += struct.pack("!HH", _RECORDS[kind], 1)
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(3.0)
        link.sendto(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + question, (server, 53))
        answer = link.recv(512)
    found, at = [], 12 + len(question)
    for _ in range(struct.unpack("!H", answer[6:8])[0]):
        at = _read_name(answer, at)[1]
        record, _, _, length = struct.unpack("!HHIH", answer[at : at + 10])
        at += 10
        if record == _RECORDS[kind]:
            data = answer[at : at + length]
            found.append(_read_name(answer, at)[0] if kind == "PTR" else str(ipaddress.ip_address(data)))
        at += length
    return found


def reverse(server: str, address: str) -> list[str]:
    """Return the names of *address*."""
    return dns(server, ipaddress.ip_address(address).reverse_pointer, "PTR")


def _read_name(message: bytes, at: int) -> tuple[str, int]:
    """Return the name at *at* (RFC 1035, section 4.1.4), and where it ends."""
    labels: list[str] = []
    while length := message[at]:
        if length >= 0xC0:
            rest = _read_name(message, struct.unpack("!H", message[at : at + 2])[0] & 0x3FFF)[0]
            return ".".join([*labels, rest]), at + 2
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1
