"""A real dnsmasq with the configuration that we render, asked by clients at the other end of its network."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from contracts.lan import LARGEST_POOL, DhcpMode, Lan
from contracts.machine import Nic, VmDefinition
from pipeline.run import run, spawn
from pxeboot_stack.leases import read_leases
from pxeboot_stack.reservations import IPV6_LEASE
from tests.fakes import dhcp_storm, networks, wire, wire6
from tests.fakes.lab_files import make_machine
from tests.fakes.namespaces import CLIENT
from tests.fakes.networks import SERVER, Inside, Server
from tests.fakes.web_client import end, wait_for

LAN = Lan(ipv6_subnet="fd12:3456:789a::/64")
WIDE = Lan(subnet="10.20.0.0/20")
OURS = str(LAN.provisioner)
WEB1 = make_machine(
    ipv6="fd12:3456:789a::b",
    nics=(Nic(mac="52:54:00:aa:bb:02", ip="192.168.100.12", ipv6="fd12:3456:789a::c"),),
)
STRANGER = "52:54:00:99:99:99"
PROGRAM = bytes(range(256)) * 4096  # 1 MiB, as iPXE is
URL = f"http://{OURS}"


def make_many(lan: Lan, count: int) -> list[VmDefinition]:
    """Return machines with the lowest addresses."""
    return [
        make_machine(
            name=f"m{number}",
            mac=dhcp_storm.mac_of(number, "52:54:00"),
            ip=networks.address_at(lan, 2 + number),
            uuid=str(uuid.UUID(int=number + 1)),
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """dnsmasq for web1, with two cards and IPv6; the card at the other end is web1's first."""
    with networks.served(LAN, [WEB1], programs={"ipxe-x86_64.efi": PROGRAM}) as made:
        yield made


@pytest.mark.parametrize(
    ("arch", "vendor", "user_class", "bootfile"),
    [
        (0, "PXEClient", "", "undionly.kpxe"),
        (7, "PXEClient", "", "ipxe-x86_64.efi"),
        (9, "PXEClient", "", "ipxe-x86_64.efi"),
        (11, "PXEClient", "", "ipxe-aarch64.efi"),
        (16, "HTTPClient", "", f"{URL}/ipxe/ipxe-x86_64.efi"),
        (7, "HTTPClient", "", f"{URL}/ipxe/ipxe-x86_64.efi"),  # firmware that tells it by option 60 only
        (19, "HTTPClient", "", f"{URL}/ipxe/ipxe-aarch64.efi"),
        (0, "PXEClient", "iPXE", f"{URL}/boot.ipxe"),
        (7, "PXEClient", "iPXE", f"{URL}/boot.ipxe"),
        (11, "PXEClient", "iPXE", f"{URL}/boot.ipxe"),
        (6, "PXEClient", "", ""),  # 32-bit UEFI: there is no program for it
        (10, "PXEClient", "", ""),
    ],
)
def test_each_firmware_gets_its_boot_program(
    server: Server, arch: int, vendor: str, user_class: str, bootfile: str
) -> None:
    for mac, address in ((WEB1.mac, WEB1.ip), (STRANGER, None)):
        got = server.client.call(wire.dhcp, CLIENT, mac, arch=arch, vendor=vendor, user_class=user_class)
        assert got is not None
        assert (got.kind, got.bootfile, got.next_server) == (wire.ACK, bootfile, OURS)
        assert address is None or got.address == address
        if vendor == "HTTPClient":  # else UEFI does not take it for an answer to HTTP boot
            assert got.options[60] == b"HTTPClient"


def test_who_does_not_boot_gets_no_program(server: Server) -> None:
    got = server.client.call(wire.dhcp, CLIENT, WEB1.mac)
    assert got is not None
    assert (got.address, got.bootfile) == (WEB1.ip, "")


def test_every_card_has_its_address_and_name(server: Server) -> None:
    for mac, address, name in (
        (WEB1.mac, WEB1.ip, "web1"),
        (WEB1.nics[0].mac, WEB1.nics[0].ip, "web1-nic2"),
    ):
        got = server.client.call(wire.dhcp, CLIENT, mac)
        assert got is not None
        assert (got.address, got.options[12].decode()) == (address, name)


def test_known_machines_keep_their_address_for_long_and_strangers_do_not(server: Server) -> None:
    known, stranger = (server.client.call(wire.dhcp, CLIENT, mac) for mac in (WEB1.mac, STRANGER))
    assert known is not None
    assert stranger is not None
    assert int.from_bytes(known.options[51]) == 12 * 3600
    assert int.from_bytes(stranger.options[51]) == 120
    assert dhcp_storm.is_between(stranger.address, LAN.pool)


def test_names_resolve_both_ways(server: Server) -> None:
    for name, card in (("web1", WEB1.cards[0]), ("web1-nic2", WEB1.cards[1])):
        full = f"{name}.pvmlab.local"
        for dns in (OURS, str(LAN.provisioner_ipv6)):
            assert server.client.call(wire.dns, dns, full, "A") == [card.ip]
            assert server.client.call(wire.dns, dns, full, "AAAA") == [card.ipv6]
        assert server.client.call(wire.reverse, OURS, card.ip) == [full]
        assert server.client.call(wire.reverse, OURS, card.ipv6) == [full]
    assert server.client.call(wire.reverse, OURS, str(LAN.provisioner_ipv6)) == ["provisioner.pvmlab.local"]
    assert server.client.call(wire.dns, OURS, "web9.pvmlab.local", "AAAA") == []


def test_ipv6_addresses_come_by_reservation_and_nothing_leads_out(server: Server) -> None:
    advertisement = server.client.call(wire6.router_advertisement, CLIENT)
    assert advertisement == wire6.Advertisement(managed=True, lifetime=0, prefixes={"fd12:3456:789a::/64": False})
    for mac, address in ((WEB1.nics[0].mac, WEB1.nics[0].ipv6), (WEB1.mac, WEB1.ipv6)):
        networks.become(server, mac)
        got = server.client.call(wire6.dhcp6, CLIENT, _duid(mac))
        assert got is not None, server.text
        assert got.address == address
        assert ipaddress.IPv6Address(got.options[23]) == LAN.provisioner_ipv6  # DNS servers
        assert (IPV6_LEASE, got.valid) == ("2m", 120)


def test_a_system_that_asks_before_the_last_ones_ipv6_lease_is_over_gets_another_address(server: Server) -> None:
    networks.become(server, WEB1.mac)
    server.client.call(wire6.dhcp6, CLIENT, _duid("the system before"))
    early = server.client.call(wire6.dhcp6, CLIENT, _duid("a system installed since"))
    assert early is not None
    assert _is_of_pool(early.address)  # what docs/explanation/network.md says


def test_a_stranger_gets_an_ipv6_address_of_the_pool(server: Server) -> None:
    networks.become(server, STRANGER)
    got = server.client.call(wire6.dhcp6, CLIENT, _duid(STRANGER))
    assert got is not None
    assert _is_of_pool(got.address)


def _is_of_pool(address: str) -> bool:
    assert LAN.ipv6_pool is not None
    return LAN.ipv6_pool[0] <= ipaddress.IPv6Address(address) <= LAN.ipv6_pool[1]


def _duid(mac: str) -> bytes:
    """Return a DUID-UUID, which says nothing of the MAC address: dnsmasq has to find that out itself."""
    return b"\0\4" + hashlib.sha256(mac.encode()).digest()[:16]


def test_two_hundred_fetch_the_boot_program_at_once(server: Server) -> None:
    digests = {
        hashlib.sha256(data).hexdigest() for data in server.client.call(wire.tftp_many, OURS, "ipxe-x86_64.efi", 200)
    }
    assert digests == {hashlib.sha256(PROGRAM).hexdigest()}


def test_a_thousand_known_machines_get_their_addresses_within_five_seconds() -> None:
    machines = make_many(WIDE, 1000)
    with networks.served(WIDE, machines) as server:
        clients = [dhcp_storm.Client(machine.mac) for machine in machines]
        server.client.call(dhcp_storm.exchange, CLIENT, clients, seconds=5, spread=1.0)
    got = {client.mac: client.lease.address for client in clients if client.lease}
    assert got == {machine.mac: machine.ip for machine in machines}
    assert not any(client.refused for client in clients)


def test_five_thousand_strangers_do_not_keep_known_machines_waiting() -> None:
    machines = make_many(WIDE, 20)
    strangers = [dhcp_storm.mac_of(number) for number in range(5000)]
    with networks.served(WIDE, machines) as server:
        stop = threading.Event()
        flood = server.client.start(dhcp_storm.flood, CLIENT, strangers, stop, rate=5000)
        try:
            for _ in range(2):
                time.sleep(1)
                _require_served(server, machines)
        finally:
            stop.set()
        assert flood.result(timeout=10) > 5000
        assert "no address available" in server.text  # the pool was full: the flood was one
        _require_served(server, machines)
        wait_for("the leases are written", lambda: read_leases(server.files.leases))
        leases = read_leases(server.files.leases)
        server.reload([*machines, make_machine(name="late", mac=strangers[0], ip=networks.address_at(WIDE, 1000))])
        _require_served(server, machines)
    assert len({lease.address for lease in leases if WIDE.pool[0] <= lease.address <= WIDE.pool[1]}) == LARGEST_POOL


def test_nobody_is_refused_while_the_files_are_read_again() -> None:
    machines = make_many(WIDE, 300)
    with networks.served(WIDE, machines) as server:
        clients = [dhcp_storm.Client(machine.mac) for machine in machines]
        storm = server.client.start(dhcp_storm.exchange, CLIENT, clients, seconds=20, spread=2.0)
        reloads = 0
        while not storm.done():
            server.reload(machines)
            reloads += 1
        storm.result()
    assert reloads >= 5
    assert [client.lease and client.lease.address for client in clients] == [machine.ip for machine in machines]
    assert not any(client.refused for client in clients)


def _require_served(server: Server, machines: list[VmDefinition]) -> None:
    clients = [dhcp_storm.Client(machine.mac) for machine in machines]
    server.client.call(dhcp_storm.exchange, CLIENT, clients, seconds=5)
    assert [client.lease and client.lease.address for client in clients] == [machine.ip for machine in machines]


def test_nothing_is_said_outside_of_the_private_network() -> None:
    outer = Lan(subnet="10.99.0.0/24", ipv6_subnet="fd99::/64")
    with networks.make_namespaces("lan", "cli", "out") as (here, there, out):
        networks.cable(here, SERVER, there, CLIENT)
        networks.cable(here, networks.OUTSIDE, out, "out0")
        for address in (outer.provisioner_interface, outer.provisioner_interface_ipv6):
            networks.ip(here, "address", "add", address, "dev", networks.OUTSIDE)
        with (
            networks.serving(LAN, [WEB1], here, there) as server,
            contextlib.closing(Inside(out, threads=4)) as outside,
        ):
            here_link, out_link = (
                end.call(wire6.listen, card) for end, card in ((server.client, CLIENT), (outside, "out0"))
            )
            asked: list[Future[object]] = [
                outside.start(wire.dhcp, "out0", WEB1.mac, arch=7),
                outside.start(wire6.dhcp6, "out0", _duid(WEB1.mac)),
                outside.start(wire6.router_advertisement, "out0", 2.0),
            ]
            assert server.client.call(wire.dhcp, CLIENT, WEB1.mac, arch=7) is not None
            assert server.client.call(wire6.router_advertisement, CLIENT) is not None
            assert [future.result(timeout=20) for future in asked] == [None, None, None]
            assert {"DHCP", "router advertisement"} <= set(wire6.heard_by(here_link))
            assert wire6.heard_by(out_link) == []


@pytest.fixture(scope="module")
def proxied() -> Iterator[Server]:
    """Our dnsmasq as a proxyDHCP server, and another one, which gives out the addresses, on the same network."""
    lan = Lan(dhcp=DhcpMode.PROXY, address="192.168.100.7")
    with networks.make_namespaces("lan", "cli", "foreign") as (here, there, foreign):
        networks.switch(there, {here: SERVER, foreign: "for0"})
        networks.ip(there, "address", "add", "192.168.100.250/24", "dev", CLIENT)
        networks.ip(foreign, "address", "add", "192.168.100.1/24", "dev", "for0")
        argv = ["ip", "netns", "exec", foreign, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
                "--interface=for0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--log-facility=-",
                "--dhcp-range=192.168.100.50,192.168.100.60,1h", "--leasefile-ro", "--pid-file="]  # fmt: skip
        process = spawn(argv)
        try:
            with networks.serving(lan, [], here, there, programs={"ipxe-x86_64.efi": PROGRAM}) as made:
                yield made
        finally:
            end(process)


@pytest.mark.parametrize(
    ("arch", "vendor", "user_class", "bootfile"),
    [
        (0, "PXEClient", "", "undionly.kpxe"),
        (7, "PXEClient", "iPXE", "http://192.168.100.7/boot.ipxe"),
        (0, "PXEClient", "iPXE", "http://192.168.100.7/boot.ipxe"),
        (16, "HTTPClient", "", "http://192.168.100.7/ipxe/ipxe-x86_64.efi"),
        (19, "HTTPClient", "", "http://192.168.100.7/ipxe/ipxe-aarch64.efi"),
    ],
)
def test_beside_another_server_the_address_is_its_and_the_boot_file_ours(
    proxied: Server, arch: int, vendor: str, user_class: str, bootfile: str
) -> None:
    offers = proxied.client.call(wire.offers, CLIENT, STRANGER, arch=arch, vendor=vendor, user_class=user_class)
    by_server = {str(ipaddress.IPv4Address(offer.options[54])): offer for offer in offers}
    assert set(by_server) == {"192.168.100.1", "192.168.100.7"}
    assert by_server["192.168.100.1"].address != "0.0.0.0"  # noqa: S104 (compared, not bound)
    ours = by_server["192.168.100.7"]
    assert (ours.address, ours.bootfile) == ("0.0.0.0", bootfile)  # noqa: S104
    assert ours.options[60] == vendor.encode()
    # iPXE does not take a boot file without it.
    assert ours.next_server == "192.168.100.7"


@pytest.mark.parametrize(
    ("arch", "bootfile"), [(7, "ipxe-x86_64.efi"), (9, "ipxe-x86_64.efi"), (11, "ipxe-aarch64.efi")]
)
def test_beside_another_server_uefi_asks_on_port_4011(proxied: Server, arch: int, bootfile: str) -> None:
    offers = proxied.client.call(wire.offers, CLIENT, STRANGER, arch=arch)
    ours = next(offer for offer in offers if offer.options[54] == bytes([192, 168, 100, 7]))
    assert (ours.next_server, ours.bootfile, ours.options[60]) == ("192.168.100.7", "", b"PXEClient")
    answer = proxied.client.call(wire.boot_server, "192.168.100.7", STRANGER, "192.168.100.250", arch=arch)
    assert (answer.kind, answer.bootfile, answer.next_server) == (wire.ACK, bootfile, "192.168.100.7")
    if arch == 7:
        assert proxied.client.call(wire.tftp, "192.168.100.7", bootfile) == PROGRAM


def test_beside_another_server_we_give_no_address(proxied: Server) -> None:
    got = proxied.client.call(wire.dhcp, CLIENT, STRANGER)
    assert got is not None
    assert (got.options[54], got.bootfile) == (bytes([192, 168, 100, 1]), "")


def test_dnsmasq_gives_up_root(server: Server) -> None:
    pid = server.files.dnsmasq_pid.read_text().strip()
    status = Path(f"/proc/{pid}/status").read_text()
    assert "\nUid:\t0" not in status
    assert run(["ps", "-o", "user=", "-p", pid], timeout=10).stdout.strip() == "dnsmasq"
