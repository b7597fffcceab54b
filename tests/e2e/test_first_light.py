"""The main job, from nothing to a login and back: what the README promises, done by its own commands.

The tests share one lab and build on each other, in their order: an install under emulation takes a minute or two.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from contracts import document
from contracts.lan import Lan
from pipeline.workspace import REPOSITORY
from tests.e2e.command_line import UP_TIMEOUT, CommandLine, qemu_processes
from tests.fakes.transcripts import differences, make_person, missing_lines, readme_transcript, steps_of

pytestmark = pytest.mark.vm
TARGET = "target1"


def test_up_installs_a_machine_over_the_network(lab: CommandLine) -> None:
    done = lab("up", timeout=UP_TIMEOUT)
    assert missing_lines(readme_transcript()[0].output, done.stderr) == [], "the README says otherwise"
    status = lab.status_of(TARGET)
    assert status["state"] == "installed"
    assert status["installs"] == 1


def test_the_target_is_the_machine_we_asked_for(lab: CommandLine) -> None:
    assert lab.on(TARGET, "hostname") == TARGET
    assert lab.on(TARGET, "id", "-un") == "lab"
    assert re.search(r'VERSION_CODENAME="?bookworm', lab.on(TARGET, "cat", "/etc/os-release"))


def test_its_root_is_the_installed_disk(lab: CommandLine) -> None:
    mounts = json.loads(lab.on(TARGET, "findmnt", "--json", "--real", "--output", "TARGET,SOURCE,FSTYPE", "--list"))
    found = {entry["target"]: (entry["source"], entry["fstype"]) for entry in mounts["filesystems"]}
    assert found["/"] == ("/dev/nvme0n1p2", "ext4")
    assert found["/boot/efi"] == ("/dev/nvme0n1p1", "vfat")


def test_the_tutorial_is_true(lab: CommandLine, tmp_path: Path) -> None:
    page = REPOSITORY / "docs/tutorial/first-machine.md"
    person = make_person(tmp_path, home=lab.home, cache=os.environ.get("PVMLAB_CACHE", ""))
    steps = steps_of(page.read_text(), "first-light")
    assert len(steps) >= 4
    for step in steps:
        assert differences(step.output, person.types(step.command, timeout=120)) == "", step.command


def test_cloud_init_is_done_without_errors(lab: CommandLine) -> None:
    result = json.loads(lab.on(TARGET, "cat", "/run/cloud-init/result.json"))
    assert result["v1"]["errors"] == []
    assert result["v1"]["datasource"].startswith("DataSourceNoCloud")
    assert lab.on(TARGET, "systemctl", "is-system-running", check=False) == "running"


def test_nobody_has_a_password_and_only_keys_log_in(lab: CommandLine) -> None:
    states = [line.split(":")[1] for line in lab.on(TARGET, "sudo", "cat", "/etc/shadow").splitlines()]
    assert all(state[0] in "!*" for state in states)
    settings = lab.on(TARGET, "sudo", "sshd", "-T").splitlines()
    assert "passwordauthentication no" in settings


def test_output_and_exit_status_of_a_command_come_through(lab: CommandLine) -> None:
    done = lab("vm.shell", TARGET, "--", "sh", "-c", "echo 'a  b' \"$HOME\"; echo oops >&2; exit 7", check=False)
    assert done.returncode == 7
    assert done.stdout == "a  b /home/lab\n"
    assert "oops" in done.stderr


def test_the_target_reaches_names_and_the_provisioner(lab: CommandLine) -> None:
    assert lab.on(TARGET, "getent", "ahostsv4", "provisioner.pvmlab.local").split()[0] == "192.168.100.1"
    ipv6 = lab.on(TARGET, "getent", "ahostsv6", "provisioner.pvmlab.local").split()[0]
    assert ipv6 == str(document.loads(Lan, (lab.home / "config/lab.json").read_bytes()).provisioner_ipv6)
    assert "default via 192.168.100.1" in lab.on(TARGET, "ip", "route")


def test_nothing_listens_on_the_host_but_on_loopback(lab: CommandLine) -> None:
    inodes = set()
    for pid in qemu_processes(lab.home):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                inodes.add(match[1])
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].split(":")[0])
    assert listening == ["0100007F"]  # 127.0.0.1: the provisioner's SSH port


def test_the_lab_is_listed(lab: CommandLine) -> None:
    listed = json.loads(lab("vm.list", "--output", "json").stdout)
    assert TARGET in {machine["name"] for machine in listed["machines"]}
    assert json.loads(lab("status", "--output", "json").stdout)


def test_up_again_changes_nothing_and_is_quick(lab: CommandLine) -> None:
    before = qemu_processes(lab.home).keys()
    done = lab("up", timeout=30)
    assert "everything is up" in done.stdout + done.stderr
    assert qemu_processes(lab.home).keys() == before


def test_it_survives_a_reboot_of_its_own(lab: CommandLine) -> None:
    before = lab.on(TARGET, "cat", "/proc/sys/kernel/random/boot_id")
    lab.on(TARGET, "sudo", "systemctl", "reboot", check=False)
    deadline = time.monotonic() + 240
    now = before
    while now in {before, ""} and time.monotonic() < deadline:
        time.sleep(3)
        now = lab.on(TARGET, "cat", "/proc/sys/kernel/random/boot_id", check=False)
    assert now not in {before, ""}
    assert lab.status_of(TARGET)["installs"] == 1


def test_down_then_up_boots_from_the_disk(lab: CommandLine) -> None:
    machine_id = lab.on(TARGET, "cat", "/etc/machine-id")
    lab.on(TARGET, "touch", "keepsake")
    lab.on(TARGET, "sync")
    lab("down")
    assert qemu_processes(lab.home) == {}
    assert lab("down").returncode == 0
    lab("up", timeout=600)
    assert lab.on(TARGET, "cat", "/etc/machine-id") == machine_id
    assert lab.on(TARGET, "ls") == "keepsake"
    assert lab.status_of(TARGET)["installs"] == 1


def test_firmware_without_its_variables_still_finds_the_disk(lab: CommandLine) -> None:
    lab("vm.stop", TARGET)
    (variables,) = (lab.home / "disks").glob(f"{TARGET}*vars*")
    variables.unlink()
    lab("vm.start", TARGET, "--wait", timeout=600)
    assert lab.on(TARGET, "ls") == "keepsake"
    assert lab.status_of(TARGET)["installs"] == 1
