"""Which network a lab has, and what is refused before anything is touched."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from contracts.lan import DhcpMode, Lan
from lab import bridge
from lab.bridge import overlapping_host
from lab.bridge_commands import BridgePlan, bridge_name, change_address, make_bridge, make_tap, remove
from lab.lab import Lab
from lab.network import NetworkKind, SwitchNetwork
from lab.network_settings import (
    NetworkSettings,
    find_overlaps,
    read_settings,
    require_fitting,
    require_usable_lan,
    settings_path,
    write_settings,
)
from lab.store import DefinitionStore, MachineRequest
from lab.vmnet import VmnetNetwork
from pipeline.errors import ConflictError, PrerequisiteError, UsageError
from pipeline.workspace import Cache, Home, Workspace
from tests.fakes.lab_files import HOST_KEY, make_machine

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
docker0\t0064A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_the_usual_network_needs_no_file(home: Home) -> None:
    assert read_settings(home) == NetworkSettings()
    assert isinstance(Lab(Workspace(Cache(home.root), home)).network, SwitchNetwork)
    write_settings(home, NetworkSettings(), Lan())
    assert not settings_path(home).exists()
    other = NetworkSettings(kind=NetworkKind.BRIDGE, taps=3)
    write_settings(home, other, Lan())
    assert read_settings(home) == other
    write_settings(home, NetworkSettings(), Lan())
    assert not settings_path(home).exists()


def test_broken_settings_are_told(home: Home) -> None:
    home.config.mkdir(parents=True)
    settings_path(home).write_text('{"schema": 1, "kind": "hub"}')
    with pytest.raises(ConflictError, match="are broken") as refused:
        read_settings(home)
    assert "kind" in refused.value.details


@pytest.mark.parametrize(
    "words",
    [{"taps": 0}, {"taps": 65}, {"host_address": "192.168.100.9"}, {"socket": "/s"},
     {"kind": NetworkKind.BRIDGE, "host_address": "here"}],
)  # fmt: skip
def test_settings_without_sense_are_refused(words: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"taps|only|here"):
        NetworkSettings(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize("subnet", ["10.0.2.0/24", "10.0.0.0/16", "127.1.0.0/16", "224.0.0.0/24", "8.8.8.0/24",
                                    "169.254.0.0/16", "0.0.0.0/8", "240.0.0.0/24"])  # fmt: skip
def test_subnets_that_belong_to_others_are_refused(subnet: str) -> None:
    with pytest.raises(UsageError, match=r"way out|private use"):
        require_usable_lan(Lan(subnet=subnet), NetworkSettings())


@pytest.mark.parametrize("subnet", ["10.1.0.0/16", "172.31.0.0/24", "192.168.7.0/28", "100.64.0.0/24", "192.0.2.0/24"])
def test_private_subnets_are_fine(subnet: str) -> None:
    require_usable_lan(Lan(subnet=subnet), NetworkSettings())


@pytest.mark.parametrize("address", ["192.168.100.1", "192.168.100.200", "192.168.100.0", "10.1.1.1"])
def test_the_host_may_have_a_machines_address_only(address: str) -> None:
    settings = NetworkSettings(kind=NetworkKind.BRIDGE, host_address=address)
    with pytest.raises(UsageError, match="cannot be this host's"):
        require_usable_lan(Lan(), settings)


def test_networks_of_the_host_are_found() -> None:
    assert find_overlaps(Lan(subnet="192.168.0.0/16"), ROUTES) == ["192.168.100.0/24 on docker0"]
    assert find_overlaps(Lan(subnet="172.17.3.0/24"), ROUTES) == ["172.17.0.0/16 on eth0"]
    assert find_overlaps(Lan(subnet="10.9.0.0/24"), ROUTES) == []
    assert find_overlaps(Lan(subnet="192.168.0.0/16"), ROUTES, besides=["docker0"]) == []


def test_an_overlap_matters_for_an_address_of_the_hosts_own() -> None:
    own = NetworkSettings(kind=NetworkKind.BRIDGE, host_address="192.168.100.5")
    assert overlapping_host(Lan(), own, ["192.168.100.0/24 on docker0"]) is not None
    assert overlapping_host(Lan(), own, []) is None
    assert overlapping_host(Lan(), dataclasses.replace(own, host_address=""), ["x"]) is None


@pytest.mark.parametrize(
    ("lan", "fault"),
    [
        (Lan(subnet="10.1.0.0/24"), "192.168.100.17 is no machine's address in 10.1.0.0/24"),
        (Lan(subnet="192.168.100.16/28"), "192.168.100.17 is no machine's address"),
        (Lan(ipv6_subnet="fd00:1::/64"), "fd00::11 is no machine's address in fd00:1::/64"),
        (Lan(dhcp=DhcpMode.PROXY, address="192.168.100.17"), "192.168.100.17 is no machine's address"),
    ],
)
def test_machines_keep_their_addresses(lan: Lan, fault: str) -> None:
    with pytest.raises(ConflictError, match="cannot be changed below 1 defined machine") as refused:
        require_fitting(lan, [make_machine(ip="192.168.100.17", ipv6="fd00::11")], NetworkSettings())
    assert fault in refused.value.details
    assert "vm.clean" in refused.value.resolution


def test_a_change_that_leaves_them_alone_is_fine() -> None:
    machine = make_machine(ip="192.168.100.17", ipv6="")
    require_fitting(Lan(subnet="192.168.100.0/23", domain="lab.test"), [machine], NetworkSettings())
    require_fitting(Lan(), [make_machine(ip="192.168.100.17", ipv6="fd00::11")], NetworkSettings())  # IPv6 lies idle
    own = NetworkSettings(kind=NetworkKind.BRIDGE, host_address="192.168.100.17")
    with pytest.raises(ConflictError, match="cannot be changed"):
        require_fitting(Lan(), [machine], own)


def test_the_hosts_address_is_no_machines(home: Home) -> None:
    lab = Lab(Workspace(Cache(home.root), home))
    write_settings(home, NetworkSettings(kind=NetworkKind.BRIDGE, host_address="192.168.100.2"), Lan())

    def plan(**wishes: str) -> str:
        request = MachineRequest(name="web1", distro="debian-12", **wishes)  # type: ignore[arg-type]
        return DefinitionStore(lab).plan(request, host_key=HOST_KEY, authorized_key="ssh-ed25519 AAAA lab").ip

    assert plan() == "192.168.100.3"
    with pytest.raises(ConflictError, match=r"192\.168\.100\.2 is taken by this host"):
        plan(ip="192.168.100.2")


def test_names_of_interfaces_fit_and_differ_between_labs() -> None:
    plan = BridgePlan(name=bridge_name("me"), home=Path("/h"))
    assert len(plan.name) == 11
    assert len(plan.tap(999)) == 15  # IFNAMSIZ less its end
    assert bridge_name("you") != plan.name == bridge_name("me")


def test_what_root_does_for_a_bridge() -> None:
    plan = BridgePlan(name="pvm0", home=Path("/h o"), interface="192.168.7.5/24")
    assert make_bridge(plan, ipv6=True) == [
        [
            "ip",
            "link",
            "add",
            "name",
            "pvm0",
            "type",
            "bridge",
            "stp_state",
            "0",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        ],
        ["ip", "link", "set", "dev", "pvm0", "alias", "pvmlab:/h o"],
        ["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/pvm0/disable_ipv6"],
        ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/pvm0/arp_ignore"],
        ["ip", "address", "add", "192.168.7.5/24", "dev", "pvm0"],
        ["ip", "link", "set", "dev", "pvm0", "up"],
    ]
    assert make_tap(plan, 3, user=1000, ipv6=False) == [
        ["ip", "tuntap", "add", "dev", "pvm0t3", "mode", "tap", "user", "1000"],
        ["ip", "link", "set", "dev", "pvm0t3", "alias", "pvmlab:/h o"],
        ["ip", "link", "set", "dev", "pvm0t3", "master", "pvm0"],
        ["ip", "link", "set", "dev", "pvm0t3", "up"],
    ]
    assert change_address(plan) == [
        ["ip", "-4", "address", "flush", "dev", "pvm0"],
        ["ip", "address", "add", "192.168.7.5/24", "dev", "pvm0"],
    ]
    assert change_address(BridgePlan(name="pvm0", home=Path("/h"))) == [["ip", "-4", "address", "flush", "dev", "pvm0"]]
    assert remove("pvm0") == ["ip", "link", "delete", "dev", "pvm0"]
    assert len(BridgePlan(name="p", home=Path("/" + "ä" * 300)).alias.encode()) <= 260


def test_socket_vmnet_is_for_macos_and_a_person_starts_it(tmp_path: Path) -> None:
    """Arguments only: nothing of this was run on macOS."""
    settings = NetworkSettings(kind=NetworkKind.VMNET, socket=str(tmp_path / "socket"))
    with pytest.raises(PrerequisiteError, match="is a program for macOS"):
        VmnetNetwork(settings, identity="me", platform="linux").attach("web1", 1)
    network = VmnetNetwork(settings, identity="me", platform="darwin")
    with pytest.raises(PrerequisiteError, match="socket_vmnet does not run") as refused:
        network.attach("web1", 1)
    command = network.daemon_command()
    assert " ".join(command) in refused.value.resolution
    assert command[:3] == ["sudo", "socket_vmnet", "--vmnet-mode=host"]
    assert command[3].startswith("--vmnet-network-identifier=")
    assert command == VmnetNetwork(settings, identity="me").daemon_command()
    assert command != VmnetNetwork(settings, identity="you").daemon_command()
    assert (network.is_running(), network.ports(), network.leftovers()) == (False, [], [])
    assert str(VmnetNetwork(NetworkSettings(kind=NetworkKind.VMNET), identity="").socket).endswith("/socket_vmnet")


@pytest.mark.parametrize(
    ("there", "node", "message"),
    [("", "tun", "programs that are not installed: ip, bridge"), ("/x", "no-tun", "this host has no"),
     ("/x", "closed", "you may not open")],
)  # fmt: skip
def test_what_a_bridge_needs_of_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: str, node: str, message: str
) -> None:
    monkeypatch.setattr(bridge, "find_program", lambda _: there or None)
    monkeypatch.setattr(bridge, "TUN", tmp_path / node)
    monkeypatch.setattr("os.access", lambda *_: node != "closed")
    if node != "no-tun":
        (tmp_path / node).touch()
    with pytest.raises(PrerequisiteError, match=message) as refused:
        bridge.require_tun()
    assert "net.create --kind switch needs none of it" in refused.value.resolution


@pytest.mark.parametrize(
    ("home", "error", "abandoned"),
    [("/h", FileNotFoundError, True), ("/h", NotADirectoryError, True), ("/h", PermissionError, False),
     ("/h", None, False), ("/" + "h" * 300, FileNotFoundError, False)],
)  # fmt: skip
def test_only_a_lab_that_is_gone_for_sure_has_abandoned_its_interfaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str, error: type[OSError] | None, abandoned: bool
) -> None:
    def look(path: Path, **_: object) -> None:
        if error is not None:
            raise error(str(path))

    (tmp_path / "pvm0").mkdir()
    (tmp_path / "pvm0/ifalias").write_text(BridgePlan(name="pvm0", home=Path(home)).alias + "\n")
    monkeypatch.setattr(bridge, "INTERFACES", tmp_path)
    monkeypatch.setattr(Path, "stat", look)
    assert bridge.is_abandoned("pvm0") is abandoned


def test_a_firewall_that_sees_bridges_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bridge, "_FILTER", tmp_path / "filter")
    assert bridge.filter_warning() == ""
    (tmp_path / "filter").write_text("1\n")
    assert "sysctl net.bridge.bridge-nf-call-iptables=0" in bridge.filter_warning()
    (tmp_path / "filter").write_text("0\n")
    assert bridge.filter_warning() == ""
