"""Host mode on a host where much happens: servers on the same ports, another lab, a reboot, parts that go away."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.names import PROVISIONER_NAME
from lab import provisioner, ssh
from lab.lab import Lab
from lab.machine import MachineState
from lab.network import SwitchNetwork
from lab.processes import ProcessRecord, write_record
from lab.provisioner import ProvisionerState
from tests.fakes.frames import FrameMachine
from tests.fakes.lab_files import make_machine, write_definition
from tests.fakes.web_client import wait_for
from tests.integration.host_mode.conftest import HostStack, made_host_lab, services_of, start_services

MACHINE = make_machine()


@pytest.fixture
def other_lab(tmp_path: Path) -> Iterator[Lab]:
    """A second lab in host mode, with the same network and a machine of the same name and MAC address."""
    with made_host_lab(tmp_path / "other") as lab:
        yield lab


def address_in(lab: Lab) -> str:
    """Return the address that the machine is offered on the lab's switch."""
    with contextlib.closing(FrameMachine(SwitchNetwork(lab.home.run).ensure_started(), MACHINE.mac)) as machine:
        return machine.discover(within=5).address


def test_two_labs_beside_servers_of_this_host(host_lab: Lab, other_lab: Lab) -> None:
    other = dataclasses.replace(MACHINE, ip="192.168.100.12")
    with contextlib.ExitStack() as undo:
        for kind, ports in ((socket.SOCK_DGRAM, (53, 67, 69)), (socket.SOCK_STREAM, (53, 80))):
            for port in ports:
                server = undo.enter_context(socket.socket(socket.AF_INET, kind))
                with contextlib.suppress(OSError):  # a server is there already: as good
                    server.bind(("0.0.0.0", port))  # noqa: S104 (that is the point)
        for lab, machine in ((host_lab, MACHINE), (other_lab, other)):
            write_definition(lab.home.vms, machine)
            start_services(lab)
        wait_for("the first knows its machine", lambda: address_in(host_lab) == MACHINE.ip)
        wait_for("the second knows its machine", lambda: address_in(other_lab) == other.ip)
        provisioner.stop(host_lab)
        assert address_in(other_lab) == other.ip
    assert (host_lab.provisioner.state(), other_lab.provisioner.state()) == (MachineState.OFF, MachineState.RUNNING)


def test_what_a_reboot_left_is_a_crash_and_the_next_start_works(host_lab: Lab) -> None:
    services = services_of(host_lab)
    # Files stay, processes do not; ours has the id by now that the services had.
    record = ProcessRecord(token=str(services.qmp_socket), pid=os.getpid(), start_time="1")
    write_record(host_lab.home.run / "provisioner.json", record)
    services.qmp_socket.touch()
    assert services.state() is MachineState.CRASHED
    start_services(host_lab)
    assert services.state() is MachineState.RUNNING


def test_services_whose_network_was_deleted_fail_and_say_so(host_lab: Lab) -> None:
    start_services(host_lab)
    for state in ("down", "up"):  # that alone changes nothing
        ssh.run_on(host_lab, PROVISIONER_NAME, ["ip", "link", "set", "relay0", state], timeout=20)
    wait_for("frames pass again", lambda: address_in(host_lab))
    ssh.run_on(host_lab, PROVISIONER_NAME, ["ip", "link", "delete", "lan0"], timeout=20)
    wait_for("all has ended", lambda: host_lab.provisioner.state() is MachineState.CRASHED)
    said = provisioner.find_announcement(host_lab)
    assert said is not None
    assert (said.state, said.message) == (ProvisionerState.FAILED, "the network card relay0 was deleted")
    start_services(host_lab)
    assert address_in(host_lab)


def test_services_killed_all_at_once_come_back(stack: HostStack) -> None:
    names = ("dnsmasq", "nginx", "boot_handler", "watcher", "health")
    before = {name: stack.find_pid(name) for name in names}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_for("all are started again", lambda: all(stack.find_pid(name) not in {0, before[name]} for name in names))
    wait_for("HTTP answers", lambda: answers(stack))
    write_definition(stack.settings.vms, MACHINE)
    wait_for("the machine is known", lambda: address_in(stack.lab) == MACHINE.ip)
    assert stack.lab.provisioner.state() is MachineState.RUNNING


def answers(stack: HostStack) -> bool:
    try:
        return stack.client.ask("/healthz").status == 200
    except OSError:
        return False
