"""Debian's own installer, booted and answered by the lab: to the end of partitioning here, the whole way every night.

Under emulation the first takes five minutes, the second half an hour. If the host's mirror lacks components of the
installer, they are made (tests/fakes/udeb_mirror.py), and the installer gets the lab's answers with another mirror.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.arch import Arch
from contracts.report import InstallState, Phase
from distros.registry import require_release
from pipeline.debian.apt_sources import host_mirror
from pipeline.workspace import REPOSITORY, Workspace
from tests.e2e.command_line import CommandLine
from tests.fakes.udeb_mirror import make_whole

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]

DISTRO, ARCH, TARGET = "debian-13", Arch.X86_64, "native1"
HOST_OF_THE_PROVISIONER = "10.0.2.2"  # QEMU's name for this host's loopback, for machines behind the provisioner
PARTITIONED = 1500.0  # seconds; 300 are usual on two emulating cores
INSTALLED = 7200.0
_TEMPLATE = REPOSITORY / "pxeboot_stack/templates/answers/preseed.cfg.j2"


@pytest.fixture(scope="module")
def target(lab: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A machine that is to be installed by debian-installer."""
    lab("build", f"native:{DISTRO}:{ARCH}", timeout=600)
    scratch, suite = tmp_path_factory.mktemp("udebs"), require_release(DISTRO, ARCH).suite
    vmlinuz = Workspace.from_environment().cache.image(DISTRO, ARCH, "native/vmlinuz")
    mirror = make_whole(host_mirror().archive, suite, ARCH.debian, kernel=kernel_version(vmlinuz), scratch=scratch)
    create = ("vm.create", TARGET, f"--distro={DISTRO}", f"--arch={ARCH}")
    with mirror.serve() as port:
        if mirror.made:
            answers = scratch / "preseed.cfg.j2"
            answers.write_text(with_mirror(_TEMPLATE.read_text(), port=port, suite=suite))
            lab(*create, f"--answer-file={answers}")
        else:
            lab(*create, "--installer=native")
        yield TARGET
        lab("vm.stop", TARGET, "--force", check=False)


def kernel_version(vmlinuz: Path) -> str:
    """Return what a bzImage says of itself (Linux/x86 boot protocol, ``kernel_version``)."""
    data = vmlinuz.read_bytes()
    start = int.from_bytes(data[0x20E:0x210], "little") + 0x200
    return data[start:].split(b" ", 1)[0].decode()


def with_mirror(template: str, *, port: int, suite: str) -> str:
    """Return the lab's answers for another mirror, whose lists nobody has signed."""
    mirror = {"protocol": "http", "host": f"{HOST_OF_THE_PROVISIONER}:{port}", "directory": "/debian", "suite": suite,
              "services": "updates", "security_host": ""}  # fmt: skip
    unsigned = "d-i debian-installer/allow_unauthenticated boolean true\n"
    return f"{{% set mirror = {mirror} %}}\n{template}{unsigned}"


def wait_for_phase(lab: CommandLine, name: str, phase: Phase, *, seconds: float) -> dict[str, Any]:
    """Return the status once the install has reached *phase*."""
    deadline, status = time.monotonic() + seconds, dict[str, Any]()
    while time.monotonic() < deadline:
        if (lab.home / "status" / f"{name}.json").exists():
            status = lab.status_of(name)
            assert status["state"] != InstallState.FAILED, status
            if status["phase"] is not None and Phase(status["phase"]).number >= phase.number:
                return status
        time.sleep(1)
    pytest.fail(f"{phase} not within {seconds:g} s: {status}\n{lab('vm.logs', name).stdout[-3000:]}")


@pytest.fixture
def goes_on(request: pytest.FixtureRequest) -> bool:
    """Whether the tests of every night come next: then the machine is not stopped half-way."""
    items = [item for item in request.session.items if item.path == request.path]
    return any(item.get_closest_marker("nightly") for item in items)


def test_debians_installer_reads_its_answers_and_partitions_the_disk(
    lab: CommandLine, target: str, goes_on: bool
) -> None:
    lab("vm.start", target, timeout=600)
    status = wait_for_phase(lab, target, Phase.SYSTEM, seconds=PARTITIONED)
    table = lab("vm.list", "--output", "json").stdout
    if not goes_on:
        lab("vm.stop", target, "--force")
    assert "installing: system" in table
    told = [event["text"] for event in status["events"]]
    assert told[:2] == ["boot script: install", "answer file fetched"]
    assert any(text.startswith("disk: ") for text in told)


@pytest.mark.nightly
def test_debians_installer_goes_the_whole_way(lab: CommandLine, target: str) -> None:
    done = lab("vm.start", target, "--wait", timeout=INSTALLED)
    assert "SSH answers" in done.stdout + done.stderr
    assert "cloud-init" not in done.stdout + done.stderr
    status = lab.status_of(target)
    assert (status["state"], status["installs"]) == ("installed", 1)

    assert lab.on(target, "hostname") == target
    assert "trixie" in lab.on(target, "cat", "/etc/os-release")
    assert lab.on(target, "findmnt", "--noheadings", "--output", "SOURCE,FSTYPE", "/boot/efi").split()[1] == "vfat"
    states = [line.split(":")[1] for line in lab.on(target, "sudo", "cat", "/etc/shadow").splitlines()]
    assert all(state[0] in "!*" for state in states)
    assert "passwordauthentication no" in lab.on(target, "sudo", "sshd", "-T").splitlines()
    assert lab.on(target, "systemctl", "is-system-running", check=False) == "running"
    assert "console=ttyS0,115200" in lab.on(target, "cat", "/proc/cmdline")


@pytest.mark.nightly
def test_the_machine_then_boots_its_disk(lab: CommandLine, target: str) -> None:
    lab.on(target, "touch", "keepsake")
    lab("vm.stop", target)
    (variables,) = (lab.home / "disks").glob(f"{target}*vars*")
    variables.unlink()  # firmware that knows no boot entry finds the loader where removable media have it
    lab("vm.start", target, "--wait", timeout=1200)
    assert lab.on(target, "ls") == "keepsake"
    assert lab.status_of(target)["installs"] == 1
