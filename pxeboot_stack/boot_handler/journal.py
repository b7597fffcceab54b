"""What dnsmasq and nginx say of machines, line by line, turned into events of their timelines.

Both send datagrams to sockets of ours: the supervisor each line of dnsmasq's, nginx one for each request, in syslog's
form with JSON in it. A sender does not wait: what does not fit into the socket's queue is lost, and so is what is sent
while we are away. So the timeline may have gaps; nothing is decided by it.

dnsmasq's lines are those of ``log_packet`` (rfc2131.c, rfc3315.c) and ``tftp.c`` of its release 2.91.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path, PurePosixPath

from contracts.names import normalize_mac
from contracts.timeline import EventKind
from pxeboot_stack.boot_handler.timeline import Timelines
from pxeboot_stack.definitions import Machines

_LOG = logging.getLogger(__name__)
MAX_WAITING = 50_000  # lines between two looks; more are lost, and counted
_DRAIN_BUDGET = 0.02  # seconds; some thousand lines
_RECEIVE_BUFFER = 1 << 20
_MAX_LINE = 8192

# The beginning of a line: what follows may hold words that a client chose.
_LINE = re.compile(r"(?:[A-Z][a-z]{2} [ \d]\d [\d:]{8} )?dnsmasq-(?P<part>dhcp|tftp)(?:\[\d+\])?: (?P<said>.*)")
_DHCP = re.compile(
    r"(?:\d+ )?(?P<what>[A-Z][A-Z0-9-]*)\([^)]*\)"
    r"(?: (?P<address>\d+\.\d+\.\d+\.\d+|[0-9a-f:]+(?= [0-9a-f]{2}:)))?"
    r" (?P<client>[0-9a-f]{2}(?::[0-9a-f]{2})+)(?: (?P<rest>.*))?\Z"
)
_TFTP = (
    (re.compile(r"sent (?P<what>.+) to (?P<to>[0-9a-f.:]+)\Z"), EventKind.TFTP_SENT, "{} sent by TFTP"),
    (re.compile(r"failed sending (?P<what>.+) to (?P<to>[0-9a-f.:]+)\Z"), EventKind.TFTP_FAILED,
     "sending {} by TFTP failed"),
    (re.compile(r"file (?P<what>.+) not found for (?P<to>[0-9a-f.:]+)\Z"), EventKind.TFTP_FAILED,
     "asked by TFTP for {}: not there"),
    # UEFI asks for the size first and breaks that transfer off with error 8 or 0: no fault.
    (re.compile(r"error (?P<what>(?!0 |8 ).+) received from (?P<to>[0-9a-f.:]+)\Z"), EventKind.TFTP_FAILED,
     "TFTP error {}"),
)  # fmt: skip
_KINDS = {
    "DHCPDISCOVER": (EventKind.DISCOVER, "asked for an address"),
    "DHCPOFFER": (EventKind.OFFER, "was offered"),
    "DHCPREQUEST": (EventKind.REQUEST, "asked for"),
    "DHCPACK": (EventKind.ACK, "got"),
    "DHCPNAK": (EventKind.NAK, "was refused"),
    "PXE": (EventKind.PROXY, "was told what to boot"),
    "RTR-SOLICIT": (EventKind.DHCP_OTHER, "asked for an IPv6 router"),
}
_TRANSFERS = ("/images/", "/initrds/", "/ipxe/")  # files that nginx serves by itself
_MAC_LENGTH = 17  # DHCPv6 logs a DUID in its place, which is longer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """One thing that was said of one machine.

    :ivar mac: its MAC address, or nothing if only its *address* is known.
    """

    kind: EventKind
    text: str
    mac: str = ""
    address: str = ""


def parse_dnsmasq(line: str) -> Seen | None:
    """Return what a line of dnsmasq's says of a machine, or None if it is about none."""
    match = _LINE.match(line)
    if match is None:
        return None
    if match["part"] == "dhcp":
        packet = _DHCP.match(match["said"])
        return _dhcp(packet) if packet else None
    for pattern, kind, text in _TFTP:
        if transfer := pattern.match(match["said"]):
            return Seen(kind=kind, text=text.format(transfer["what"].rpartition("/")[2]), address=transfer["to"])
    return None


def _dhcp(match: re.Match[str]) -> Seen | None:
    address, what, rest = match["address"] or "", match["what"], (match["rest"] or "").strip()
    if len(match["client"]) != _MAC_LENGTH:
        return _dhcp6(what, address)
    try:
        mac = normalize_mac(match["client"])
    except ValueError:
        return None
    kind, text = _KINDS.get(what, (EventKind.DHCP_OTHER, what))
    words = " ".join(filter(None, (text, address)))
    # An ACK is followed by the host's name, the others by why dnsmasq does not answer them.
    said = f"{words}: {rest}" if rest and kind is not EventKind.ACK else words
    return Seen(kind=kind, text=said, mac=mac, address=address if kind is EventKind.ACK else "")


def _dhcp6(what: str, address: str) -> Seen | None:
    if what != "DHCPREPLY" or not address:
        return None  # who asks is known by a DUID only
    return Seen(kind=EventKind.DHCP_OTHER, text=f"got {address} by DHCPv6", address=address)


def parse_access(line: str) -> Seen | None:
    """Return what one of nginx's access lines says, or None if the boot handler knows it by itself or it is broken."""
    try:
        data = json.loads(line[line.index("{") :])
        path, status, client = str(data["path"]), int(data["status"]), str(ip_address(data["client"]))
        length, seconds = int(data["length"]), float(data["seconds"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not path.startswith(_TRANSFERS) or data.get("method") != "GET":
        return None
    name = PurePosixPath(path.partition("?")[0]).name
    if status in {200, 206}:
        return Seen(kind=EventKind.FILE, text=f"{name} fetched ({_size(length)} in {seconds:.1f} s)", address=client)
    if status == 499:  # nginx's own: the client went away
        return Seen(kind=EventKind.FILE_FAILED, text=f"{name}: broke off after {_size(length)}", address=client)
    return Seen(kind=EventKind.FILE_FAILED, text=f"{name}: HTTP status {status}", address=client)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"


Parser = Callable[[str], Seen | None]


class Journal:
    """Takes the lines as they come, in a thread of its own: the sockets' queues are short.

    :param dnsmasq: where dnsmasq's lines come. :param access: where nginx's come.
    """

    def __init__(self, dnsmasq: Path, access: Path) -> None:
        self._paths = {dnsmasq: parse_dnsmasq, access: parse_access}
        self._waiting: deque[tuple[float, Seen]] = deque()
        self._sockets: list[socket.socket] = []
        self._closing = False
        self.lost = 0

    def open(self) -> None:
        """Make the sockets and begin to listen. One that cannot be made is said in the log; machines need none."""
        for path, parse in self._paths.items():
            link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                path.unlink(missing_ok=True)
                link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
                link.bind(str(path))
                path.chmod(0o666)  # nginx's worker has given up root
            except OSError as error:
                link.close()
                _LOG.error("no events from %s: %s", path, error.strerror or error)
                continue
            self._sockets.append(link)
            threading.Thread(target=self._listen, args=(link, parse), daemon=True).start()

    def close(self) -> None:
        """End the threads and remove the sockets."""
        self._closing = True
        for link in self._sockets:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        self._sockets.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def drain(self, machines: Machines, timelines: Timelines) -> int:
        """Put what has come into the timelines, as far as there is time for; return how much it was."""
        end, count = time.monotonic() + _DRAIN_BUDGET, 0
        while self._waiting and time.monotonic() < end:
            moment, seen = self._waiting.popleft()
            note(seen, machines, timelines, now=moment)
            count += 1
        return count

    def _listen(self, link: socket.socket, parse: Parser) -> None:
        while True:
            try:
                line = link.recv(_MAX_LINE)
            except OSError:  # closed
                return
            if not line and self._closing:  # an empty line of dnsmasq's looks the same
                return
            for each in line.decode(errors="replace").splitlines():
                if (seen := parse(each)) is None:
                    continue
                if len(self._waiting) >= MAX_WAITING:
                    self.lost += 1
                else:
                    self._waiting.append((time.time(), seen))


def note(seen: Seen, machines: Machines, timelines: Timelines, *, now: float) -> None:
    """Put one thing into the timeline of whom it is about; what cannot be told is dropped."""
    mac = seen.mac
    machine = machines.by_mac.get(mac) if mac else machines.by_address.get(seen.address)
    if machine is not None:
        timelines.add(machine, seen.kind, seen.text, now=now)
        return
    mac = mac or timelines.find_stranger(seen.address) or ""
    if not mac:
        return
    if (machine := machines.by_mac.get(mac)) is not None:  # it still has the address of a stranger
        timelines.add(machine, seen.kind, seen.text, now=now)
    else:
        timelines.add_stranger(mac, seen.kind, seen.text, address=seen.address, now=now)
