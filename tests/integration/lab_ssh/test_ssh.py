"""The lab's SSH against real servers: words survive, exit codes pass, impostors are refused."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import ssh
from lab.follow import _NOT_YET, _PORT_LOOP
from lab.keys import make_key
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.errors import CommandError
from pipeline.run import run

TARGET_IP = "127.77.0.2"
MUTE_IP = "127.77.0.3"
TRICKY = ("a  b", "it's", '"quoted"', "$HOME `id` $(id)", "back\\slash", "two\nlines", "*", "", "grüß", "--", "-x")

StartServer = Callable[..., None]


@pytest.fixture
def both(lab: Lab, start_server: StartServer, provisioner_port: int, provisioner_key: str) -> Lab:
    """The lab with both servers, each with the host key the lab gave it."""
    start_server("127.0.0.1", provisioner_port, provisioner_key)
    start_server(TARGET_IP, 22, DefinitionStore(lab).load("web1").ssh_host_key.private)
    return lab


@pytest.mark.parametrize("name", ["provisioner", "web1"])
def test_words_survive_the_way(both: Lab, name: str) -> None:
    done = ssh.run_on(both, name, ["printf", "%s\\0", *TRICKY], timeout=30)
    assert tuple(done.stdout.split("\0")[:-1]) == TRICKY


def test_exit_code_is_passed_on_and_raised(both: Lab) -> None:
    assert ssh.run_on(both, "web1", ["sh", "-c", "exit 7"], timeout=30, check=False).returncode == 7
    with pytest.raises(CommandError) as caught:
        ssh.run_on(both, "web1", ["sh", "-c", "echo why >&2; exit 7"], timeout=30)
    assert (caught.value.returncode, caught.value.tail) == (7, ("why",))


def test_shell_passes_output_errors_and_exit_code(both: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    assert ssh.shell(both, "web1", "echo out; echo 'a  b' >&2; exit 42") == 42
    assert capfd.readouterr() == ("out\n", "a  b\n")


def test_target_is_reached_through_the_provisioner_only(
    lab: Lab, start_server: StartServer, provisioner_port: int, provisioner_key: str
) -> None:
    start_server(TARGET_IP, 22, DefinitionStore(lab).load("web1").ssh_host_key.private)
    assert ssh.run_on(lab, "web1", ["true"], timeout=30, check=False).returncode == 255
    start_server("127.0.0.1", provisioner_port, provisioner_key)
    assert ssh.run_on(lab, "web1", ["true"], timeout=30, check=False).returncode == 0


def test_configuration_is_for_people_too(both: Lab) -> None:
    done = run(["ssh", "-F", ssh.config_path(both), "web1", "echo $((6 * 7))"], timeout=30)
    assert done.stdout == "42\n"


def test_impostor_of_the_provisioner_is_refused(
    lab: Lab, start_server: StartServer, provisioner_port: int, tmp_path: Path
) -> None:
    start_server("127.0.0.1", provisioner_port, make_key("impostor", scratch=tmp_path / "keys").private)
    done = ssh.run_on(lab, "provisioner", ["true"], timeout=30, check=False)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_impostor_of_a_target_is_refused(
    lab: Lab, start_server: StartServer, provisioner_port: int, provisioner_key: str
) -> None:
    start_server("127.0.0.1", provisioner_port, provisioner_key)
    start_server(TARGET_IP, 22, provisioner_key)  # a known key, but of another machine
    done = ssh.run_on(lab, "web1", ["true"], timeout=30, check=False)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_host_key_is_never_learned(lab: Lab, start_server: StartServer, provisioner_port: int, tmp_path: Path) -> None:
    before = (lab.home.ssh / "known_hosts").read_bytes()
    start_server("127.0.0.1", provisioner_port, make_key("impostor", scratch=tmp_path / "keys").private)
    ssh.run_on(lab, "provisioner", ["true"], timeout=30, check=False)
    assert (lab.home.ssh / "known_hosts").read_bytes() == before


def test_other_keys_than_the_labs_do_not_open(both: Lab, tmp_path: Path) -> None:
    key = make_key("stranger", scratch=tmp_path / "keys")
    (both.home.ssh / "id_ed25519").write_text(key.private)
    (both.home.ssh / "id_ed25519.pub").write_text(key.public)
    done = ssh.run_on(both, "provisioner", ["true"], timeout=30, check=False)
    assert done.returncode == 255
    assert "Permission denied" in done.stderr


def test_port_loop_sees_an_ssh_server(both: Lab) -> None:
    ssh.run_on(both, "provisioner", ["bash", "-c", _PORT_LOOP, "wait", TARGET_IP, "5"], timeout=30)


def test_port_loop_is_not_fooled_by_an_open_port(both: Lab) -> None:
    with _mute_server():
        done = ssh.run_on(
            both, "provisioner", ["bash", "-c", _PORT_LOOP, "wait", MUTE_IP, "1"], timeout=30, check=False
        )
    assert done.returncode == _NOT_YET


@contextlib.contextmanager
def _mute_server() -> Iterator[None]:
    """Have a server on port 22 of another address that takes connections and says nothing."""
    with socket.create_server((MUTE_IP, 22)):
        yield
