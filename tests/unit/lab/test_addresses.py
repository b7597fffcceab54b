from __future__ import annotations

import pytest

from contracts.lan import Lan
from contracts.names import normalize_mac
from lab import addresses
from pipeline.errors import ConflictError, UsageError


def test_mac_is_stable_and_valid() -> None:
    mac = addresses.derive_mac("lab", "web1")
    assert mac == addresses.derive_mac("lab", "web1")
    assert mac.startswith("52:54:00:")
    assert normalize_mac(mac) == mac


def test_macs_of_labs_names_and_cards_differ() -> None:
    macs = {
        addresses.derive_mac("lab", "web1"),
        addresses.derive_mac("lab", "web2"),
        addresses.derive_mac("other", "web1"),
        addresses.derive_mac("lab", "web1", card="wan"),
    }
    assert len(macs) == 4


def test_every_lab_has_an_ipv6_network_of_its_own() -> None:
    subnet = addresses.derive_ipv6_subnet("lab")
    assert subnet == addresses.derive_ipv6_subnet("lab")
    assert Lan(ipv6_subnet=subnet).ipv6_subnet == subnet
    assert len({addresses.derive_ipv6_subnet(str(number)) for number in range(100)}) == 100


def test_ipv6_address_goes_with_the_ipv4_one() -> None:
    assert addresses.ipv6_of(Lan(ipv6_subnet="fd12::/64"), "192.168.100.10") == "fd12::a"
    assert addresses.ipv6_of(Lan(), "192.168.100.10") == ""


def test_lowest_free_address_is_chosen() -> None:
    assert addresses.choose_address(Lan(), []) == "192.168.100.2"
    assert addresses.choose_address(Lan(), ["192.168.100.2", "192.168.100.4"]) == "192.168.100.3"


def test_address_of_the_pool_is_never_chosen() -> None:
    lan = Lan(subnet="10.0.0.0/28")
    taken = [f"10.0.0.{number}" for number in range(2, 8)]
    with pytest.raises(ConflictError, match=r"no free address left"):
        addresses.choose_address(lan, taken)


@pytest.mark.parametrize("text", ["192.168.100.1", "192.168.100.0", "192.168.100.128", "10.0.0.5"])
def test_address_that_cannot_be_reserved_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be a machine's address") as caught:
        addresses.require_reservable(Lan(), text)
    assert caught.value.resolution == "choose one of 192.168.100.2 to 192.168.100.127"


def test_text_that_is_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'192\.168\.100' is not an IPv4 address"):
        addresses.require_reservable(Lan(), "192.168.100")


def test_preferred_port_is_kept_if_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "is_free", lambda port: port != 2222)
    assert addresses.choose_port(4000) == 4000
    assert addresses.choose_port(None) == 2223
    assert addresses.choose_port(2222) == 2223


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "is_free", lambda _: False)
    with pytest.raises(ConflictError, match=r"no TCP port from 2222 to 2421 is free on 127\.0\.0\.1"):
        addresses.choose_port(4000)
