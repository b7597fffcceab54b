from __future__ import annotations

import dataclasses

from contracts.lan import Lan
from contracts.machine import Nic
from pxeboot_stack.reservations import render_dhcp_hosts, render_dns_hosts
from tests.fakes.lab_files import make_machine

MACHINES = [make_machine(name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12"), make_machine()]


def test_reservations_go_by_mac_only_and_are_sorted() -> None:
    assert render_dhcp_hosts(MACHINES) == (
        "52:54:00:aa:bb:01,id:*,192.168.100.11,12h\n52:54:00:aa:bb:02,id:*,192.168.100.12,12h\n"
    )


CARDS = make_machine(
    ipv6="fd12::b",
    nics=(
        Nic(mac="52:54:00:aa:bb:03", ip="192.168.100.13", ipv6="fd12::d"),
        Nic(mac="52:54:00:aa:bb:04", ip="192.168.100.14"),
    ),
)


def test_every_card_has_its_reservations() -> None:
    assert render_dhcp_hosts([CARDS]) == (
        "52:54:00:aa:bb:01,id:*,192.168.100.11,12h\n"
        "52:54:00:aa:bb:01,id:*,[fd12::b],2m\n"
        "52:54:00:aa:bb:03,id:*,192.168.100.13,12h\n"
        "52:54:00:aa:bb:03,id:*,[fd12::d],2m\n"
        "52:54:00:aa:bb:04,id:*,192.168.100.14,12h\n"
    )


def test_every_card_has_its_names() -> None:
    assert render_dns_hosts([CARDS], Lan(ipv6_subnet="fd12::/64")) == (
        "192.168.100.1 provisioner.pvmlab.local provisioner\n"
        "fd12::1 provisioner.pvmlab.local provisioner\n"
        "192.168.100.11 web1.pvmlab.local web1\n"
        "192.168.100.13 web1-nic2.pvmlab.local web1-nic2\n"
        "192.168.100.14 web1-nic3.pvmlab.local web1-nic3\n"
        "fd12::b web1.pvmlab.local web1\n"
        "fd12::d web1-nic2.pvmlab.local web1-nic2\n"
    )


def test_a_machine_keeps_its_name_from_the_card_of_another() -> None:
    other = make_machine(name="web1-nic2", mac="52:54:00:aa:bb:05", ip="192.168.100.15")
    names = render_dns_hosts([CARDS, other], Lan())
    assert [line.split()[0] for line in names.splitlines() if "web1-nic2" in line] == ["192.168.100.15"]


def test_a_card_whose_name_would_be_too_long_has_none() -> None:
    machine = dataclasses.replace(CARDS, name="w" * 60)
    assert "-nic2" not in render_dns_hosts([machine], Lan())
    assert "52:54:00:aa:bb:03,id:*,192.168.100.13,12h\n" in render_dhcp_hosts([machine])


def test_names_of_the_provisioner_and_of_all_machines() -> None:
    assert render_dns_hosts(MACHINES, Lan()) == (
        "192.168.100.1 provisioner.pvmlab.local provisioner\n"
        "192.168.100.11 web1.pvmlab.local web1\n"
        "192.168.100.12 web2.pvmlab.local web2\n"
    )


def test_an_empty_lab() -> None:
    assert render_dhcp_hosts([]) == ""
    assert render_dns_hosts([], Lan()) == "192.168.100.1 provisioner.pvmlab.local provisioner\n"
