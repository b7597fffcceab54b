"""What was seen of machines, and orders to them, as people ask for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke import Exit

from cli import boot_verbs, lab_views
from contracts import document
from contracts.arch import Arch
from contracts.lan import DhcpMode, Lan
from contracts.machine import SshHostKey, VmDefinition
from contracts.orders import Order, OrderKind
from contracts.timeline import Event, EventKind, Stranger, Strangers, Timeline
from lab import target
from lab.lab import Lab
from lab.store import DefinitionStore, MachineRequest
from pipeline.errors import ExitCode, NotFoundError, UsageError

MAC, STRANGER = "52:54:00:00:00:01", "52:54:00:99:99:99"
Make = Callable[..., VmDefinition]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    made = Lab.from_environment()
    made.ensure_folders()
    return made


def define(lab: Lab, *, managed: bool = True) -> VmDefinition:
    definition = VmDefinition(
        name="web1", arch=Arch.X86_64, distro="debian-12", mac=MAC, ip="192.168.100.2", managed=managed,
        uuid="00000000-0000-4000-8000-000000000001", ssh_authorized_keys=("ssh-ed25519 AAAAuser pvmlab",),
        ssh_host_key=SshHostKey(
            private="-----BEGIN OPENSSH PRIVATE KEY-----\nfake\n-----END OPENSSH PRIVATE KEY-----\n",
            public="ssh-ed25519 AAAAhost comment",
        ),
    )  # fmt: skip
    DefinitionStore(lab).write(definition)
    return definition


def see(lab: Lab, definition: VmDefinition, *events: Event) -> None:
    timeline = Timeline(name=definition.name, uuid=definition.uuid, events=events)
    (lab.home.status / "web1.events.json").write_text(document.dumps(timeline))


def see_stranger(lab: Lab) -> None:
    event = Event(time=1000.0, kind=EventKind.MENU, text="was shown how it is adopted")
    stranger = Stranger(mac=STRANGER, first=1000.0, last=time.time(), address="192.168.100.200", events=(event,))
    (lab.home.status / "_strangers.json").write_text(document.dumps(Strangers(strangers=(stranger,))))


def test_events_are_shown_with_a_diagnosis(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    event = Event(time=1000.0, last=1060.0, count=4, kind=EventKind.ACK, text="got 192.168.100.2")
    see(lab, define(lab), event)
    boot_verbs.show_events("web1", follow=False, output="table")
    shown = capsys.readouterr()
    assert "dhcp" in shown.out
    assert "got 192.168.100.2 (4 times until " in shown.out
    assert "no TFTP request came" in shown.err
    boot_verbs.show_events("web1", follow=False, output="json")
    data = json.loads(capsys.readouterr().out)
    assert "no TFTP request came" in data["diagnosis"]
    (told,) = data["events"]
    assert (told["source"], told["kind"], told["count"], told["last"]) == ("dhcp", "dhcp-ack", 4, 1060.0)


def test_a_machine_that_moves_is_not_diagnosed(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    see(lab, define(lab), Event(time=time.time(), kind=EventKind.ACK, text="got 192.168.100.2"))
    boot_verbs.show_events("web1", follow=False, output="table")
    assert capsys.readouterr().err == ""


def test_a_machine_that_was_never_started_is_off(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    define(lab)
    boot_verbs.show_events("web1", follow=False, output="table")
    assert capsys.readouterr().err == "web1 is off: ./pvmlab vm.start web1 --wait\n"


@pytest.mark.parametrize("output", ["table", "json"])
def test_following_writes_a_line_for_each_event(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    see(lab, define(lab), Event(time=1000.0, kind=EventKind.ACK, text="got 192.168.100.2"))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.events.time.sleep", interrupt)
    with pytest.raises(Exit) as caught:
        boot_verbs.show_events("web1", follow=True, output=output)
    assert (caught.value.code, caught.value.message) == (ExitCode.INTERRUPTED, None)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["text"] == "got 192.168.100.2" if output == "json" else "  dhcp  got" in line


def test_events_of_nobody_are_refused(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match=r"no machine 'web9'"):
        boot_verbs.show_events("web9", follow=False, output="table")
    with pytest.raises(UsageError, match=r"--output 'xml' is unknown"):
        boot_verbs.show_events("web9", follow=False, output="xml")


def test_events_of_a_stranger_are_shown_by_its_mac(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    see_stranger(lab)
    boot_verbs.show_events("52-54-00-99-99-99", follow=False, output="table")
    assert "was shown how it is adopted" in capsys.readouterr().out


def test_events_are_found_by_any_mac(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFoundError, match=rf"no machine of the lab has the MAC address {STRANGER}"):
        boot_verbs.show_events(STRANGER.upper(), follow=False, output="table")
    see(lab, define(lab), Event(time=time.time(), kind=EventKind.ACK, text="got 192.168.100.2"))
    (lab.home.vms / "abroken.json").write_text("{")  # looked at before it
    boot_verbs.show_events(MAC.replace(":", "-"), follow=False, output="json")
    assert json.loads(capsys.readouterr().out)["name"] == "web1"


@pytest.mark.parametrize(("rescue", "kind"), [(False, OrderKind.REINSTALL), (True, OrderKind.RESCUE)])
def test_an_order_is_written_and_taken_back(
    lab: Lab, capsys: pytest.CaptureFixture[str], *, rescue: bool, kind: OrderKind
) -> None:
    definition = define(lab)
    boot_verbs.reinstall("web1", rescue=rescue, withdraw=False)
    order = document.loads(Order, (lab.home.vms / "web1.order").read_bytes())
    assert (order.kind, order.uuid) == (kind, definition.uuid)
    assert "./pvmlab vm.start web1 --wait" in capsys.readouterr().err
    boot_verbs.reinstall("web1", rescue=False, withdraw=True)
    assert f"the {kind} is no longer ordered" in capsys.readouterr().err
    boot_verbs.reinstall("web1", rescue=False, withdraw=True)
    assert "nothing was ordered" in capsys.readouterr().err


def test_orders_that_make_no_sense_are_refused(lab: Lab) -> None:
    with pytest.raises(UsageError, match=r"--withdraw takes back any order"):
        boot_verbs.reinstall("web1", rescue=True, withdraw=True)
    with pytest.raises(NotFoundError):
        boot_verbs.reinstall("web1", rescue=False, withdraw=False)


def test_strangers_are_listed(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    boot_verbs.adopt([], name="", distro="debian-12", arch="x86_64", ip="")
    assert "no unknown machine was seen" in capsys.readouterr().err
    see_stranger(lab)
    boot_verbs.adopt([], name="", distro="debian-12", arch="x86_64", ip="")
    assert STRANGER in capsys.readouterr().out
    boot_verbs.adopt([], name="", distro="debian-12", arch="x86_64", ip="", output="json")
    assert json.loads(capsys.readouterr().out)["strangers"][0]["address"] == "192.168.100.200"


def test_a_stranger_is_adopted(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[MachineRequest, bool]] = []

    def create(_: Lab, request: MachineRequest, *, managed: bool, check: object) -> VmDefinition:
        assert callable(check)
        asked.append((request, managed))
        return define(lab, managed=managed)

    monkeypatch.setattr(target, "create", create)
    see_stranger(lab)
    boot_verbs.adopt([STRANGER], name="web1", distro="debian-12", arch="x86_64", ip="")
    assert [(request.mac, request.name, managed) for request, managed in asked] == [(STRANGER, "web1", False)]
    assert "adopted web1" in capsys.readouterr().err
    boot_verbs.adopt([MAC], name="web1", distro="debian-12", arch="x86_64", ip="")
    assert f"{MAC} was not seen" in capsys.readouterr().err
    lab_views.show_machines(lab, output="table")
    assert "web1  adopted  new" in capsys.readouterr().out


def test_beside_another_dhcp_server_a_machine_is_adopted_with_the_address_that_it_has_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[MachineRequest] = []

    def create(_: Lab, request: MachineRequest, **_more: object) -> VmDefinition:
        asked.append(request)
        return define(lab, managed=False)

    monkeypatch.setattr(target, "create", create)
    see_stranger(lab)
    proxy = Lan(dhcp=DhcpMode.PROXY, address="192.168.100.7")
    (lab.home.config / "lab.json").write_text(document.dumps(proxy))
    boot_verbs.adopt([STRANGER], name="web1", distro="debian-12", arch="x86_64", ip="")
    boot_verbs.adopt([STRANGER], name="web1", distro="debian-12", arch="x86_64", ip="192.168.100.9")
    (lab.home.config / "lab.json").unlink()
    boot_verbs.adopt([STRANGER], name="web1", distro="debian-12", arch="x86_64", ip="")
    assert [request.ip for request in asked] == ["192.168.100.200", "192.168.100.9", None]


def test_machines_are_adopted_one_at_a_time(lab: Lab) -> None:
    with pytest.raises(UsageError, match="one MAC address at a time"):
        boot_verbs.adopt([STRANGER, MAC], name="web1", distro="debian-12", arch="x86_64", ip="")


@pytest.mark.parametrize(
    ("name", "arch", "words"), [("", "x86_64", "needs a name"), ("web1", "sparc", "--arch 'sparc' is unknown")]
)
def test_adopting_needs_words_that_make_sense(lab: Lab, name: str, arch: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        boot_verbs.adopt([STRANGER], name=name, distro="debian-12", arch=arch, ip="")
