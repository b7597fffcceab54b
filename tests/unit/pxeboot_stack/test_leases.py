from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from contracts.machine import Nic
from pxeboot_stack.leases import Lease, find_foreign, parse_leases, release_message
from tests.fakes.lab_files import make_machine

WEB1 = make_machine()
ELSEWHERE = "52:54:00:99:99:99"


def test_leases_are_read_and_everything_else_in_the_file_is_not() -> None:
    text = (
        "1763740000 52:54:00:aa:bb:01 192.168.100.11 web1 01:52:54:00:aa:bb:01\n"
        "0 52:54:00:99:99:99 192.168.100.200 * *\n"
        "duid 00:01:00:01:2e\n"
        "1763740000 1234 fd00::11 web1 00:01\n"
        "\n"
        "1763740000 52:54:0\n"
    )
    assert parse_leases(text) == [
        Lease("52:54:00:aa:bb:01", IPv4Address("192.168.100.11")),
        Lease("52:54:00:99:99:99", IPv4Address("192.168.100.200")),
    ]


def test_further_cards_have_addresses_of_their_own() -> None:
    two = make_machine(nics=(Nic(mac="52:54:00:aa:bb:02", ip="192.168.100.12"),))
    own = Lease("52:54:00:aa:bb:02", IPv4Address("192.168.100.12"))
    crossed = Lease(two.mac, IPv4Address("192.168.100.12"))
    assert find_foreign([own, crossed], [two]) == [crossed]


@pytest.mark.parametrize(
    ("mac", "address", "foreign"),
    [
        (WEB1.mac, WEB1.ip, False),
        (ELSEWHERE, WEB1.ip, True),
        (ELSEWHERE, "192.168.100.12", False),  # of a machine that is not known any more, or not known again yet
        (WEB1.mac, "192.168.100.200", False),  # from before it was known: dnsmasq gives it its own at the next try
    ],
)
def test_a_lease_is_foreign_if_its_address_is_reserved_for_another(mac: str, address: str, foreign: bool) -> None:
    lease = Lease(mac, IPv4Address(address))
    assert find_foreign([lease], [WEB1]) == ([lease] if foreign else [])


def test_a_release_says_what_rfc_2131_asks_for() -> None:
    message = release_message(Lease(ELSEWHERE, IPv4Address("192.168.100.11")), IPv4Address("192.168.100.1"))
    assert message[:4] == bytes([1, 1, 6, 0])
    assert message[12:16] == bytes([192, 168, 100, 11])  # ciaddr
    assert message[28:34] == bytes.fromhex("525400999999")
    assert message[236:240] == bytes.fromhex("63825363")
    assert message[240:] == bytes([53, 1, 7, 54, 4, 192, 168, 100, 1, 255])
