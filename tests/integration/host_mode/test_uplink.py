"""The lab's network joined with a LAN of this host: beside its DHCP server, or by a card of its own."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket

import pytest

from contracts import document
from contracts.lan import DhcpMode, Lan
from lab import provisioner
from lab.host_mode_uplink import NO_INTERFACE
from lab.lab import Lab
from lab.lan_settings import LanRequest
from lab.machine import MachineState
from lab.network import SwitchNetwork
from lab.provisioner_record import ProvisionerMode, find_record
from pipeline.errors import ConflictError, NotFoundError, PrerequisiteError, PvmlabError, UsageError
from tests.fakes import networks, wire
from tests.fakes.frames import FrameMachine
from tests.fakes.namespaces import CLIENT
from tests.fakes.web_client import wait_for
from tests.integration.host_mode.conftest import Office, services_of, start_services

FOREIGN, OURS = "192.168.100.1", "192.168.100.7"
STRANGER = "52:54:00:99:99:99"
PROXY = LanRequest(dhcp=DhcpMode.PROXY, address=OURS)


def create(lab: Lab, office: Office, interface: str, network: LanRequest = PROXY) -> None:
    office.host.call(provisioner.create, lab, None, network=network, interface=interface)


def fetch(server: str, path: str) -> bytes:
    with socket.create_connection((server, 80), timeout=20) as web:
        web.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: web.recv(1 << 16), b"")).partition(b"\r\n\r\n")[2]


def test_on_a_bridge_beside_its_dhcp_server(host_lab: Lab, office: Office) -> None:
    large = host_lab.cache.images / "debian-12" / "x86_64" / "large"
    large.write_bytes(os.urandom(1 << 20) * 8)
    before = office.cards()
    create(host_lab, office, "br0")
    office.host.call(start_services, host_lab)

    offers = office.client.call(wire.offers, CLIENT, STRANGER, arch=7, user_class="iPXE")
    by_server = {str(ipaddress.IPv4Address(offer.options[54])): offer for offer in offers}
    assert set(by_server) == {FOREIGN, OURS}
    assert by_server[FOREIGN].address.startswith("192.168.100.5")
    ours = by_server[OURS]
    assert (ours.address, ours.bootfile) == ("0.0.0.0", f"http://{OURS}/boot.ipxe")  # noqa: S104 (compared, not bound)
    assert len(office.client.call(wire.tftp, OURS, "ipxe-x86_64.efi")) == 1 << 20
    assert office.client.call(fetch, OURS, "/images/debian-12/x86_64/large") == large.read_bytes()

    machine = FrameMachine(
        SwitchNetwork(host_lab.home.run).ensure_started(), STRANGER
    )  # a target of the lab, on its switch
    try:
        assert machine.discover(within=5, server=FOREIGN).address.startswith("192.168.100.5")
    finally:
        machine.close()

    assert before.items() < office.cards().items()  # one more, and br0 has the MAC address that it had
    provisioner.stop(host_lab)
    wait_for("the bridge has its own ports only", lambda: office.cards() == before)


def test_with_a_card_of_its_own_the_lab_gives_the_addresses(host_lab: Lab, office: Office) -> None:
    networks.ip(office.name, "link", "set", "desk", "nomaster")
    create(host_lab, office, "desk", LanRequest(dhcp=DhcpMode.SERVER, ipv6_subnet="auto"))
    office.host.call(start_services, host_lab)
    assert "desk" not in office.cards()
    got = office.client.call(wire.dhcp, CLIENT, STRANGER, arch=7)
    assert got is not None
    assert (got.options[54], got.bootfile) == (ipaddress.IPv4Address(FOREIGN).packed, "ipxe-x86_64.efi")
    assert got.next_server == str(host_lab.lan.provisioner)
    assert got.options[3] == host_lab.lan.provisioner.packed


def test_what_cannot_be_joined_is_refused(host_lab: Lab, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.ip(office.name, "link", "add", "used0", "type", "veth", "peer", "name", "unused0")
    networks.ip(office.name, "address", "add", "10.0.0.5/24", "dev", "used0")
    refused: dict[str, tuple[type[PvmlabError], str]] = {
        "eth9": (NotFoundError, "no interface eth9"),
        "used0": (ConflictError, "used by this host"),
        "desk": (ConflictError, "belongs to br0"),
        "lo": (UsageError, "cannot be joined"),
        "lan0": (UsageError, "cannot be joined"),
        "br0; reboot": (UsageError, "cannot be joined"),
    }
    for name, (kind, message) in refused.items():
        with pytest.raises(kind, match=message) as caught:
            create(host_lab, office, name)
        assert caught.value.resolution
    with pytest.raises(UsageError, match="who gives out the addresses") as caught:
        create(host_lab, office, "br0", LanRequest())
    assert "--dhcp=proxy beside another" in caught.value.resolution
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PrerequisiteError, match="only root"):
        create(host_lab, office, "br0")
    assert host_lab.lan.dhcp is DhcpMode.SERVER  # nothing of it was written


def test_an_interface_that_is_gone_at_the_start_is_told(host_lab: Lab, office: Office) -> None:
    create(host_lab, office, "br0")
    networks.ip(office.name, "link", "delete", "br0")
    with pytest.raises(NotFoundError, match="no interface br0"):
        office.host.call(start_services, host_lab)
    assert host_lab.provisioner.state() is MachineState.OFF


def test_a_cable_that_cannot_be_plugged_in_ends_the_services(
    host_lab: Lab, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(host_lab, office, "br0")
    before = office.cards()
    monkeypatch.setattr("lab.host_mode_uplink.LAN_CARD", "lan9")
    with pytest.raises(PvmlabError, match="cannot be joined with br0") as caught:
        office.host.call(start_services, host_lab)
    assert "lan9" in caught.value.details
    assert host_lab.provisioner.state() is MachineState.OFF
    wait_for("the bridge has its own ports only", lambda: office.cards() == before)


def test_a_change_waits_for_the_provisioner_to_be_off(host_lab: Lab, office: Office) -> None:
    start_services(host_lab)
    with pytest.raises(ConflictError, match="with another interface") as caught:
        create(host_lab, office, "br0", LanRequest(dhcp=DhcpMode.SERVER))
    assert "provisioner.stop" in caught.value.resolution
    with pytest.raises(ConflictError, match="while the provisioner runs") as caught:
        provisioner.create(host_lab, network=LanRequest(domain="lab.test"))
    assert "provisioner.stop" in caught.value.resolution
    services_of(host_lab).kill()
    create(host_lab, office, "br0")
    record = find_record(host_lab.home)
    assert record is not None
    assert (record.mode, record.interface) == (ProvisionerMode.HOST, "br0")
    create(host_lab, office, NO_INTERFACE, LanRequest())
    assert find_record(host_lab.home) == dataclasses.replace(record, interface="")
    assert document.loads(Lan, (host_lab.home.config / "lab.json").read_text()).address == OURS  # stays as it is
