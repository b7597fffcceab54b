"""The guest agent's client, against agents that are there, are not, or misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import guest_agent
from lab.guest_agent import AgentError, connect, shut_down

Script = Callable[[socket.socket], None]


@contextlib.contextmanager
def channel(path: Path, script: Script) -> Iterator[None]:
    """Have *script* be what is behind the channel at *path*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                script(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


class Agent:
    """An agent as qemu-ga is: answers what it knows, delimits what it is asked to."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.heard: list[dict[str, object]] = []
        self._answers = answers

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(b'{"return": 4711}\n')  # to somebody before us
        data = b""
        while more := connection.recv(65536):
            data += more.replace(b"\xff", b"")
            *lines, data = data.split(b"\n")
            for line in lines:
                request = json.loads(line)
                self.heard.append(request)
                if request["execute"] == "guest-sync-delimited":
                    connection.sendall(b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n")
                elif request["execute"] in self._answers:
                    connection.sendall(json.dumps(self._answers[request["execute"]]).encode() + b"\n")


def test_a_command_and_its_answer(tmp_path: Path) -> None:
    agent = Agent({"guest-x": {"return": [1]}, "guest-bad": {"error": {"desc": "not here"}}})
    with channel(tmp_path / "a", agent), connect(tmp_path / "a") as client:
        assert client.execute("guest-x", {"deep": True}) == [1]
        with pytest.raises(AgentError, match="not here"):
            client.execute("guest-bad")
    assert [request["execute"] for request in agent.heard] == ["guest-sync-delimited", "guest-x", "guest-bad"]


def test_a_system_is_shut_down_only_by_an_agent_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent({})
    with channel(tmp_path / "a", agent):
        assert shut_down(tmp_path / "a")
    assert agent.heard[-1] == {"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}}

    monkeypatch.setattr(guest_agent, "_ANSWER", 0.1)
    heard: list[bytes] = []

    def silent(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            heard.append(data)

    with channel(tmp_path / "b", silent):
        assert not shut_down(tmp_path / "b")
    assert b"guest-shutdown" not in b"".join(heard)


def test_an_agent_that_may_not_shut_down_leaves_that_to_the_power_button(tmp_path: Path) -> None:
    refusal = {"error": {"desc": "Command guest-shutdown has been disabled"}}  # qemu-ga's words
    agent = Agent({"guest-shutdown": refusal})
    with channel(tmp_path / "a", agent):
        assert not shut_down(tmp_path / "a")


def test_no_channel_is_no_agent(tmp_path: Path) -> None:
    assert not shut_down(tmp_path / "nobody")
    with pytest.raises(AgentError, match="there is no channel"), connect(tmp_path / "nobody"):
        pass


@pytest.mark.parametrize("noise", [b"", b"not json\n" * 3, b"[]\n", b"x" * (guest_agent._LONGEST + 1)])
def test_noise_is_no_agent(tmp_path: Path, noise: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "_ANSWER", 0.3)
    with (
        channel(tmp_path / "a", lambda connection: connection.sendall(noise)),
        pytest.raises(AgentError),
        connect(tmp_path / "a"),
    ):
        pass
