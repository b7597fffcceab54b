from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts import document
from contracts.lan import DhcpMode, Lan
from contracts.machine import Nic
from lab.addresses import derive_ipv6_subnet
from lab.lab import Lab
from lab.lan_settings import UNCHANGED, LanRequest, plan_lan
from lab.provisioner_record import ProvisionerMode
from pipeline.errors import ConflictError, ExitCode, UsageError
from pipeline.workspace import Cache, Home, Workspace
from tests.fakes.lab_files import make_machine, write_definition

OWN = "fd12:3456:789a::/64"


@pytest.fixture
def settled(lab: Lab) -> Lab:
    """A lab with IPv6 and the machine web1, 192.168.100.11."""
    lab.ensure_folders()
    keep(lab, Lan(ipv6_subnet=OWN))
    write_definition(lab.home.vms, make_machine(ipv6="fd12:3456:789a::b"))
    return lab


def keep(lab: Lab, lan: Lan) -> None:
    (lab.home.config / "lab.json").write_text(document.dumps(lan))


def test_what_is_not_asked_for_stays(settled: Lab) -> None:
    assert plan_lan(settled, UNCHANGED) == settled.lan
    assert plan_lan(settled, LanRequest(domain="lab.test")) == Lan(ipv6_subnet=OWN, domain="lab.test")
    assert plan_lan(settled, LanRequest(subnet="192.168.100.0/23")) == Lan(ipv6_subnet=OWN, subnet="192.168.100.0/23")
    assert plan_lan(settled, LanRequest(ipv6_subnet="none")) == Lan()
    assert settled.lan == Lan(ipv6_subnet=OWN)  # nothing is written


def test_ipv6_of_the_labs_own(settled: Lab) -> None:
    keep(settled, Lan())
    derived = derive_ipv6_subnet(settled.identity())
    (settled.home.vms / "web1.json").unlink()
    assert plan_lan(settled, LanRequest(ipv6_subnet="auto")).ipv6_subnet == derived


def test_there_and_back(settled: Lab) -> None:
    proxy = plan_lan(settled, LanRequest(dhcp=DhcpMode.PROXY, address="192.168.100.7"))
    assert proxy == Lan(dhcp=DhcpMode.PROXY, address="192.168.100.7")  # IPv6 is the other server's then
    keep(settled, proxy)
    assert plan_lan(settled, LanRequest(domain="lab.test")).address == "192.168.100.7"
    assert plan_lan(settled, LanRequest(dhcp=DhcpMode.SERVER, ipv6_subnet=OWN)) == Lan(ipv6_subnet=OWN)


def test_a_lab_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    assert plan_lan(lab, LanRequest(subnet="10.9.0.0/24")) == Lan(subnet="10.9.0.0/24")
    assert not lab.home.root.exists()


@pytest.mark.parametrize(
    ("words", "brief", "resolution"),
    [
        ({"subnet": "192.168.5.7/24"}, "has host bits set", "is 192.168.5.0/24 meant?"),
        ({"subnet": "here"}, "not an IPv4 network", "192.168.100.0/24"),
        ({"subnet": "10.0.0.0/30"}, "too small: at most /28", "network.md"),
        ({"subnet": "8.8.8.0/24"}, "not for private use", "RFC 1918"),
        ({"subnet": "10.0.2.0/24"}, "the way out of the provisioner", "choose another one"),
        ({"ipv6_subnet": "2001:db8::/64"}, "not a unique local /64", "network.md"),
        ({"ipv6_subnet": "fd00::/48"}, "not a unique local /64", "network.md"),
        ({"ipv6_subnet": "x"}, "At least 3 parts expected", "network.md"),
        ({"domain": "Lab"}, "not a DNS domain in lower case", "network.md"),
        ({"address": "192.168.100.7"}, "for dhcp proxy only", "network.md"),
        ({"address": "10.0.0.7", "dhcp": DhcpMode.PROXY}, "not a host's address", "network.md"),
        ({"address": "me", "dhcp": DhcpMode.PROXY}, "Expected 4 octets", "network.md"),
        ({"dhcp": DhcpMode.PROXY}, "needs --address", "--address=ADDRESS, one of 192.168.100.0/24"),
        ({"dhcp": DhcpMode.PROXY, "address": "192.168.100.7", "ipv6_subnet": OWN}, "IPv6 is that one's", "network.md"),
    ],
)
def test_networks_without_sense_are_refused(settled: Lab, words: dict[str, Any], brief: str, resolution: str) -> None:
    with pytest.raises(UsageError, match=brief) as caught:
        plan_lan(settled, LanRequest(**words))
    assert caught.value.exit_code is ExitCode.USAGE
    assert resolution in caught.value.resolution


def test_a_new_subnet_beside_another_server_wants_a_new_address(settled: Lab) -> None:
    (settled.home.vms / "web1.json").unlink()
    keep(settled, Lan(dhcp=DhcpMode.PROXY, address="192.168.100.7"))
    with pytest.raises(UsageError, match="needs --address"):
        plan_lan(settled, LanRequest(subnet="10.9.0.0/24"))
    assert plan_lan(settled, LanRequest(subnet="10.9.0.0/24", address="10.9.0.7")).address == "10.9.0.7"


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        ({"subnet": "10.9.0.0/24"}, "192.168.100.11"),
        ({"subnet": "192.168.100.0/28"}, "192.168.100.11"),  # in the pool of that
        ({"dhcp": DhcpMode.PROXY, "address": "192.168.100.11"}, "192.168.100.11"),  # the provisioner's
        ({"ipv6_subnet": "fd99::/64"}, "fd12:3456:789a::b"),
    ],
)
def test_machines_keep_their_addresses(settled: Lab, words: dict[str, Any], lost: str) -> None:
    with pytest.raises(ConflictError, match="cannot be changed below 1 defined machine") as caught:
        plan_lan(settled, LanRequest(**words))
    assert caught.value.exit_code is ExitCode.CONFLICT
    (line,) = caught.value.details.splitlines()
    assert line.startswith(f"web1: {lost} is no machine's address in ")
    assert "vm.clean web1" in caught.value.resolution


def test_a_real_network_may_have_any_addresses(settled: Lab) -> None:
    (settled.home.vms / "web1.json").unlink()
    words = {"dhcp": DhcpMode.PROXY, "subnet": "10.0.0.0/16", "address": "10.0.0.7"}
    request = LanRequest(**words)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the way out of the provisioner"):  # its machine's
        plan_lan(settled, request)
    assert plan_lan(settled, request, mode=ProvisionerMode.HOST).subnet == "10.0.0.0/16"
    public = LanRequest(dhcp=DhcpMode.PROXY, subnet="8.8.8.0/24", address="8.8.8.7")
    assert plan_lan(settled, public, mode=ProvisionerMode.HOST).subnet == "8.8.8.0/24"


def test_only_some_of_many_machines_are_named(settled: Lab) -> None:
    for number in range(2, 16):
        machine = make_machine(
            name=f"m{number:02}", mac=f"52:54:00:00:00:{number:02x}", ip=f"192.168.100.{20 + number}",
            nics=(Nic(mac=f"52:54:00:00:01:{number:02x}", ip=f"192.168.100.{50 + number}"),),
            uuid=str(uuid.UUID(int=number)),
        )  # fmt: skip
        write_definition(settled.home.vms, machine)
    with pytest.raises(ConflictError) as caught:
        plan_lan(settled, LanRequest(subnet="10.9.0.0/24"))
    lines = caught.value.details.splitlines()
    assert [line.partition(" is ")[0] for line in lines[:2]] == ["m02: 192.168.100.22", "m02: 192.168.100.52"]
    assert lines[10:] == ["and 19 more"]


def test_a_broken_definition_is_in_nobodys_way(settled: Lab) -> None:
    (settled.home.vms / "web1.json").write_text("{")
    assert plan_lan(settled, LanRequest(subnet="10.9.0.0/24")).subnet == "10.9.0.0/24"


def test_nothing_changes_below_a_running_provisioner(settled: Lab, mark_running: Callable[[str], None]) -> None:
    mark_running("provisioner")
    with pytest.raises(ConflictError, match="while the provisioner runs") as caught:
        plan_lan(settled, LanRequest(domain="lab.test"))
    assert caught.value.resolution.startswith("./pvmlab provisioner.stop")
    assert plan_lan(settled, LanRequest(domain="pvmlab.local")) == settled.lan  # it is that already


def test_broken_settings_are_not_built_on(settled: Lab) -> None:
    (settled.home.config / "lab.json").write_text("{")
    with pytest.raises(ConflictError, match="network settings"):
        plan_lan(settled, LanRequest(domain="lab.test"))
