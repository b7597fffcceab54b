from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import signal
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import processes
from lab.garbage import find_lost_processes
from lab.network import SwitchNetwork
from pipeline.errors import PvmlabError
from pipeline.workspace import Home
from tests.integration.lab.conftest import MakeMachine

BROADCAST = b"\xff" * 6
ONE, TWO = b"\x52\x54\x00\x00\x00\x01", b"\x52\x54\x00\x00\x00\x02"


@contextlib.contextmanager
def client(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        yield connection


def frame(destination: bytes, source: bytes, payload: bytes = b"") -> bytes:
    body = destination + source + b"\x88\xb5" + payload
    return struct.pack(">I", len(body)) + body


def receive_frame(connection: socket.socket) -> bytes:
    (length,) = struct.unpack(">I", receive(connection, 4))
    return receive(connection, length)


def receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data)) or pytest.fail("the switch hung up")
    return data


def test_clients_of_the_real_switch_hear_each_other(network: SwitchNetwork) -> None:
    path = network.ensure_started()
    assert network.is_running()
    assert path.stat().st_mode & 0o777 == 0o600
    with client(path) as one, client(path) as two:
        two.sendall(frame(BROADCAST, TWO, b"who is there"))
        assert receive_frame(one).endswith(b"who is there")
        one.sendall(frame(TWO, ONE, b"me"))
        assert receive_frame(two).endswith(b"me")


def test_a_second_start_keeps_the_first_switch(network: SwitchNetwork, home: Home) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: SwitchNetwork(home.run).ensure_started(), range(4)))
    assert paths == {network.socket}
    record = processes.find_record(home.run / "_switch.json")
    assert network.ensure_started() == network.socket
    assert processes.find_record(home.run / "_switch.json") == record


def test_stop_leaves_nothing_and_may_be_repeated(network: SwitchNetwork, home: Home) -> None:
    network.ensure_started()
    record = processes.find_record(home.run / "_switch.json")
    assert record is not None
    network.stop()
    network.stop()
    assert not network.is_running()
    assert not processes.is_alive(record)
    assert {path.name for path in home.run.iterdir()} == {"_switch.lock", "_switch.log"}


def test_stop_of_a_network_that_never_was(network: SwitchNetwork, home: Home) -> None:
    network.stop()
    assert not home.run.exists()


def test_a_killed_switch_is_started_again(network: SwitchNetwork, home: Home) -> None:
    network.ensure_started()
    record = processes.find_record(home.run / "_switch.json")
    assert record is not None
    assert processes.send_signal(record, signal.SIGKILL)
    assert processes.wait_for_end(record, timeout=5)
    assert not network.is_running()
    with client(network.ensure_started()):
        assert network.is_running()


def test_a_switch_that_cannot_listen_says_why(network: SwitchNetwork, home: Home) -> None:
    home.run.mkdir(parents=True)
    network.socket.with_suffix(".new").mkdir()  # stands where the socket is to be made
    with pytest.raises(PvmlabError, match="did not start") as caught:
        network.ensure_started()
    assert "_switch.new" in caught.value.details
    assert not network.is_running()


def test_a_lost_socket_is_told_and_machines_keep_their_network(network: SwitchNetwork) -> None:
    path = network.ensure_started()
    with client(path) as one, client(path) as two:
        path.unlink()
        with pytest.raises(PvmlabError, match=r"socket .* is gone"):
            network.ensure_started()
        one.sendall(frame(BROADCAST, ONE, b"still here"))
        assert receive_frame(two).endswith(b"still here")


def test_a_port_that_talks_nonsense_is_dropped_alone(network: SwitchNetwork) -> None:
    path = network.ensure_started()
    with client(path) as bad, client(path) as one, client(path) as two:
        bad.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert bad.recv(1) == b""
        one.sendall(frame(BROADCAST, ONE, b"fine"))
        assert receive_frame(two).endswith(b"fine")


def test_a_port_that_does_not_read_holds_nobody_up(network: SwitchNetwork, home: Home) -> None:
    path = network.ensure_started()
    big = frame(BROADCAST, ONE, os.urandom(1400)) * 100
    with client(path) as one, client(path), client(path) as two:  # the one in the middle never reads
        for _ in range(100):  # 14 MB
            one.sendall(big)
            for _ in range(100):
                receive_frame(two)
    record = processes.find_record(home.run / "_switch.json")
    assert record is not None
    resident = Path(f"/proc/{record.pid}/statm").read_text().split()[1]
    assert int(resident) * os.sysconf("SC_PAGE_SIZE") < 64 << 20


@pytest.mark.vm
def test_the_firmware_asks_for_a_network_boot(make_machine: MakeMachine, network: SwitchNetwork) -> None:
    """A disk that is empty, a card that boots: UEFI sends DHCP DISCOVER, which any port of the switch hears."""
    machine, spec = make_machine("web1")
    with client(network.ensure_started()) as port:
        machine.start(spec)
        mac = bytes.fromhex(spec.lan.mac.replace(":", ""))
        discover = wait_for_discover(port, seconds=40)
    assert discover[6:12] == mac
    options = dhcp_options(discover)
    assert options[53] == b"\x01"
    assert options[93] == b"\x00\x07"
    assert options[60].startswith(b"PXEClient:Arch:00007")
    assert options[97] == b"\x00" + uuid_as_smbios(spec.uuid)


@pytest.mark.vm
def test_two_machines_share_one_network(make_machine: MakeMachine, network: SwitchNetwork) -> None:
    """Both are heard by a third port, one after the other has been killed: the switch outlives its machines."""
    with client(network.ensure_started()) as port:
        heard = []
        for name in ("web1", "web2"):
            machine, spec = make_machine(name)
            machine.start(spec)
            heard.append((wait_for_discover(port, seconds=40)[6:12].hex(":"), spec.lan.mac))
            machine.kill()
    assert [mac for mac, _ in heard] == [mac for _, mac in heard]
    assert len(set(heard)) == 2


def wait_for_discover(port: socket.socket, *, seconds: float) -> bytes:
    """Return the first frame to UDP port 67."""
    deadline = time.monotonic() + seconds
    seen = 0
    while time.monotonic() < deadline:
        port.settimeout(max(deadline - time.monotonic(), 0.1))
        try:
            body = receive_frame(port)
        except TimeoutError:
            break
        seen += 1
        if body[12:14] == b"\x08\x00" and body[23] == 17 and body[36:38] == b"\x00\x43":
            return body
    raise AssertionError(f"no DHCP DISCOVER within {seconds} s, {seen} other frames")


def dhcp_options(discover: bytes) -> dict[int, bytes]:
    data = discover[14 + 20 + 8 + 236 + 4 :]  # Ethernet, IP, UDP, BOOTP, magic cookie
    options: dict[int, bytes] = {}
    while data and data[0] != 255:
        if data[0] == 0:
            data = data[1:]
            continue
        options[data[0]] = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return options


def uuid_as_smbios(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


def test_the_switch_tells_who_is_on_it(network: SwitchNetwork) -> None:
    path = network.ensure_started()
    with client(path) as one, client(path) as two:
        one.sendall(frame(BROADCAST, ONE, b"me"))
        receive_frame(two)
        ports = {port.addresses: port for port in network.ports()}
        assert set(ports) == {(ONE.hex(":"),), ()}
        assert {port.pid for port in ports.values()} == {os.getpid()}
        assert ports[ONE.hex(":"),].received == ports[()].sent == 4 + 14 + 2
    assert network.leftovers() == []


def test_what_a_killed_switch_leaves_is_told(network: SwitchNetwork, home: Home) -> None:
    path = network.ensure_started()
    record = processes.find_record(home.run / "_switch.json")
    assert record is not None
    assert processes.send_signal(record, signal.SIGKILL)
    assert processes.wait_for_end(record, timeout=5)
    assert network.ports() == []
    assert network.leftovers() == [str(path), str(path.with_suffix(".ask"))]
    network.stop()
    assert network.leftovers() == []


def test_a_switch_whose_lab_is_gone_is_found(network: SwitchNetwork, home: Home) -> None:
    network.ensure_started()
    record = processes.find_record(home.run / "_switch.json")
    assert record is not None
    assert record.pid is not None
    assert (record.pid, "switch") not in find_lost_processes()
    shutil.rmtree(home.root)
    assert (record.pid, "switch") in find_lost_processes()
    assert processes.end_process(record)
