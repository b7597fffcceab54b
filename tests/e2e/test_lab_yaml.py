"""A whole lab from one file: a provisioner, a machine installed over the network, a machine from a cloud image."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from lab.journey import DEFAULT_DISTRO
from pipeline.errors import ExitCode
from pipeline.workspace import Cache
from tests.e2e.command_line import UP_TIMEOUT, CommandLine, qemu_processes
from tests.fakes.cloud_disk import make_cloud_disk

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]
_LAB = """\
version: 1
provisioner: {mode: host}
network: {domain: shop.test}
defaults: {memory: 1G, labels: {tier: test}}
machines:
  pxe1:
    user-data: {runcmd: [touch /root/own]}
  cloud1:
    disk: cloud.qcow2
    disk-size: 4G
    user-data: |
      #!/bin/sh
      echo SECRET > /root/own
    after: {pxe1: started}
"""


@pytest.fixture(scope="module")
def lab_file(tmp_path_factory: pytest.TempPathFactory, artifacts: Cache) -> Path:
    """A lab.yaml, with a cloud image beside it."""
    folder = tmp_path_factory.mktemp("lab-yaml")
    rootfs = artifacts.image(DEFAULT_DISTRO, Arch.X86_64, "rootfs.tar.zst")
    make_cloud_disk(rootfs, folder / "cloud.qcow2", scratch=tmp_path_factory.mktemp("making"))
    (folder / "lab.yaml").write_text(_LAB)
    return folder / "lab.yaml"


@pytest.fixture(scope="module")
def whole_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A home that nothing is in; whatever runs in it is ended afterwards."""
    command = CommandLine(tmp_path_factory.mktemp("whole") / "home")
    command.home.mkdir()
    try:
        yield command
    finally:
        command("clean", "--yes", check=False)
        assert qemu_processes(command.home) == {}


def test_one_command_brings_both_up(whole_lab: CommandLine, lab_file: Path) -> None:
    before = lab_file.with_name("cloud.qcow2").read_bytes()[:65536]
    done = whole_lab("lab.up", str(lab_file), timeout=UP_TIMEOUT, check=False)
    if done.returncode == ExitCode.PREREQUISITE:
        pytest.skip(done.stderr)
    assert done.returncode == 0
    assert "all 2 machines are up" in done.stderr
    assert lab_file.with_name("cloud.qcow2").read_bytes()[:65536] == before
    for name in ("pxe1", "cloud1"):
        assert whole_lab.on(name, "hostname") == name
        assert whole_lab.on(name, "sudo", "cat", "/root/own") == {"pxe1": "", "cloud1": "SECRET"}[name]
        result = json.loads(whole_lab.on(name, "cat", "/run/cloud-init/result.json"))
        assert result["v1"]["errors"] == []
    assert int(whole_lab.on("cloud1", "df", "--output=size", "-BM", "/").split()[-1].rstrip("M")) > 3000  # it grew


def test_the_machines_reach_each_other_by_name(whole_lab: CommandLine) -> None:
    address = whole_lab.on("pxe1", "getent", "ahostsv4", "cloud1.shop.test").split()[0]
    assert address in whole_lab.on("cloud1", "ip", "-4", "-br", "address", "show", "lan0")
    assert whole_lab.on("cloud1", "bash", "-c", "exec 3<>/dev/tcp/pxe1/22 && head -c 8 <&3") == "SSH-2.0-"


def test_nothing_is_to_be_done_any_more(whole_lab: CommandLine, lab_file: Path) -> None:
    assert whole_lab("lab.diff", str(lab_file)).stdout == ""
    plan = json.loads(whole_lab("lab.diff", str(lab_file), "--output", "json").stdout)
    assert (plan["actions"], plan["extra"]) == ([], [])
    again = whole_lab("lab.up", str(lab_file))
    assert "everything is up" in again.stderr
    assert "started" not in again.stderr


def test_what_would_be_lost_is_said_and_kept(whole_lab: CommandLine, lab_file: Path) -> None:
    other = lab_file.with_name("other.yaml")
    other.write_text(_LAB.replace("disk-size: 4G", "disk-size: 5G").replace("SECRET", "OTHER"))
    said = whole_lab("lab.diff", str(other)).stdout
    assert "disk-size (GiB): 4 -> 5; user-data is other" in " ".join(said.split())
    assert "OTHER" not in said
    refused = whole_lab("lab.up", str(other), check=False)
    assert refused.returncode == ExitCode.CONFLICT
    assert "--recreate makes them anew, and what is on their disks is lost" in refused.stderr


def test_secrets_are_their_owners_only(whole_lab: CommandLine) -> None:
    for path in ("vms/cloud1.user-data", "vms/cloud1.json", "disks/cloud1.seed.iso", "disks/cloud1.qcow2"):
        assert stat.S_IMODE((whole_lab.home / path).stat().st_mode) == 0o600, path


def test_a_machine_that_died_is_told_and_would_be_started(whole_lab: CommandLine, lab_file: Path) -> None:
    (pid,) = (pid for pid, words in qemu_processes(whole_lab.home).items() if "pvmlab-cloud1" in " ".join(words))
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    status = json.loads(whole_lab("lab.status", str(lab_file), "--output", "json").stdout)
    by_name = {machine["name"]: machine for machine in status["machines"]}
    assert by_name["cloud1"]["machine"]["state"] == "crashed"
    assert by_name["cloud1"]["to_do"] == ["start: it is off"]
    assert by_name["pxe1"]["to_do"] == []


def test_down_stops_all_and_says_so(whole_lab: CommandLine, lab_file: Path) -> None:
    done = whole_lab("lab.down", str(lab_file))
    assert "pxe1: shut down by its guest" in done.stderr
    assert qemu_processes(whole_lab.home) == {}
