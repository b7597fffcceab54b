from __future__ import annotations

from contracts.lan import Lan
from pxeboot_stack.reservations import render_dhcp_hosts, render_dns_hosts
from tests.fakes.lab_files import make_machine

MACHINES = [make_machine(name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12"), make_machine()]


def test_reservations_go_by_mac_only_and_are_sorted() -> None:
    assert render_dhcp_hosts(MACHINES) == (
        "52:54:00:aa:bb:01,id:*,192.168.100.11,web1\n52:54:00:aa:bb:02,id:*,192.168.100.12,web2\n"
    )


def test_names_of_the_provisioner_and_of_all_machines() -> None:
    assert render_dns_hosts(MACHINES, Lan()) == (
        "192.168.100.1 provisioner.pvmlab.local provisioner\n"
        "192.168.100.11 web1.pvmlab.local web1\n"
        "192.168.100.12 web2.pvmlab.local web2\n"
    )


def test_an_empty_lab() -> None:
    assert render_dhcp_hosts([]) == ""
    assert render_dns_hosts([], Lan()) == "192.168.100.1 provisioner.pvmlab.local provisioner\n"
