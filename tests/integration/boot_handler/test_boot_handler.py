"""Many machines at once, each with its own secrets; events by the sockets of nginx and dnsmasq."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import socket
import sys
import time
from typing import Any, Protocol

import pytest

from contracts import document
from contracts.machine import SshHostKey, VmDefinition
from contracts.nocloud import DOCUMENTS
from contracts.orders import Order, OrderKind
from contracts.report import InstallState, MachineStatus, Outcome, Phase, Report
from contracts.timeline import Strangers
from pipeline.run import run
from pipeline.workspace import REPOSITORY
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import HOST_KEY, write_definition
from tests.fakes.web_client import request, wait_for, wait_until_in_place

MACHINES, STORM = 20, 1000
WIDTHS = (STORM, 50)  # how many machines ask at a time
P99 = 0.05  # seconds: issue 5
PATIENT = 15.0  # seconds for a storm; for hosts that do much else: the figures are of benchmarks/boot_handler.py
DONE = document.dumps(Report(phase=Phase.BOOTLOADER, outcome=Outcome.DONE, percent=100, message="done")).encode()


class Served(Protocol):
    """What the fixture gives."""

    address: str
    handler: str
    settings: Settings
    log: Any

    def ask(self, path: str, **more: Any) -> Any:
        """Send a request to nginx."""

    def machine(self, number: int) -> VmDefinition:
        """Return a definition."""

    def define(self, count: int) -> list[VmDefinition]:
        """Write definitions."""

    def events(self, machine: VmDefinition) -> list[dict[str, Any]]:
        """Return the timeline."""


def token_of(script: str) -> str:
    found = re.search(r"/m/([0-9a-f]{32})/", script)
    assert found, script
    return found[1]


def test_a_thousand_scripts_at_once(served: Served) -> None:
    machines = served.define(STORM)
    host, port = served.address.split(":")
    asked = json.dumps([{"name": each.name, "mac": each.mac, "ip": each.ip} for each in machines])
    for width in WIDTHS:
        argv = [sys.executable, "-m", "tests.fakes.machine_storm", host, port, str(width)]
        out = json.loads(run(argv, cwd=REPOSITORY, input=asked, timeout=60).stdout)
        assert out["wrong"] == []
        assert len(out["milliseconds"]) == STORM
        assert out["seconds"] < PATIENT
    wait_until_in_place(served.settings.status)
    text = request(served.handler, "/metrics").text
    counted = dict(re.findall(r'pvmlab_http_request_seconds_bucket\{le="([^"]+)"\} (\d+)', text))
    # What the boot handler itself takes for an answer; a machine waits for those that came before it, too.
    slower = int(counted["+Inf"]) - int(counted[f"{P99:g}"])
    assert slower <= len(WIDTHS) * STORM / 100, text
    states = [
        document.loads(MachineStatus, path.read_bytes()).state for path in served.settings.status.glob("m*[0-9].json")
    ]
    assert states == [InstallState.BOOTING] * STORM


@pytest.fixture
def secretive(served: Served) -> tuple[Served, list[VmDefinition]]:
    """Machines with a secret each, that all have their boot scripts."""
    machines = [
        dataclasses.replace(
            each,
            ssh_host_key=SshHostKey(
                private=HOST_KEY.private.replace("THE-SECRET", f"SECRET-OF-{each.name}."),
                public=f"ssh-ed25519 AAAA {each.name}",
            ),
        )
        for each in served.define(MACHINES)
    ]
    for machine in machines:
        write_definition(served.settings.vms, machine)
    return served, machines


def test_no_machine_reads_what_is_anothers(secretive: tuple[Served, list[VmDefinition]]) -> None:
    served, machines = secretive
    tokens = {
        each.name: token_of(served.ask(f"/ipxe?mac={each.mac}", source=each.ip).text) for each in machines
    }  # fmt: skip
    secret, own, denied = re.compile(rb"SECRET-OF-(m\d+)\."), 0, 0
    for reader in machines:
        link = http.client.HTTPConnection(served.address, timeout=10, source_address=(reader.ip, 0))
        for owner in machines:
            token = tokens[owner.name]
            for path in ("config", *(f"cloud-init/{kind}" for kind in DOCUMENTS), "answers/user-data"):
                link.request("GET", f"/m/{token}/{path}")
                answer = link.getresponse()
                body = answer.read()
                found = set(secret.findall(body))
                if reader is owner:
                    own += len(found)
                    assert found <= {owner.name.encode()}
                else:
                    assert (answer.status, found) == (403, set())
                    denied += 1
            if reader is not owner:
                link.request("GET", f"/ipxe?mac={owner.mac}")
                script = link.getresponse().read()
                assert b"/m/" not in script
                link.request("POST", f"/m/{token}/report", body=DONE)
                answer = link.getresponse()
                answer.read()
                assert answer.status == 403
        link.close()
    assert own == MACHINES  # each has read its own: the test would notice
    assert denied == MACHINES * (MACHINES - 1) * (len(DOCUMENTS) + 2)
    log = served.log.read_text()
    assert "SECRET-OF" not in log
    assert not [token for token in tokens.values() if token in log]
    assert log.count("refused: ") >= denied


def state(served: Served, machine: VmDefinition) -> MachineStatus:
    wait_until_in_place(served.settings.status)
    return document.loads(MachineStatus, (served.settings.status / f"{machine.name}.json").read_bytes())


def test_what_the_services_say_is_in_the_timeline(served: Served) -> None:
    (machine,) = served.define(1)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for line in (
        "",
        f"dnsmasq-dhcp[7]: DHCPDISCOVER(lan0) {machine.mac} ",
        f"dnsmasq-dhcp[7]: DHCPACK(lan0) {machine.ip} {machine.mac} {machine.name}",
        f"dnsmasq-tftp[7]: sent /run/pvmlab/tftp/ipxe-x86_64.efi to {machine.ip}",
        "dnsmasq-dhcp[7]: DHCPACK(lan0) 127.0.200.1 52:54:00:99:99:99",
    ):
        link.sendto(line.encode(), str(served.settings.run.dnsmasq_log))
    link.close()
    served.ask("/boot.ipxe", source=machine.ip)
    served.ask(f"/ipxe?mac={machine.mac}", source=machine.ip)
    assert served.ask("/images/debian-12/x86_64/vmlinuz", source=machine.ip).status == 200
    assert served.ask("/images/debian-12/x86_64/nothing", source=machine.ip).status == 404
    menu = served.ask("/ipxe?mac=52:54:00:99:99:99", source="127.0.200.1").text
    assert "./pvmlab vm.adopt 52:54:00:99:99:99" in menu
    wanted = ["dhcp-discover", "dhcp-ack", "tftp-sent", "boot-chain", "http-file", "http-file-failed"]
    wait_for("all events", lambda: sorted(each["kind"] for each in served.events(machine)) == sorted(wanted))
    strangers = document.loads(Strangers, (served.settings.status / "_strangers.json").read_bytes()).strangers
    assert [(each.mac, each.address) for each in strangers] == [("52:54:00:99:99:99", "127.0.200.1")]


def test_an_adopted_machine_goes_on_within_seconds(served: Served) -> None:
    machine, begun = served.machine(3), time.monotonic()
    assert "vm.adopt" in served.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text
    write_definition(served.settings.vms, machine)
    script = served.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text
    assert "m3 installs debian-12" in script
    assert time.monotonic() - begun < 2.0
    wait_for("what was seen before is its own", lambda: "boot-menu" in str(served.events(machine)))


def test_an_order_is_carried_out_once(served: Served) -> None:
    (machine,) = served.define(1)
    ask = f"/ipxe?mac={machine.mac}"

    def install() -> None:
        token = token_of(served.ask(ask, source=machine.ip).text)
        assert served.ask(f"/m/{token}/report", method="POST", body=DONE, source=machine.ip).status == 200

    install()
    assert "boots from its disk" in served.ask(ask, source=machine.ip).text
    order = Order(id="00000000-0000-4000-8000-000000000001", kind=OrderKind.REINSTALL, uuid=machine.uuid, time=1.0)
    (served.settings.vms / f"{machine.name}.order").write_text(document.dumps(order))
    install()
    for _ in range(3):
        assert "boots from its disk" in served.ask(ask, source=machine.ip).text
    assert (state(served, machine).state, state(served, machine).installs) == (InstallState.INSTALLED, 2)


def test_readiness_names_what_is_missing(served: Served) -> None:
    answer = served.ask("/readyz")
    assert (answer.status, json.loads(answer.text)) == (503, {"ready": False, "problems": ["dnsmasq does not run"]})
    served.settings.vms.rename(served.settings.vms.with_name("away"))
    problems = json.loads(served.ask("/readyz").text)["problems"]
    assert [problem for problem in problems if "cannot read" in problem]
    assert served.ask("/healthz").status == 200


def test_a_broken_definition_is_told_to_the_host(served: Served) -> None:
    (machine,) = served.define(1)
    path = served.settings.vms / f"{machine.name}.json"
    path.write_text("{")
    faults = served.settings.status / "_faults.json"
    wait_for("it is told", lambda: machine.name in faults.read_text())
    assert "m0 installs" in served.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text  # the last good one
