from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.lan import Lan
from contracts.timeline import EventKind
from pxeboot_stack.boot_handler import journal
from pxeboot_stack.boot_handler.journal import Journal, Seen, note, parse_access, parse_dnsmasq
from pxeboot_stack.boot_handler.timeline import Timelines
from pxeboot_stack.definitions import DefinitionStore
from tests.fakes.lab_files import make_machine, write_definition

MAC, IP = "52:54:00:aa:bb:01", "192.168.100.11"
DUID = "00:01:00:01:2a:aa:bb:cc:52:54:00:aa:bb:01"


@pytest.mark.parametrize(
    ("line", "kind", "text", "mac", "address"),
    [
        (f"dnsmasq-dhcp[7]: DHCPDISCOVER(lan0) {MAC} ", EventKind.DISCOVER, "asked for an address", MAC, ""),
        (
            f"dnsmasq-dhcp[7]: DHCPDISCOVER(lan0) {MAC} no address available",
            EventKind.DISCOVER, "asked for an address: no address available", MAC, "",
        ),
        (f"dnsmasq-dhcp[7]: DHCPOFFER(lan0) {IP} {MAC} ", EventKind.OFFER, f"was offered {IP}", MAC, ""),
        (f"dnsmasq-dhcp[7]: DHCPREQUEST(lan0) {IP} {MAC} ", EventKind.REQUEST, f"asked for {IP}", MAC, ""),
        (f"dnsmasq-dhcp[7]: DHCPACK(lan0) {IP} {MAC} web1", EventKind.ACK, f"got {IP}", MAC, IP),
        (f"dnsmasq-dhcp: DHCPACK(lan0) {IP} {MAC} web1", EventKind.ACK, f"got {IP}", MAC, IP),
        (f"Nov  1 17:05:01 dnsmasq-dhcp[7]: DHCPACK(lan0) {IP} {MAC}", EventKind.ACK, f"got {IP}", MAC, IP),
        (f"dnsmasq-dhcp[7]: 99 DHCPACK(lan0) {IP} {MAC} web1", EventKind.ACK, f"got {IP}", MAC, IP),
        (
            f"dnsmasq-dhcp[7]: DHCPNAK(lan0) {IP} {MAC} wrong network",
            EventKind.NAK, f"was refused {IP}: wrong network", MAC, "",
        ),
        (f"dnsmasq-dhcp[7]: DHCPINFORM(lan0) {IP} {MAC} ", EventKind.DHCP_OTHER, f"DHCPINFORM {IP}", MAC, ""),
        (f"dnsmasq-dhcp[7]: RTR-SOLICIT(lan0) {MAC}", EventKind.DHCP_OTHER, "asked for an IPv6 router", MAC, ""),
        (f"dnsmasq-dhcp[7]: PXE(lan0) {MAC} proxy", EventKind.PROXY, "was told what to boot: proxy", MAC, ""),
        (
            f"dnsmasq-dhcp[7]: DHCPREPLY(lan0) fd00::11 {DUID} web1",
            EventKind.DHCP_OTHER, "got fd00::11 by DHCPv6", "", "fd00::11",
        ),
        (
            f"dnsmasq-tftp[7]: sent /run/pvmlab/tftp/ipxe-x86_64.efi to {IP}",
            EventKind.TFTP_SENT, "ipxe-x86_64.efi sent by TFTP", "", IP,
        ),
        (
            f"dnsmasq-tftp[7]: failed sending /run/pvmlab/tftp/ipxe-x86_64.efi to {IP}",
            EventKind.TFTP_FAILED, "sending ipxe-x86_64.efi by TFTP failed", "", IP,
        ),
        (
            f"dnsmasq-tftp[7]: file /run/pvmlab/tftp/undionly.kpxe not found for {IP}",
            EventKind.TFTP_FAILED, "asked by TFTP for undionly.kpxe: not there", "", IP,
        ),
        (
            f"dnsmasq-tftp[7]: error 3 disk full received from {IP}",
            EventKind.TFTP_FAILED, "TFTP error 3 disk full", "", IP,
        ),
        (
            f"dnsmasq-tftp[7]: file x dnsmasq-dhcp: DHCPACK(lan0) {IP} {MAC} not found for 192.168.100.99",
            EventKind.TFTP_FAILED, f"asked by TFTP for x dnsmasq-dhcp: DHCPACK(lan0) {IP} {MAC}: not there", "",
            "192.168.100.99",
        ),
    ],
)  # fmt: skip
def test_lines_of_dnsmasq_about_machines(line: str, kind: EventKind, text: str, mac: str, address: str) -> None:
    assert parse_dnsmasq(line) == Seen(kind=kind, text=text, mac=mac, address=address)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "dnsmasq[7]: started, version 2.91 cachesize 1000",
        f"dnsmasq[7]: query[A] DHCPACK(lan0) {IP} {MAC} from {IP}",
        "dnsmasq-dhcp[7]: read /run/pvmlab/dhcp-hosts",
        f"dnsmasq-dhcp[7]: DHCPSOLICIT(lan0) {DUID} ",
        f"dnsmasq-dhcp[7]: DHCPACK(lan0) {IP} 01:00:5e:00:00:01 ",
        f"dnsmasq-tftp[7]: error 8 User aborted the transfer received from {IP}",
        f"dnsmasq-tftp[7]: error 0 TFTP Aborted received from {IP}",
    ],
)
def test_lines_of_dnsmasq_about_nobody(line: str) -> None:
    assert parse_dnsmasq(line) is None


def access(**changes: object) -> str:
    values: dict[str, object] = {
        "client": IP, "method": "GET", "path": "/images/debian-12/x86_64/vmlinuz", "status": 200, "sent": 1, "length":
        8_000_000, "seconds": 0.25, "range": "", "agent": "iPXE/1.21",
    }  # fmt: skip
    return "<190>Nov 21 17:05:01 nginx: " + json.dumps(values | changes)


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (access(), EventKind.FILE, "vmlinuz fetched (8.0 MB in 0.2 s)"),
        (access(status=206, length=99), EventKind.FILE, "vmlinuz fetched (99 bytes in 0.2 s)"),
        (access(status=404), EventKind.FILE_FAILED, "vmlinuz: HTTP status 404"),
        (access(status=499, length=200_000), EventKind.FILE_FAILED, "vmlinuz: broke off after 0.2 MB"),
        (access(path="/ipxe/ipxe-x86_64.efi?a=b"), EventKind.FILE, "ipxe-x86_64.efi fetched (8.0 MB in 0.2 s)"),
    ],
)
def test_lines_of_nginx_about_files(line: str, kind: EventKind, text: str) -> None:
    assert parse_access(line) == Seen(kind=kind, text=text, address=IP)


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "nonsense", "<190>nginx: []", access(client="nobody"), access(status="x"), access(path="/boot.ipxe"),
        access(path="/m/***/config"), access(method="HEAD"), access(method="POST"), "<190>nginx: " + "[" * 5000,
        "<190>nginx: {" + '"client": {' * 3000,
    ],
)  # fmt: skip
def test_lines_of_nginx_about_nothing_new(line: str) -> None:
    assert parse_access(line) is None


@given(st.text(max_size=300))
def test_no_line_is_an_error(line: str) -> None:
    parse_access(line)
    parse_dnsmasq(line)
    parse_dnsmasq(f"dnsmasq-dhcp[7]: {line}")
    parse_dnsmasq(f"dnsmasq-tftp[7]: {line}")


def test_events_find_their_machine_or_stranger(tmp_path: Path) -> None:
    machine = make_machine()
    write_definition(tmp_path, machine)
    machines, lines = DefinitionStore(tmp_path, lan=Lan()).current(), Timelines(tmp_path)
    stranger = "52:54:00:99:99:99"
    for seen in (
        Seen(kind=EventKind.ACK, text="by MAC", mac=MAC, address=IP),
        Seen(kind=EventKind.FILE, text="by address", address=IP),
        Seen(kind=EventKind.ACK, text="a stranger", mac=stranger, address="192.168.100.200"),
        Seen(kind=EventKind.TFTP_SENT, text="by the stranger's address", address="192.168.100.200"),
        Seen(kind=EventKind.FILE, text="nobody's", address="192.168.100.201"),
    ):
        note(seen, machines, lines, now=1.0)
    assert [event.text for event in lines.events(machine)] == ["by MAC", "by address"]
    assert lines.strangers() == [stranger]
    assert lines.events_seen == 4


def test_too_many_lines_are_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_WAITING", 3)
    made = Journal(tmp_path / "a", tmp_path / "b")

    class Link:
        """Gives one datagram of several lines, then ends."""

        def __init__(self) -> None:
            self.lines = [b"\n".join(f"dnsmasq-dhcp: DHCPDISCOVER(lan0) {MAC}".encode() for _ in range(5)), b""]

        def recv(self, _: int) -> bytes:
            made._closing = len(self.lines) == 1
            return self.lines.pop(0)

    made._listen(Link(), parse_dnsmasq)  # type: ignore[arg-type]
    assert made.lost == 2
    assert made.drain(DefinitionStore(tmp_path, lan=Lan()).current(), Timelines(tmp_path)) == 3


def test_a_flood_of_lines_is_taken_in_bounded_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Journal(tmp_path / "a", tmp_path / "b")
    seen = Seen(kind=EventKind.ACK, text="x", mac=MAC)
    made._waiting.extend((1.0, seen) for _ in range(10))
    clock = iter(float(second) for second in range(1000))
    monkeypatch.setattr("pxeboot_stack.boot_handler.journal.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(journal, "_DRAIN_BUDGET", 4.5)  # of a clock that goes on by one at each look
    machines, lines = DefinitionStore(tmp_path, lan=Lan()).current(), Timelines(tmp_path)
    assert [made.drain(machines, lines) for _ in range(4)] == [4, 4, 2, 0]
