from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from lab.switch import BUFFER_LIMIT, LONGEST_FRAME, TABLE_LIMIT, Port, Switch

BROADCAST = b"\xff" * 6
A, B, C = (bytes((0x52, 0x54, 0, 0, 0, last)) for last in (1, 2, 3))


def frame(destination: bytes, source: bytes, payload: bytes = b"") -> bytes:
    body = destination + source + b"\x88\xb5" + payload
    return struct.pack(">I", len(body)) + body


class Client:
    """A machine's end of a cable."""

    def __init__(self, switch: Switch) -> None:
        self.end, far = socket.socketpair()
        self.end.settimeout(0)
        self.port: Port = switch.add(far)

    def heard(self) -> bytes:
        data = b""
        try:
            while piece := self.end.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data


@pytest.fixture
def switch() -> Iterator[Switch]:
    switch = Switch()
    yield switch
    switch.close()


@pytest.fixture
def clients(switch: Switch) -> Iterator[list[Client]]:
    clients = [Client(switch) for _ in range(3)]
    yield clients
    for client in clients:
        client.end.close()


def say(switch: Switch, client: Client, data: bytes) -> None:
    client.end.sendall(data)
    switch.run_once(0)


def test_a_frame_to_nobody_known_goes_to_everybody_else(switch: Switch, clients: list[Client]) -> None:
    one, two, three = clients
    say(switch, one, frame(B, A, b"?"))
    assert (one.heard(), two.heard(), three.heard()) == (b"", frame(B, A, b"?"), frame(B, A, b"?"))


def test_a_frame_to_a_learned_address_goes_there_only(switch: Switch, clients: list[Client]) -> None:
    one, two, three = clients
    say(switch, two, frame(BROADCAST, B))
    assert three.heard() == one.heard() == frame(BROADCAST, B)
    say(switch, one, frame(B, A, b"!"))
    assert (two.heard(), three.heard()) == (frame(B, A, b"!"), b"")


def test_a_machine_may_move_to_another_port(switch: Switch, clients: list[Client]) -> None:
    one, two, three = clients
    say(switch, one, frame(BROADCAST, A))
    say(switch, two, frame(BROADCAST, A))
    two.heard()
    say(switch, three, frame(A, C, b"to A"))
    assert frame(A, C, b"to A") not in one.heard()
    assert two.heard() == frame(A, C, b"to A")


def test_a_frame_to_its_own_port_goes_nowhere(switch: Switch, clients: list[Client]) -> None:
    one, two, _ = clients
    say(switch, one, frame(BROADCAST, A))
    two.heard()
    say(switch, one, frame(A, A))
    assert (one.heard(), two.heard()) == (b"", b"")


def test_frames_in_pieces_are_put_together(switch: Switch, clients: list[Client]) -> None:
    one, two, _ = clients
    data = frame(BROADCAST, A, b"first") + frame(B, A, b"second") + frame(B, A, b"third")
    for position in range(len(data)):
        say(switch, one, data[position : position + 1])
    assert two.heard() == data


def test_a_burst_is_sorted_by_destination(switch: Switch, clients: list[Client]) -> None:
    one, two, three = clients
    say(switch, two, frame(BROADCAST, B))
    say(switch, three, frame(BROADCAST, C))
    for client in clients:
        client.heard()
    say(
        switch,
        one,
        frame(B, A, b"1") + frame(B, A, b"2") + frame(C, A, b"3") + frame(BROADCAST, A, b"4") + frame(B, A, b"5"),
    )
    assert two.heard() == frame(B, A, b"1") + frame(B, A, b"2") + frame(BROADCAST, A, b"4") + frame(B, A, b"5")
    assert three.heard() == frame(C, A, b"3") + frame(BROADCAST, A, b"4")


@pytest.mark.parametrize("length", [LONGEST_FRAME + 1, 0xFFFFFFFF])
def test_an_impossible_length_drops_the_port_and_no_other(switch: Switch, clients: list[Client], length: int) -> None:
    one, two, three = clients
    say(switch, one, frame(BROADCAST, A))
    say(switch, one, struct.pack(">I", length))
    assert one.port not in switch.ports
    assert A not in switch.table
    assert one.end.recv(1) == b""
    three.heard()
    say(switch, two, frame(BROADCAST, B, b"fine"))
    assert three.heard() == frame(BROADCAST, B, b"fine")


@pytest.mark.parametrize("length", range(14))
def test_a_frame_without_a_whole_header_is_discarded(switch: Switch, clients: list[Client], length: int) -> None:
    one, two, _ = clients
    say(switch, one, struct.pack(">I", length) + b"x" * length + frame(BROADCAST, A, b"next"))
    assert two.heard() == frame(BROADCAST, A, b"next")
    assert switch.table == {A: one.port}


def test_the_longest_frame_passes(switch: Switch, clients: list[Client]) -> None:
    one, two, _ = clients
    longest = frame(BROADCAST, A, b"x" * (LONGEST_FRAME - 14))
    one.end.settimeout(5)
    say(switch, one, longest)
    assert two.heard() == longest


def test_what_a_slow_port_does_not_take_is_bounded_and_whole_frames(switch: Switch, clients: list[Client]) -> None:
    one, slow, quick = clients
    one.end.settimeout(5)
    burst = frame(BROADCAST, A, b"x" * 1500) * 30
    for _ in range(2 * BUFFER_LIMIT // len(burst)):
        say(switch, one, burst)
        assert quick.heard() == burst
    assert slow.port.dropped > 0
    assert len(slow.port.outgoing) <= BUFFER_LIMIT
    data = slow.heard()
    while slow.port.outgoing:
        switch.run_once(0)
        data += slow.heard()
    assert len(data) % len(frame(BROADCAST, A, b"x" * 1500)) == 0
    assert data == frame(BROADCAST, A, b"x" * 1500) * (len(data) // len(frame(BROADCAST, A, b"x" * 1500)))
    assert switch._selector.get_key(slow.port.connection).events == 1  # no longer asks to write: no busy loop


def test_a_port_that_hangs_up_is_forgotten(switch: Switch, clients: list[Client]) -> None:
    one, two, three = clients
    say(switch, one, frame(BROADCAST, A))
    one.end.close()
    switch.run_once(0)
    assert one.port not in switch.ports
    assert switch.table == {}
    two.heard()
    say(switch, three, frame(A, C, b"flooded again"))
    assert two.heard() == frame(A, C, b"flooded again")


def test_addresses_remembered_are_bounded(switch: Switch, clients: list[Client]) -> None:
    one, two, _ = clients
    for number in range(TABLE_LIMIT + 10):
        say(switch, one, frame(BROADCAST, b"\x02\x00" + number.to_bytes(4, "big")))
        for client in clients[1:]:
            client.heard()
    assert len(switch.table) == TABLE_LIMIT
    say(switch, two, frame(b"\x02\x00" + (TABLE_LIMIT + 5).to_bytes(4, "big"), B, b"still reached"))
    assert one.heard() == frame(b"\x02\x00" + (TABLE_LIMIT + 5).to_bytes(4, "big"), B, b"still reached")


def test_a_multicast_source_is_not_learned(switch: Switch, clients: list[Client]) -> None:
    say(switch, clients[0], frame(BROADCAST, BROADCAST))
    assert switch.table == {}


def test_it_counts_what_goes_in_and_out_and_what_is_lost(switch: Switch, clients: list[Client]) -> None:
    one, two, _ = clients
    said = frame(B, A, b"?" * 50)
    say(switch, one, said)
    assert (one.port.received, one.port.sent, two.port.sent) == (len(said), 0, len(said))
    told = {tuple(port["addresses"]): port for port in switch.describe()["ports"]}
    assert told[A.hex(":"),]["received"] == len(said)
    assert told[()] == {"pid": told[()]["pid"], "addresses": [], "received": 0, "sent": len(said), "dropped": 0}
    assert one.port.find_pid() == os.getpid()
    big = frame(B, A, b"x" * LONGEST_FRAME)[: 4 + LONGEST_FRAME]
    big = struct.pack(">I", LONGEST_FRAME) + big[4:]
    while two.port.dropped == 0:
        switch._queue(two.port, big)
    assert two.port.dropped == len(big)
