"""What all services together leave of a boot in its timeline, and how fast definitions are live in them."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any, Protocol

import pytest

from contracts.timeline import EventKind
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import RunFiles
from tests.fakes import wire
from tests.fakes.lab_files import make_machine, write_definition
from tests.fakes.web_client import wait_for

CARD, SERVER = "cli0", "192.168.100.1"
MACHINE = make_machine()
LIVE = 2.0  # seconds, where there are no events: issue 5


class Stack(Protocol):
    """What the fixture gives."""

    settings: Settings
    files: RunFiles
    client: Any
    text: str

    def find_pid(self, service: str) -> int:
        """Return a service's process id."""


def events(stack: Stack) -> list[str]:
    path = stack.settings.status / f"{MACHINE.name}.events.json"
    return [event["kind"] for event in json.loads(path.read_text())["events"]] if path.exists() else []


def knows(stack: Stack, name: str, address: str) -> bool:
    return bool(stack.client.call(wire.dns, SERVER, f"{name}.pvmlab.local") == [address])


def test_a_boot_leaves_its_whole_trail(stack: Stack) -> None:
    write_definition(stack.settings.vms, MACHINE)
    wait_for("web1 is known", lambda: knows(stack, MACHINE.name, MACHINE.ip))
    lease = stack.client.call(wire.dhcp, CARD, MACHINE.mac, arch=7)
    stack.client.call(wire.tftp, SERVER, lease.bootfile)
    with pytest.raises(OSError, match=r"."):
        stack.client.call(wire.tftp, SERVER, "nothing")
    stack.client.ask("/boot.ipxe", source=MACHINE.ip)
    stack.client.ask(f"/ipxe?mac={MACHINE.mac}", source=MACHINE.ip)
    stack.client.ask("/images/debian-12/x86_64/vmlinuz", source=MACHINE.ip)
    wanted = [
        EventKind.DISCOVER, EventKind.OFFER, EventKind.REQUEST, EventKind.ACK, EventKind.TFTP_SENT,
        EventKind.TFTP_FAILED, EventKind.CHAIN, EventKind.FILE,
    ]  # fmt: skip
    wait_for("the whole trail", lambda: sorted(events(stack)) == sorted(kind.value for kind in wanted))


def test_a_definition_is_live_in_all_services_in_time_and_nothing_restarts(stack: Stack) -> None:
    before = [stack.find_pid(name) for name in ("dnsmasq", "nginx", "boot_handler", "watcher")]
    for number, machine in enumerate((MACHINE, dataclasses.replace(MACHINE, ip="192.168.100.12"))):
        begun = time.monotonic()
        write_definition(stack.settings.vms, machine)
        while not knows(stack, machine.name, machine.ip):
            assert time.monotonic() - begun < LIVE, number
        script = stack.client.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text
        assert "web1 installs" in script
    (stack.settings.vms / "web1.json").unlink()
    begun = time.monotonic()
    while stack.client.call(wire.dns, SERVER, "web1.pvmlab.local"):
        assert time.monotonic() - begun < LIVE
    assert "vm.adopt" in stack.client.ask(f"/ipxe?mac={MACHINE.mac}").text
    assert before == [stack.find_pid(name) for name in ("dnsmasq", "nginx", "boot_handler", "watcher")]


def test_an_edited_definition_is_live_in_time_and_a_broken_one_keeps_the_old_state(stack: Stack) -> None:
    path = write_definition(stack.settings.vms, MACHINE)
    wait_for("web1 is known", lambda: knows(stack, "web1", MACHINE.ip))
    begun = time.monotonic()
    path.write_text(path.read_text().replace(MACHINE.ip, "192.168.100.12"))  # in place, as some editors do
    while not knows(stack, "web1", "192.168.100.12"):
        assert time.monotonic() - begun < LIVE
    path.write_text("{")
    faults = stack.settings.status / "_faults.json"
    wait_for("the fault is told", lambda: "web1" in faults.read_text())
    assert json.loads(faults.read_text())["definitions"][0]["kept"] is True
    assert stack.client.call(wire.dhcp, CARD, MACHINE.mac).address == "192.168.100.12"


def test_nothing_is_lost_while_definitions_change(stack: Stack) -> None:
    write_definition(stack.settings.vms, MACHINE)
    wait_for("web1 is known", lambda: knows(stack, "web1", MACHINE.ip))
    others = [
        make_machine(name=f"m{n}", mac=f"52:54:00:00:01:{n:02x}", ip=f"192.168.100.{n + 20}",
                     uuid=f"00000000-0000-4000-8000-{n:012}")
        for n in range(20)
    ]  # fmt: skip
    for machine in (*others, *(dataclasses.replace(each, cpus=4) for each in others)):
        write_definition(stack.settings.vms, machine)
        assert stack.client.call(wire.dhcp, CARD, MACHINE.mac).address == MACHINE.ip
        assert "web1 installs" in stack.client.ask(f"/ipxe?mac={MACHINE.mac}", source=MACHINE.ip).text


def test_a_machine_with_an_old_lease_is_told_and_gets_its_own(stack: Stack) -> None:
    """It was a stranger, with an address of the pool, when it was adopted."""
    stranger = stack.client.call(wire.dhcp, CARD, MACHINE.mac).address
    assert stranger != MACHINE.ip
    write_definition(stack.settings.vms, MACHINE)
    wait_for("web1 is known", lambda: knows(stack, "web1", MACHINE.ip))
    script = stack.client.ask(f"/ipxe?mac={MACHINE.mac}", source="192.168.100.12").text
    assert f"reserved for it is {MACHINE.ip}" in script
    assert stack.client.call(wire.dhcp, CARD, MACHINE.mac).address == MACHINE.ip
    wait_for("it is in the timeline", lambda: EventKind.FOREIGN.value in events(stack))
    assert not (stack.settings.status / "web1.json").exists()


def test_readiness_means_dnsmasq_too(stack: Stack) -> None:
    wait_for("ready", lambda: stack.client.ask("/readyz").status == 200)
    pid = stack.files.dnsmasq_pid.read_text()
    stack.files.dnsmasq_pid.write_text("1\n")
    assert "dnsmasq does not run" in stack.client.ask("/readyz").text
    stack.files.dnsmasq_pid.write_text(pid)
    assert stack.client.ask("/readyz").status == 200
