"""A machine made of nothing but Ethernet frames, on the socket of the lab's switch: DHCP by hand (RFC 2131)."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

from tests.fakes.wire import DISCOVER, Lease, parse_lease

_BROADCAST = b"\xff" * 6
_IPV4 = 0x0800
_COOKIE = bytes.fromhex("63825363")


class FrameMachine:
    """A card with the address *mac*, plugged into the switch at *switch*."""

    def __init__(self, switch: Path, mac: str) -> None:
        self._mac = bytes.fromhex(mac.replace(":", ""))
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(5)
        self._link.connect(str(switch))

    def close(self) -> None:
        """Pull the plug."""
        self._link.close()

    def discover(self, *, within: float, server: str = "") -> Lease:
        """Broadcast DHCPDISCOVER, again each second, until an offer comes: of any server, or of *server*.

        :raises TimeoutError: if none comes *within* seconds.
        """
        transaction, deadline = os.urandom(4), time.monotonic() + within
        while time.monotonic() < deadline:
            self.send(_discover(self._mac, transaction))
            again = time.monotonic() + 1
            while (left := again - time.monotonic()) > 0:
                self._link.settimeout(left)
                try:
                    frame = self.receive()
                except TimeoutError:
                    break
                if (message := _dhcp_of(frame)) and message[4:8] == transaction:
                    offer = parse_lease(message)
                    if server in {"", socket.inet_ntoa(offer.options[54])}:
                        return offer
        raise TimeoutError(f"no offer within {within:g} s")

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        self._link.sendall(struct.pack("!I", len(frame)) + frame)

    def receive(self) -> bytes:
        """Return the next frame. :raises OSError: if the switch hangs up, or nothing comes."""
        (length,) = struct.unpack("!I", self._read(4))
        return self._read(length)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._link.recv(count - len(data))
            if not more:
                raise ConnectionResetError("the switch hung up")
            data += more
        return data


def _discover(mac: bytes, transaction: bytes) -> bytes:
    options = bytes([53, 1, DISCOVER, 93, 2, 0, 7, 60, 9]) + b"PXEClient" + b"\xff"
    dhcp = struct.pack("!BBBB4sHH", 1, 1, 6, 0, transaction, 0, 0x8000) + bytes(16) + mac.ljust(16, b"\0") + bytes(192)
    body = (dhcp + _COOKIE + options).ljust(300, b"\0")
    udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body  # no checksum: allowed by RFC 768
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return _BROADCAST + mac + struct.pack("!H", _IPV4) + header + udp


def _dhcp_of(frame: bytes) -> bytes | None:
    """Return the DHCP message to a client in *frame*, whose checksum must be right; None if it is something else."""
    if frame[12:14] != struct.pack("!H", _IPV4) or frame[23] != 17 or frame[36:38] != struct.pack("!H", 68):
        return None
    length = struct.unpack("!H", frame[38:40])[0]
    udp = frame[34 : 34 + length]
    pseudo = frame[26:34] + struct.pack("!BBH", 0, 17, length)
    assert udp[6:8] == b"\0\0" or _checksum(pseudo + udp) == 0, "a checksum that nobody completed"
    return udp[8:]


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
