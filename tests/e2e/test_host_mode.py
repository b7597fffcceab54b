"""The main job once more, in host mode: the services in namespaces of this host, the target as ever."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pipeline.errors import ExitCode
from tests.e2e.command_line import UP_TIMEOUT, CommandLine, qemu_processes

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]
TARGET = "host1"


@pytest.fixture(scope="module")
def host_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A lab of its own in host mode; whatever runs in it is ended afterwards."""
    command = CommandLine(tmp_path_factory.mktemp("host") / "home")
    command.home.mkdir()
    done = command("provisioner.create", "--mode=host", timeout=UP_TIMEOUT, check=False)
    if done.returncode == ExitCode.PREREQUISITE:
        pytest.skip(done.stderr)
    assert "host mode" in done.stdout + done.stderr
    try:
        yield command
    finally:
        command("clean", "--yes", check=False)
        assert qemu_processes(command.home) == {}


def test_a_target_is_installed_up_to_a_login(host_lab: CommandLine) -> None:
    host_lab("vm.create", TARGET)
    done = host_lab("vm.start", TARGET, "--wait", timeout=UP_TIMEOUT)
    assert "host mode" in done.stdout + done.stderr
    assert host_lab.status_of(TARGET)["state"] == "installed"
    assert host_lab.on(TARGET, "hostname") == TARGET
    result = json.loads(host_lab.on(TARGET, "cat", "/run/cloud-init/result.json"))
    assert result["v1"]["errors"] == []


def test_the_provisioners_verbs_work_the_same(host_lab: CommandLine) -> None:
    status = json.loads(host_lab("status", "--output", "json").stdout)["provisioner"]
    assert {name: status[name] for name in ("mode", "state", "services")} == {
        "mode": "host", "state": "running", "services": "ready",
    }  # fmt: skip
    assert "192.168.100.1/24" in host_lab.on("provisioner", "ip", "-br", "address", "show", "lan0")
    assert "nginx started" in host_lab("vm.logs", "provisioner").stdout
    again = host_lab("up", f"--name={TARGET}", timeout=60)
    assert "everything is up" in again.stdout + again.stderr


def test_services_come_and_go_below_a_running_target(host_lab: CommandLine) -> None:
    host_lab("provisioner.stop")
    refused = host_lab("vm.shell", TARGET, "--", "true", check=False)
    assert refused.returncode == ExitCode.CONFLICT
    assert "provisioner is off" in refused.stderr
    host_lab("provisioner.start")
    assert host_lab.on(TARGET, "hostname") == TARGET


def test_down_leaves_nothing(host_lab: CommandLine) -> None:
    host_lab("down")
    assert qemu_processes(host_lab.home) == {}
