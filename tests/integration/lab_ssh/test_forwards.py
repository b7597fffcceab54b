"""Forwarded ports of a machine, which is an SSH server of this host; its QEMU is a stand-in process."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.machine import PortForward
from contracts.names import PROVISIONER_NAME
from lab import addresses, forward_process, forwarder, forwards, processes
from lab.lab import Lab
from lab.machine import Machine
from lab.processes import ProcessRecord
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, NotFoundError, UsageError
from tests.integration.lab_ssh.conftest import TARGET_IP, MarkRunning, StartServer

LIMIT = 30.0  # seconds


@pytest.fixture
def machine(lab: Lab, mark_running: MarkRunning) -> Iterator[Machine]:
    """A machine with a process, and a provisioner that counts as running."""
    mark_running(PROVISIONER_NAME)
    machine = lab.machine("web1")
    (lab.home.logs).mkdir(exist_ok=True)
    with (lab.home.logs / "sleep.log").open("ab") as log:
        record = lab.home.run / "web1.json"
        processes.spawn_recorded(record, ProcessRecord(token="987654"), ["sleep", "987654"], cwd=lab.home.run, log=log)
    yield machine
    machine.kill()
    assert not forward_process.is_running(lab.home, "web1")


@pytest.fixture
def servers(start_server: StartServer, lab: Lab, provisioner_port: int, provisioner_key: str) -> Callable[[], None]:
    """Start the provisioner's and the machine's SSH servers."""

    def start() -> None:
        start_server("127.0.0.1", provisioner_port, provisioner_key)
        start_server(TARGET_IP, 22, DefinitionStore(lab).load("web1").ssh_host_key.private)

    return start


@pytest.fixture
def service() -> Iterator[int]:
    """A service of the machine: says who it is. Return its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.sendall(b"this is web1\n")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def state_of(lab: Lab, port: int) -> str:
    views = forwards.view(lab, DefinitionStore(lab).load("web1"))
    return next(view.state for view in views if view.host == port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        return client.recv(100)


def our_ssh(lab: Lab) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"-L\0" in (text := path.read_bytes()) and str(lab.home.root).encode() in text:
                found.append(int(path.parent.name))
    return found


def test_a_port_leads_to_the_machine_until_that_ends(
    lab: Lab, machine: Machine, servers: Callable[[], None], service: int
) -> None:
    port, other = free_port(), 0
    forwards.add(lab, "web1", PortForward(host=port, guest=service))
    forwards.add(lab, "web1", PortForward(host=port, guest=service))  # again is fine
    wait_for("the reason", lambda: state_of(lab, port).startswith("waits: "))  # nobody answers by SSH yet
    servers()
    wait_for("open", lambda: state_of(lab, port) == "open")
    assert ask(port) == b"this is web1\n"

    other = free_port()
    forwards.add(lab, "web1", PortForward(host=other, guest=service))
    wait_for("the second one", lambda: state_of(lab, other) == "open")
    assert (ask(other), ask(port)) == (b"this is web1\n", b"this is web1\n")
    forwards.remove(lab, "web1", port)
    wait_for("the first one is closed", lambda: addresses.is_free(port))
    assert ask(other) == b"this is web1\n"

    for pid in our_ssh(lab):  # the connection is lost, as by a reboot of the machine
        os.kill(pid, signal.SIGKILL)
    wait_for("open again", lambda: state_of(lab, other) == "open" and not addresses.is_free(other))

    machine.kill()
    wait_for("all closed", lambda: addresses.is_free(other) and not our_ssh(lab))
    assert state_of(lab, other) == "off"
    assert not list(lab.home.run.glob("_forwards-web1.state"))


def test_the_end_of_the_machine_alone_ends_it(
    lab: Lab, machine: Machine, servers: Callable[[], None], service: int
) -> None:
    servers()
    port = free_port()
    forwards.add(lab, "web1", PortForward(host=port, guest=service))
    wait_for("open", lambda: state_of(lab, port) == "open")
    record = machine.process()
    assert record is not None
    assert record.pid is not None
    os.kill(record.pid, signal.SIGKILL)  # and no command of ours looks
    wait_for("all closed", lambda: addresses.is_free(port) and not our_ssh(lab))


def test_a_killed_forwarder_leaves_no_ssh(
    lab: Lab, machine: Machine, servers: Callable[[], None], service: int
) -> None:
    assert machine.process() is not None
    servers()
    port = free_port()
    forwards.add(lab, "web1", PortForward(host=port, guest=service))
    wait_for("open", lambda: state_of(lab, port) == "open")
    record = json.loads((lab.home.run / "_forwards-web1.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    wait_for("no ssh", lambda: not our_ssh(lab))
    forwards.ensure(lab, DefinitionStore(lab).load("web1"))
    wait_for("open again", lambda: state_of(lab, port) == "open")


def test_ports_that_are_taken_are_refused(lab: Lab, provisioner_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=f"port {port} of 127.0.0.1 is taken by another program"):
            forwards.add(lab, "web1", PortForward(host=port, guest=80))
    forwards.add(lab, "web1", PortForward(host=port, guest=80))
    assert state_of(lab, port) == "off"
    with pytest.raises(ConflictError, match=f"port {port} of this host leads to port 80 of web1 already"):
        forwards.add(lab, "web1", PortForward(host=port, guest=81))
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
    with pytest.raises(ConflictError, match=f"port {free} of this host leads to port 90 of web1 already"):
        forwards.add(lab, "web1", PortForward(host=free, guest=90), PortForward(host=free, guest=91))
    assert [each.host for each in DefinitionStore(lab).load("web1").forwards] == [port]  # all, or none
    with pytest.raises(UsageError, match="port 80 of this host is for its administrator"):
        forwards.add(lab, "web1", PortForward(host=80, guest=80))
    with pytest.raises(ConflictError, match=f"port {provisioner_port} of this host leads to the provisioner's SSH"):
        forwards.add(lab, "web1", PortForward(host=provisioner_port, guest=80))
    with pytest.raises(NotFoundError, match="port 1 of this host does not lead to web1"):
        forwards.remove(lab, "web1", 1)
    with pytest.raises(NotFoundError):
        forwards.add(lab, "nope", PortForward(host=port, guest=80))


@pytest.mark.parametrize("text", ["", "x", "80:", "80:x", ":80", "0:1", "70000", "1:2:3", "٣"])
def test_what_is_no_forward_is_refused(text: str) -> None:
    if text == "80:":
        assert forwards.parse_forward(text) == PortForward(host=80, guest=80)
        return
    with pytest.raises(UsageError, match="is no forward"):
        forwards.parse_forward(text)


def test_a_broken_definition_beside_it_keeps_no_port_closed(lab: Lab) -> None:
    (lab.home.vms / "broken.json").write_text("{}")
    port = free_port()
    forwards.add(lab, "web1", PortForward(host=port, guest=80))
    assert [forward.host for forward in DefinitionStore(lab).load("web1").forwards] == [port]


def test_an_ssh_that_complains_much_goes_on(lab: Lab) -> None:
    forward = forwarder._Forward(lab, "web1", PortForward(host=free_port(), guest=80))
    forward._argv = ["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x >&2; echo ready; exec cat"]
    try:

        def opens() -> bool:
            forward.look()
            return forward.state == "open"

        wait_for("the port", opens)
    finally:
        forward.end()


def test_a_full_disk_closes_no_port(lab: Lab, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards_of_web1 = (PortForward(host=free_port(), guest=80),)
    store = DefinitionStore(lab)
    store.rewrite(dataclasses.replace(store.load("web1"), forwards=forwards_of_web1))
    told: list[str] = []

    def full(_path: Path, text: str, *, mode: int) -> None:
        told.append(text)
        if len(told) < 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        machine.kill()  # the end of it

    monkeypatch.setattr("pipeline.commit.publish_text", full)
    forwarder.serve(lab, "web1", lab.home.run / "_forwards-web1.state")
    assert len(told) == 2
