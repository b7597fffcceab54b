"""Living with an installed machine: copies, commands, a forwarded port, a picture, a snapshot, a clone."""

from __future__ import annotations

import json
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.e2e.command_line import UP_TIMEOUT, CommandLine

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]
TARGET = "target1"  # the session's machine: a first test file may have installed it
CLONE = "clone1"  # not a longer name: its file system was not unmounted when the snapshot was taken
LIMIT = 90.0  # seconds for a port to be open


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_the_machine_is_up(lab: CommandLine) -> None:
    lab("up", timeout=UP_TIMEOUT)
    seen = json.loads(lab("vm.show", TARGET, "--output", "json").stdout)
    assert (seen["state"], seen["install"]["state"]) == ("running", "installed")
    assert "PRIVATE KEY" not in json.dumps(seen)


def test_files_go_there_and_come_back(lab: CommandLine, tmp_path: Path) -> None:
    tree = tmp_path / "a tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below" / "it's").write_bytes(b"\0content")
    lab("vm.copy", str(tree), f"{TARGET}:/tmp/tree", "--recursive")
    assert lab.on(TARGET, "cat", "/tmp/tree/below/it's") == "\0content"
    lab("vm.copy", f"{TARGET}:/tmp/tree", str(tmp_path / "back"), "--recursive")
    assert (tmp_path / "back/below/it's").read_bytes() == b"\0content"
    assert lab("vm.copy", f"{TARGET}:/nope", str(tmp_path), check=False).returncode == 1


def test_a_command_runs_on_all_of_them(lab: CommandLine) -> None:
    done = lab("vm.run", "--all", "provisioner", "--", "true", check=False)
    assert done.returncode == 2  # either all, or those that are named
    done = lab("vm.run", TARGET, "provisioner", "--output", "json", "--", "hostname; echo oops >&2")
    machines = json.loads(done.stdout)["machines"]
    assert [(each["name"], each["exit_status"], each["stderr"]) for each in machines] == [
        (TARGET, 0, "oops\n"), ("provisioner", 0, "oops\n"),
    ]  # fmt: skip
    assert machines[0]["stdout"] == f"{TARGET}\n"


def test_a_port_leads_to_the_machine(lab: CommandLine) -> None:
    port, deadline = free_port(), time.monotonic() + LIMIT
    lab("vm.forward", TARGET, f"{port}:22")
    while json.loads(lab("vm.forward", TARGET, "--output", "json").stdout)["forwards"][0]["state"] != "open":
        assert time.monotonic() < deadline
        time.sleep(1)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        assert client.recv(100).startswith(b"SSH-2.0-")
    lab("vm.forward", TARGET, "--remove", str(port))


def test_its_screen_is_a_picture(lab: CommandLine, tmp_path: Path) -> None:
    lab("vm.screenshot", TARGET, "--file", str(tmp_path / "target.png"))
    data = (tmp_path / "target.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack_from(">II", data, 16)[0] >= 640


def test_what_was_done_since_a_snapshot_is_gone_and_its_clone_is_a_machine_of_its_own(lab: CommandLine) -> None:
    lab.on(TARGET, "sh", "-c", "sudo touch /before && sync")
    lab("vm.snapshot", TARGET, "before", "--disk-only")
    lab.on(TARGET, "sh", "-c", "sudo touch /after && sudo rm /before && sync")
    identity = lab.on(TARGET, "cat", "/etc/machine-id")
    lab("vm.restore", TARGET, "before", "--yes")
    lab("vm.clone", TARGET, CLONE)

    lab("vm.start", CLONE, "--wait", timeout=UP_TIMEOUT)

    assert lab.on(CLONE, "hostname") == CLONE
    assert lab.on(CLONE, "sh", "-c", "ls /before /after 2>/dev/null", check=False) == "/before"
    assert lab.on(CLONE, "cat", "/etc/machine-id") not in {identity, ""}
    clone = json.loads(lab("vm.show", CLONE, "--output", "json").stdout)
    assert clone["definition"]["ip"] in lab.on(CLONE, "hostname", "-I").split()
    assert clone["host_key"].split()[1] in lab.on(
        CLONE, "sudo", "ssh-keygen", "-y", "-f", "/etc/ssh/ssh_host_ed25519_key"
    )
    assert json.loads(lab.on(CLONE, "cat", "/run/cloud-init/result.json"))["v1"]["errors"] == []
    assert lab.on(CLONE, "sh", "-c", "sudo -n getent hosts $(hostname) && echo known").endswith("known")
    lab("vm.clean", CLONE, "--yes")
    lab("vm.snapshots", TARGET, "--remove", "before", "--yes")
