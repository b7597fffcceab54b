"""Just enough of DHCP, TFTP and DNS to ask real servers: by hand, so that nothing of ours answers for itself."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
import struct

_MAGIC = bytes.fromhex("63825363")
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5


@dataclasses.dataclass(frozen=True)
class Lease:
    """A server's answer. :ivar bootfile: header field ``file``, or option 67."""

    kind: int
    address: str
    next_server: str
    bootfile: str
    options: dict[int, bytes]


def dhcp(
    interface: str, mac: str, *, arch: int | None = None, user_class: str = "", client_id: bytes = b"", name: str = ""
) -> Lease | None:
    """Discover, and request what is offered; return the acknowledgement, or None if nobody answers within 3 s."""
    asked = {
        **({93: struct.pack("!H", arch), 60: f"PXEClient:Arch:{arch:05d}".encode()} if arch is not None else {}),
        **({77: user_class.encode()} if user_class else {}),
        **({61: client_id} if client_id else {}),
        **({12: name.encode()} if name else {}),
        55: bytes([1, 3, 6, 12, 15, 66, 67, 119]),
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        link.settimeout(3.0)
        link.bind(("0.0.0.0", 68))  # noqa: S104 (in a namespace of its own)
        offer = _exchange(link, mac, {53: bytes([DISCOVER]), **asked})
        if offer is None:
            return None
        wanted = {50: ipaddress.IPv4Address(offer.address).packed, 54: offer.options[54]}
        return _exchange(link, mac, {53: bytes([REQUEST]), **wanted, **asked})


def _exchange(link: socket.socket, mac: str, options: dict[int, bytes]) -> Lease | None:
    transaction = os.urandom(4)
    header = struct.pack("!BBBB4sHH", 1, 1, 6, 0, transaction, 0, 0x8000) + bytes(16)
    chaddr = bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0")
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items()) + b"\xff"
    link.sendto((header + chaddr + bytes(192) + _MAGIC + body).ljust(300, b"\0"), ("255.255.255.255", 67))
    while True:
        try:
            answer = link.recv(2048)
        except TimeoutError:
            return None
        if answer[4:8] == transaction:
            return _parse_lease(answer)


def _parse_lease(data: bytes) -> Lease:
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


def dns(server: str, name: str) -> list[str]:
    """Return the IPv4 addresses of *name*; none if there is no such name."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(3.0)
        link.sendto(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + question, (server, 53))
        answer = link.recv(512)
    count = struct.unpack("!H", answer[6:8])[0]
    records = answer[12 + len(question) :]
    return [socket.inet_ntoa(records[16 * index + 12 : 16 * index + 16]) for index in range(count)]
