from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import qmp

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
Script = Callable[[socket.socket], None]


@contextlib.contextmanager
def fake_qemu(path: Path, script: Script) -> Iterator[None]:
    """Listen at *path* and play *script* to the first client."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                script(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


def answers(*replies: bytes) -> Script:
    """Greet, accept the capabilities, then answer each command with the next reply."""

    def script(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        for reply in (b'{"return": {}}\n', *replies):
            assert connection.recv(65536)
            connection.sendall(reply)

    return script


def test_a_command_and_its_result(tmp_path: Path) -> None:
    heard: list[dict[str, object]] = []

    def script(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        for _ in range(2):
            heard.append(json.loads(connection.recv(65536)))
            connection.sendall(b'{"return": {"status": "running"}}\n')

    with fake_qemu(tmp_path / "q", script), qmp.connect(tmp_path / "q") as client:
        assert client.execute("query-x", {"id": "a"}) == {"status": "running"}
    numbers = [message.pop("id") for message in heard]
    assert heard == [{"execute": "qmp_capabilities"}, {"execute": "query-x", "arguments": {"id": "a"}}]
    assert numbers[0] != numbers[1]


def test_the_answer_to_a_client_before_us_is_not_ours(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        for answer in ({}, {"status": "running"}):
            number = json.loads(connection.recv(65536))["id"]
            for each in (
                {"return": {}, "id": number - 7},
                {"error": {"desc": "no"}, "id": 0},
                {"return": answer, "id": number},
            ):
                connection.sendall(json.dumps(each).encode() + b"\n")

    with fake_qemu(tmp_path / "q", script), qmp.connect(tmp_path / "q") as client:
        assert client.execute("query-x") == {"status": "running"}


def test_events_between_are_kept_and_results_may_come_in_pieces(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        answers()(connection)
        connection.recv(65536)
        for piece in (b'{"event": "RESET"}\n{"event": "ST', b'OP"}\n{"ret', b'urn": 7}\n'):
            connection.sendall(piece)
            time.sleep(0.02)

    with fake_qemu(tmp_path / "q", script), qmp.connect(tmp_path / "q") as client:
        assert client.execute("query-x") == 7
        assert [event["event"] for event in client.events] == ["RESET", "STOP"]


def test_a_refusal_is_an_error_with_qemus_words(tmp_path: Path) -> None:
    refusal = b'{"error": {"class": "CommandNotFound", "desc": "The command fly has not been found"}}\n'
    with (
        fake_qemu(tmp_path / "q", answers(refusal)),
        qmp.connect(tmp_path / "q") as client,
        pytest.raises(qmp.QmpError, match="QEMU refused fly") as caught,
    ):
        client.execute("fly")
    assert caught.value.details == "The command fly has not been found"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "hung up"),
        (b"no json\n", "Expecting value"),
        (b"[]\n", "not a JSON object"),
        (b"x" * 1_100_000, "too long"),
    ],
)
def test_nonsense_is_an_error(tmp_path: Path, reply: bytes, words: str) -> None:
    with (
        fake_qemu(tmp_path / "q", answers(reply)),
        qmp.connect(tmp_path / "q") as client,
        pytest.raises(qmp.QmpError, match="ended during query-x") as caught,
    ):
        client.execute("query-x")
    assert words in caught.value.details


def test_no_answer_ends_in_time(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        answers()(connection)
        connection.recv(65536)
        connection.recv(65536)  # until the client hangs up

    with fake_qemu(tmp_path / "q", script), qmp.connect(tmp_path / "q") as client:
        began = time.monotonic()
        with pytest.raises(qmp.QmpTimeoutError, match=r"did not answer query-x within 0\.2 s"):
            client.execute("query-x", timeout=0.2)
        assert time.monotonic() - began < 2


def test_endless_events_are_no_answer(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        answers()(connection)
        while True:
            connection.sendall(b'{"event": "RESET"}\n')
            time.sleep(0.01)

    with (
        fake_qemu(tmp_path / "q", script),
        qmp.connect(tmp_path / "q") as client,
        pytest.raises(qmp.QmpTimeoutError),
    ):
        client.execute("query-x", timeout=0.2)


def test_no_greeting_ends_in_time(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(1)

    with (
        fake_qemu(tmp_path / "q", script),
        pytest.raises(qmp.QmpTimeoutError),
        qmp.connect(tmp_path / "q", timeout=0.2),
    ):
        pass


def test_somebody_elses_socket(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(b'{"hello": "I am not QEMU"}\n')

    with fake_qemu(tmp_path / "q", script), pytest.raises(qmp.QmpError) as caught, qmp.connect(tmp_path / "q"):
        pass
    assert "not QEMU's greeting" in caught.value.details


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(qmp.QmpError, match="nothing answers"), qmp.connect(tmp_path / "q", timeout=0.1):
        pass


def test_a_socket_that_is_still_to_come_is_waited_for(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        answers(b'{"return": 1}\n')(connection)

    def appear() -> None:
        time.sleep(0.2)
        with fake_qemu(tmp_path / "q", script):
            pass

    thread = threading.Thread(target=appear)
    thread.start()
    with qmp.connect(tmp_path / "q") as client:
        assert client.execute("query-x") == 1
    thread.join()
