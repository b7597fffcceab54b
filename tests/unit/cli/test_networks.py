"""net.*: what is chosen, what is refused, and what is shown of who is on the network."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tasks
from cli import program
from contracts import document
from contracts.lan import Lan
from contracts.timeline import Event, EventKind, Stranger, Strangers, Timeline
from lab.lab import Lab
from lab.network import PortView, SwitchNetwork
from pipeline.workspace import Home
from tests.fakes.lab_files import make_machine

Verb = Callable[..., int]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr("lab.network_settings._ROUTES", tmp_path / "no-routes")
    return Home(tmp_path / "home")


@pytest.fixture
def verb(home: Home) -> Iterator[Verb]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield lambda *words: program.run(tasks.namespace, ["pvmlab", *words])
    for number, handler in handlers.items():
        signal.signal(number, handler)


def define(home: Home, **values: object) -> None:
    home.vms.mkdir(parents=True, exist_ok=True)
    machine = make_machine(**values)
    (home.vms / f"{machine.name}.json").write_text(document.dumps(machine))


def lan_of(home: Home) -> Lan:
    return document.loads(Lan, (home.config / "lab.json").read_bytes())


def test_a_new_lab_has_an_ipv6_of_its_own(verb: Verb, home: Home) -> None:
    assert verb("net.create", "--subnet", "10.7.0.0/24") == 0
    assert lan_of(home).ipv6_subnet.startswith("fd")
    assert not (home.config / "network.json").exists()


def test_what_is_not_named_stays(verb: Verb, home: Home) -> None:
    assert verb("net.create", "--subnet", "10.7.0.0/24", "--ipv6-subnet", "none") == 0
    assert verb("net.create", "--domain", "lab.test") == 0
    assert lan_of(home) == Lan(subnet="10.7.0.0/24", domain="lab.test")
    assert verb("net.create", "--dhcp", "proxy", "--address", "10.7.0.9") == 0
    assert lan_of(home).address == "10.7.0.9"
    assert verb("net.create", "--dhcp", "server") == 0
    assert lan_of(home).address == ""


def test_another_dhcp_servers_affairs_are_not_told_as_ours(
    verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("net.create", "--dhcp", "proxy", "--address", "192.168.100.7") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["strangers", "as the other DHCP server has it"] in lines
    assert verb("net.show", "--output", "json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["pool"], data["way_out"]) == ([], "as the other DHCP server says")


def test_defined_machines_keep_their_addresses(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("net.create", "--ipv6-subnet", "none") == 0
    define(home)
    assert verb("net.create", "--subnet", "10.7.0.0/24") == 4
    err = capsys.readouterr().err
    assert "web1: 192.168.100.11 is no machine's address in 10.7.0.0/24" in err
    assert "./pvmlab vm.clean web1; then create them anew" in err
    assert lan_of(home).subnet == "192.168.100.0/24"
    assert verb("net.create", "--subnet", "192.168.100.0/23") == 0
    assert verb("net.remove") == 0


def test_running_machines_keep_their_network(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    Lab.from_environment().ensure_folders()
    token = Path("/proc/self/cmdline").read_bytes().split(b"\0")[-2].decode()
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    record = {"token": token, "pid": os.getpid(), "start_time": started}
    (home.run / "web1.json").write_text(json.dumps(record))
    for words in (("net.create", "--domain", "x.test"), ("net.remove",)):
        assert verb(*words) == 4
        assert "while machines run: web1\n  what to do: ./pvmlab down" in capsys.readouterr().err


def test_a_provisioner_in_host_mode_is_on_a_switch(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.disks.mkdir(parents=True)
    (home.disks / "provisioner.json").write_text('{"schema": 1, "uuid": "u", "mode": "host"}')
    assert verb("net.create", "--kind", "bridge") == 4
    assert "./pvmlab provisioner.create --mode vm" in capsys.readouterr().err


def test_networks_of_the_host_are_told(
    verb: Verb, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "no-routes").write_text("Iface\neth0 0000070A 0 1 0 0 0 00FFFFFF 0 0 0\n")
    assert verb("net.create", "--subnet", "10.7.0.0/24") == 0
    assert "machines will not reach what this host does: 10.7.0.0/24 on eth0" in capsys.readouterr().err


def test_looking_makes_nothing(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("net.list", "net.show", "net.status", "net.remove"):
        assert verb(name) == 0
    assert not home.root.exists()


def test_who_is_on_it(
    verb: Verb, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    define(home)
    define(home, name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid="6f3b2d56-0a3c-4a7e-9e6f-0123456789ac")
    home.status.mkdir()
    events = (Event(time=now - 60, text="ack", kind=EventKind.ACK), Event(time=now, text="x", kind=EventKind.TFTP_SENT))
    timeline = Timeline(name="web1", uuid=make_machine().uuid, events=events)
    (home.status / "web1.events.json").write_text(document.dumps(timeline))
    strange = Stranger(mac="52:54:00:99:99:99", first=now, last=now, address="192.168.100.130")
    (home.status / "_strangers.json").write_text(document.dumps(Strangers(strangers=(strange,))))
    ports = [PortView(pid=1, addresses=("52:54:00:aa:bb:01",), received=2048, sent=10, dropped=3)]
    monkeypatch.setattr(SwitchNetwork, "ports", lambda self: ports)
    assert verb("net.status", "--output", "json") == 0
    members = {member["mac"]: member for member in json.loads(capsys.readouterr().out)["members"]}
    web1, web2 = members["52:54:00:aa:bb:01"], members["52:54:00:aa:bb:02"]
    assert (web1["machine"], web1["connected"], round(now - web1["leased"])) == ("web1", True, 60)
    assert web1["port"]["received"] == 2048
    assert (web2["connected"], web2["leased"], web2["port"]) == (False, 0.0, None)
    assert members["52:54:00:99:99:99"]["ip"] == "192.168.100.130"
    assert verb("net.status") == 0
    out = capsys.readouterr().out
    assert "web1         192.168.100.11   52:54:00:aa:bb:01  plugged in      60 s ago    2.0 KiB  10 B      3" in out
    assert "(stranger)" in out


def test_what_a_killed_switch_left_is_told(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.run.mkdir(parents=True)
    (home.run / "_switch.lan").touch()
    assert verb("net.list") == 0
    assert f"nobody uses {home.run}/_switch.lan: ./pvmlab gc removes them" in capsys.readouterr().err
