"""More tests of the services, once more in host mode; and many machines at once, through the lab's switch."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path

import pytest

from contracts import document
from contracts.lan import Lan
from contracts.machine import VmDefinition
from lab.lab import Lab
from pipeline.run import run
from tests.fakes import dhcp_storm, networks
from tests.fakes.lab_files import make_machine, write_definition
from tests.fakes.namespaces import CLIENT, Inside
from tests.fakes.web_client import wait_for
from tests.integration.host_mode.conftest import services_of, start_services
from tests.integration.pxeboot_stack.test_timeline import *  # noqa: F403 (all of them, also those of tomorrow)

pytestmark = pytest.mark.nightly  # what they test is the same code as there
WIDE = Lan(subnet="10.20.0.0/20")


def start_wide(lab: Lab, client: Inside, count: int) -> list[VmDefinition]:
    """Start the services in a large network with *count* machines; return these."""
    (lab.home.config / "lab.json").write_text(document.dumps(WIDE))
    machines = [
        make_machine(
            name=f"m{number}", mac=dhcp_storm.mac_of(number, "52:54:00"), ip=networks.address_at(WIDE, 2 + number),
            uuid=str(uuid.UUID(int=number + 1)),
        )
        for number in range(count)
    ]  # fmt: skip
    for machine in machines:
        write_definition(lab.home.vms, machine)
    start_services(lab)
    client.call(run, ["ip", "address", "add", f"{WIDE.network[-2]}/20", "dev", CLIENT], timeout=10)
    inner = services_of(lab).require_inner_pid()
    hosts = Path(f"/proc/{inner}/root/mnt/run/dhcp-hosts")
    wait_for("all are known", lambda: len(hosts.read_text().splitlines()) >= count)
    return machines


def served(client: Inside, machines: list[VmDefinition], *, spread: float = 0.0) -> dict[str, str]:
    """Return what addresses the machines got within five seconds."""
    clients = [dhcp_storm.Client(machine.mac) for machine in machines]
    client.call(dhcp_storm.exchange, CLIENT, clients, seconds=5, spread=spread)
    return {each.mac: each.lease.address for each in clients if each.lease}


def test_a_thousand_machines_get_their_addresses_within_five_seconds(host_lab: Lab, client: Inside) -> None:
    machines = start_wide(host_lab, client, 1000)
    assert served(client, machines, spread=1.0) == {machine.mac: machine.ip for machine in machines}


def test_five_thousand_strangers_do_not_keep_known_machines_waiting(host_lab: Lab, client: networks.Inside) -> None:
    machines = start_wide(host_lab, client, 20)
    strangers = [dhcp_storm.mac_of(number) for number in range(5000)]
    stop = threading.Event()
    # Each asks every other second: the wire of this test, three processes, takes the processor from the services.
    flood = client.start(dhcp_storm.flood, CLIENT, strangers, stop, rate=2500)
    try:
        for _ in range(2):
            time.sleep(1)
            assert served(client, machines) == {machine.mac: machine.ip for machine in machines}
    finally:
        stop.set()
    assert flood.result(timeout=10) > 2500
    assert "no address available" in host_lab.provisioner.logs.serial.read_text()  # the pool was full: it was a flood
