"""Joins a network card of a namespace with the lab's switch: frames of the one go to the other.

The card is one end of a pair (veth(4)); services use the other end, ``lan0``. We read it through a packet socket with a
ring in memory that we share with the kernel (packet(7), ``Documentation/networking/packet_mmap.rst``), and write it by
``send``. A TAP device would do as well, but needs ``/dev/net/tun``, which not every host opens to its users, and
containers seldom have. The switch speaks QEMU's stream framing, see :mod:`lab.switch`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_VERSION, _PACKET_IGNORE_OUTGOING = 5, 10, 23
_TPACKET_V2 = 1
_TP_STATUS_KERNEL, _TP_STATUS_USER = 0, 1
_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM, _ETHTOOL_STSO, _ETHTOOL_SGSO = 0x17, 0x1F, 0x24

_SLOT = 2048  # bytes for a frame with the ring's own header
_SLOTS = 4096  # 8 MiB in all: more than a TCP connection of the services has under way
_BLOCK = 64 << 10
_HEADER = struct.Struct("IIIHH")  # struct tpacket2_hdr: status, length, bytes captured, where the frame is, ...
_STATUS = struct.Struct("I")
_BATCH = 128  # frames sent to the switch in one go
_BACKLOG = 4 << 20  # bytes kept for a slow switch; what does not fit is lost, as on a wire
_READ_SIZE = 256 << 10
_LENGTH = 4  # bytes of the length before each frame
_LONGEST = 4096 + 65536  # lab.switch.LONGEST_FRAME
_RECONNECT = 0.2  # seconds between two looks for a switch


def disable_offloads(interface: str) -> None:
    """Have the kernel send whole frames with their checksums: nobody completes them on the way.

    :raises OSError: if there is no such interface, or it refuses.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for command in (_ETHTOOL_STXCSUM, _ETHTOOL_STSO, _ETHTOOL_SGSO):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(link, _SIOCETHTOOL, request.ljust(40, b"\0"))


class CardGoneError(Exception):
    """The card was deleted: nothing will ever come from it."""


class Card:
    """The relay's end of the pair. :raises OSError: if there is no such interface, or this user may not."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        request = struct.pack("IIII", _BLOCK, _SLOT * _SLOTS // _BLOCK, _SLOT, _SLOTS)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        with contextlib.suppress(OSError):  # Linux before 4.20
            self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._ring = mmap.mmap(self.socket.fileno(), _SLOT * _SLOTS)
        self._next = 0
        self.socket.bind((interface, _ETH_P_ALL))
        self.socket.settimeout(0)

    def close(self) -> None:
        """Give the socket and the ring back."""
        self._ring.close()
        self.socket.close()

    def receive(self, limit: int) -> Iterator[bytes]:
        """Yield the frames that have arrived, *limit* at most."""
        for _ in range(limit):
            offset = self._next * _SLOT
            status, _, captured, start, _ = _HEADER.unpack_from(self._ring, offset)
            if not status & _TP_STATUS_USER:
                return
            begin = offset + start
            frame = self._ring[begin : begin + captured]
            _STATUS.pack_into(self._ring, offset, _TP_STATUS_KERNEL)
            self._next = (self._next + 1) % _SLOTS
            yield frame

    def take_error(self) -> None:
        """Take the error that the socket was polled with, so that it can be polled again: the card was off for a time.

        :raises CardGoneError: if it was deleted.
        """
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            socket.if_nametoindex(self._interface)
        except OSError:
            raise CardGoneError(f"the network card {self._interface} was deleted") from None

    def send(self, frame: bytes) -> None:
        """Send *frame*; it is lost if the card does not take it: too long, too short, or too many at once."""
        with contextlib.suppress(OSError):
            self.socket.send(frame)


class Relay:
    """Moves frames between *card* and the switch at *switch*. A switch that ends is looked for again."""

    def __init__(self, card: Card, switch: Path) -> None:
        self._card = card
        self._switch = switch
        self._incoming = b""
        self._outgoing = bytearray()

    def run(self) -> None:
        """Relay until the process ends. :raises CardGoneError: if the card is deleted."""
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.connect(str(self._switch))
                link.settimeout(0)
                self._incoming, self._outgoing = b"", bytearray()
                self.relay(link)
            for _ in self._card.receive(_SLOTS):  # what is old by then
                pass
            time.sleep(_RECONNECT)

    def relay(self, link: socket.socket) -> None:
        """Relay until the switch hangs up.

        :raises OSError: then, or if what it says makes no sense. :raises CardGoneError: if the card is deleted.
        """
        poller = select.poll()
        poller.register(self._card.socket, select.POLLIN)
        while True:
            poller.register(link, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
            for descriptor, events in poller.poll():
                if descriptor == link.fileno():
                    self._receive(link)
                elif events & ~select.POLLIN:
                    self._card.take_error()
            self._collect()
            self._flush(link)

    def _collect(self) -> None:
        for frame in self._card.receive(_BATCH):
            if len(self._outgoing) + len(frame) <= _BACKLOG:
                self._outgoing += len(frame).to_bytes(_LENGTH, "big")
                self._outgoing += frame

    def _flush(self, link: socket.socket) -> None:
        if self._outgoing:
            with contextlib.suppress(BlockingIOError):
                del self._outgoing[: link.send(self._outgoing)]

    def _receive(self, link: socket.socket) -> None:
        try:
            data = link.recv(_READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError
        data, position = self._incoming + data, 0
        while (body := position + _LENGTH) <= len(data):
            length = int.from_bytes(data[position:body], "big")
            if length > _LONGEST:
                raise ConnectionAbortedError("a length that no frame has")
            if body + length > len(data):
                break
            self._card.send(data[body : body + length])
            position = body + length
        self._incoming = data[position:]
