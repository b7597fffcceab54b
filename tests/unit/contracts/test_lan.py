from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from contracts.arch import Arch
from contracts.lan import DhcpMode, Lan
from contracts.machine import FirmwareKind
from tests.fakes.lab_files import make_machine


def test_ipv6_addresses_have_the_number_of_their_ipv4_address() -> None:
    lan = Lan(ipv6_subnet="fd12:3456:789a::/64")
    assert str(lan.provisioner_ipv6) == "fd12:3456:789a::1"
    assert lan.provisioner_interface_ipv6 == "fd12:3456:789a::1/64"
    address = lan.ipv6_of(ipaddress.IPv4Address("192.168.100.17"))
    assert str(address) == "fd12:3456:789a::11"
    assert address is not None
    assert lan.is_reservable_ipv6(address)
    assert lan.ipv6_pool is not None
    assert not any(map(lan.is_reservable_ipv6, lan.ipv6_pool))
    assert not lan.is_reservable_ipv6(ipaddress.IPv6Address("fd12:3456:789a::1"))
    assert not lan.is_reservable_ipv6(ipaddress.IPv6Address("fd12:3456:789b::2"))
    with pytest.raises(ValueError, match=r"is not in 192\.168\.100\.0/24"):
        lan.ipv6_of(ipaddress.IPv4Address("10.0.0.2"))


def test_a_network_without_ipv6_has_no_such_addresses() -> None:
    lan = Lan()
    assert (lan.ipv6_network, lan.provisioner_ipv6, lan.ipv6_pool) == (None, None, None)
    assert lan.ipv6_of(lan.provisioner) is None
    assert lan.provisioner_interface_ipv6 == ""
    assert not lan.is_reservable_ipv6(ipaddress.IPv6Address("fd12:3456:789a::2"))


def test_beside_another_dhcp_server_any_address_may_be_a_machines() -> None:
    lan = Lan(dhcp=DhcpMode.PROXY, address="192.168.100.7")
    assert str(lan.provisioner) == "192.168.100.7"
    assert lan.base_url == "http://192.168.100.7"
    reservable = [address for address in lan.network if lan.is_reservable(address)]
    assert len(reservable) == 256 - 4  # network, broadcast, the first one (a router), ours
    assert ipaddress.IPv4Address("192.168.100.254") in reservable


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"ipv6_subnet": "fd00::/48"}, "not a unique local /64"),
        ({"ipv6_subnet": "2001:db8::/64"}, "not a unique local /64"),
        ({"ipv6_subnet": "fd00::1/64"}, "host bits"),
        ({"ipv6_subnet": "fd00::/64", "dhcp": DhcpMode.PROXY}, "needs dhcp to be server"),
        ({"address": "192.168.100.7"}, "for dhcp proxy only"),
        ({"address": "10.0.0.1", "dhcp": DhcpMode.PROXY}, "not a host's address"),
        ({"address": "192.168.100.255", "dhcp": DhcpMode.PROXY}, "not a host's address"),
        ({"domain": "a\nb"}, "not a DNS domain"),
        ({"domain": "Lab.test"}, "not a DNS domain"),
        ({"domain": "a..b"}, "not a DNS domain"),
        ({"domain": ""}, "not a DNS domain"),
    ],
)
def test_networks_without_sense_are_refused(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Lan(**values)


def test_bios_is_of_x86_64_only() -> None:
    assert make_machine(firmware=FirmwareKind.BIOS).firmware is FirmwareKind.BIOS
    with pytest.raises(ValueError, match="x86_64 machines only"):
        make_machine(firmware=FirmwareKind.BIOS, arch=Arch.AARCH64)
