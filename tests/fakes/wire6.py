"""Just enough of DHCPv6 and neighbour discovery to ask real servers, and a listener for what must not be heard."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
import struct
import time

_SERVERS = "ff02::1:2"  # all DHCPv6 servers of the link (RFC 8415, section 7.1)
_SOLICIT, _ADVERTISE, _REQUEST, _REPLY = 1, 2, 3, 7
_CLIENT_ID, _SERVER_ID, _IA_NA, _IA_ADDRESS, _WANTED, _STATUS = 1, 2, 3, 5, 6, 13
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT = 133, 134
_ETH_IPV4, _ETH_IPV6 = 0x0800, 0x86DD


@dataclasses.dataclass(frozen=True)
class Lease6:
    """A server's answer. :ivar valid: seconds. :ivar options: those beside the address."""

    address: str
    valid: int
    options: dict[int, bytes]


def dhcp6(interface: str, duid: bytes, *, iaid: int = 1) -> Lease6 | None:
    """Solicit, and request what is advertised; return the reply, or None if there is no answer or no address."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        link.settimeout(3.0)
        link.bind(("::", 546))
        mine = {_CLIENT_ID: duid, _IA_NA: struct.pack("!III", iaid, 0, 0), _WANTED: struct.pack("!HH", 23, 24)}
        advertised = _exchange(link, interface, _SOLICIT, mine)
        if advertised is None or _IA_NA not in advertised or _lease(advertised) is None:
            return None
        wanted = {_SERVER_ID: advertised[_SERVER_ID], _IA_NA: advertised[_IA_NA]}
        reply = _exchange(link, interface, _REQUEST, {**mine, **wanted})
        return None if reply is None else _lease(reply)


def _exchange(link: socket.socket, interface: str, kind: int, options: dict[int, bytes]) -> dict[int, bytes] | None:
    number = os.urandom(3)
    body = b"".join(struct.pack("!HH", code, len(value)) + value for code, value in options.items())
    body += struct.pack("!HHH", 8, 2, 0)  # elapsed time
    link.sendto(bytes([kind]) + number + body, (_SERVERS, 547, 0, socket.if_nametoindex(interface)))
    while True:
        try:
            answer = link.recv(4096)
        except TimeoutError:
            return None
        if answer[0] in (_ADVERTISE, _REPLY) and answer[1:4] == number:
            return _options(answer[4:])


def _options(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        code, length = struct.unpack("!HH", data[:4])
        found[code] = data[4 : 4 + length]
        data = data[4 + length :]
    return found


def _lease(options: dict[int, bytes]) -> Lease6 | None:
    address = _options(options[_IA_NA][12:]).get(_IA_ADDRESS)
    if address is None:
        return None
    return Lease6(str(ipaddress.IPv6Address(address[:16])), struct.unpack("!I", address[20:24])[0], options)


@dataclasses.dataclass(frozen=True)
class Advertisement:
    """A router advertisement (RFC 4861, section 4.2).

    :ivar managed: addresses come by DHCPv6. :ivar lifetime: seconds it may be a default router, 0 for not at all.
    :ivar prefixes: each with whether hosts may make their own addresses in it.
    """

    managed: bool
    lifetime: int
    prefixes: dict[str, bool]


def router_advertisement(interface: str, seconds: float = 5.0) -> Advertisement | None:
    """Solicit routers; return the first advertisement within *seconds*, or None."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        all_routers = ("ff02::2", 0, 0, socket.if_nametoindex(interface))
        link.sendto(struct.pack("!BBHI", _ROUTER_SOLICITATION, 0, 0, 0), all_routers)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            link.settimeout(left)
            try:
                data = link.recv(2048)
            except TimeoutError:
                return None
            if data[0] == _ROUTER_ADVERTISEMENT:
                return _advertisement(data)
    return None


def _advertisement(data: bytes) -> Advertisement:
    flags, lifetime = data[5], struct.unpack("!H", data[6:8])[0]
    prefixes, rest = {}, data[16:]
    while rest:
        length = rest[1] * 8
        if rest[0] == 3:  # prefix information
            prefixes[f"{ipaddress.IPv6Address(rest[16:32])}/{rest[2]}"] = bool(rest[3] & 0x40)
        rest = rest[length:]
    return Advertisement(bool(flags & 0x80), lifetime, prefixes)


def listen(interface: str) -> socket.socket:
    """Return a socket that hears all of the network from now on."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))  # ETH_P_ALL
    link.bind((interface, 0))
    return link


def heard_by(link: socket.socket) -> list[str]:
    """Return what DHCP, DHCPv6 and router messages of servers *link* has heard, by name, and close it."""
    heard: list[str] = []
    with link:
        link.setblocking(False)
        while True:
            try:
                frame, (_, _, direction, _, _) = link.recvfrom(4096)
            except BlockingIOError:
                return heard
            if direction != socket.PACKET_OUTGOING and (name := _server_message(frame)):
                heard.append(name)


def _server_message(frame: bytes) -> str:
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind == _ETH_IPV4 and frame[23] == socket.IPPROTO_UDP:
        begin = 14 + (frame[14] & 15) * 4
        return "DHCP" if struct.unpack("!H", frame[begin : begin + 2])[0] in (67, 4011) else ""
    if kind == _ETH_IPV6 and frame[20] == socket.IPPROTO_UDP:
        return "DHCPv6" if struct.unpack("!H", frame[54:56])[0] == 547 else ""
    if kind == _ETH_IPV6 and frame[20] == socket.IPPROTO_ICMPV6:
        return "router advertisement" if frame[54] == _ROUTER_ADVERTISEMENT else ""
    return ""
