"""What QEMU is told, and what its guest may say."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.appliance.accelerator import Accelerator
from pipeline.appliance.boot import Appliance, ApplianceError, Disk, Job, console_words, qemu_arguments
from pipeline.appliance.root_reader import Mounted, parse_report

EMULATED = Accelerator("tcg", "max", 120)


def arguments(arch: Arch = Arch.X86_64, accelerator: Accelerator = EMULATED) -> list[str]:
    disks = (
        Disk(path=Path("/images/a,b c.img"), format="qcow2", is_kept=False),
        Disk(path=Path("/scratch/root.tar"), format="raw", is_kept=True),
    )
    job = Job(name="read-root", disks=disks, folder=Path("/scratch"), log=Path("/scratch/log"))
    appliance = Appliance(arch, kernel=Path("/cache/vmlinuz"), initrd=Path("/cache/initrd.gz"))
    return [str(word) for word in qemu_arguments(Path("/usr/bin/qemu"), appliance, job, accelerator)]


def values(words: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(words) if name == option]


def test_the_image_is_never_written_to_nor_its_format_guessed() -> None:
    first, second = values(arguments(), "-drive")
    assert first == "if=none,id=disk0,format=qcow2,snapshot=on,cache=unsafe,werror=report,file=/images/a,,b c.img"
    assert second == "if=none,id=disk1,format=raw,cache=unsafe,discard=unmap,werror=report,file=/scratch/root.tar"


def test_the_guest_has_no_network_and_qemu_few_rights() -> None:
    words = arguments()
    assert values(words, "-nic") == ["none"]
    assert values(words, "-sandbox") == [
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    ]  # fmt: skip
    assert "-nodefaults" in words
    assert "-no-user-config" in words
    assert not values(words, "-netdev")


def test_a_panic_ends_it() -> None:
    words = arguments()
    assert "-no-reboot" in words
    (command_line,) = values(words, "-append")
    assert {"panic=-1", "oops=panic", "pvmlab.job=read-root", "console=ttyS0"} <= set(command_line.split())


def test_arm64_has_its_own_machine_and_console() -> None:
    words = arguments(Arch.AARCH64)
    assert values(words, "-machine") == ["virt,gic-version=max"]
    assert "console=ttyAMA0" in values(words, "-append")[0]


def test_hardware_is_asked_for_by_its_name() -> None:
    words = arguments(accelerator=Accelerator("kvm", "host", 15))
    assert (values(words, "-accel"), values(words, "-cpu")) == (["kvm"], ["host"])
    assert values(arguments(), "-accel") == ["tcg,thread=multi,tb-size=256"]


def test_a_report_is_read() -> None:
    report = parse_report(
        ["alive", "seen vda1 vfat", "seen vda2 btrfs", "root vda2 btrfs subvol=root", "mounted /boot vda1 ext4",
         "left-out /data no partition is UUID=1", "size 4096", "done 10240"]
    )  # fmt: skip
    assert report.mounted == (
        Mounted(place="/", device="vda2", type="btrfs", options="subvol=root"),
        Mounted(place="/boot", device="vda1", type="ext4"),
    )
    assert report.size == 10240
    assert report.facts()["left_out"] == ["/data no partition is UUID=1"]


@pytest.mark.parametrize(
    "lines",
    [["done 10240"], ["root vda1 ext4 -", "done 0"], ["root vda1 ext4 -", "done -5"], ["root vda1 ext4 -", "done many"],
     ["root vda1", "done 10"], ["root vda1 ext4 -", "mounted /", "done 10"], ["root vda1 ext4 -", f"done {1 << 60}"]],
)  # fmt: skip
def test_a_report_that_makes_no_sense_is_refused(lines: list[str]) -> None:
    with pytest.raises(ApplianceError) as caught:
        parse_report(lines)
    assert caught.value.kind == "report"


def test_the_kernels_complaint_is_shown_not_what_follows_it() -> None:
    lines = [f"boot {number}" for number in range(50)] + ["[ 2.7] BUG: kernel NULL pointer", "[ 2.7] Kernel panic"]
    lines += [f"[ 2.7]  call+{number}" for number in range(50)]
    assert console_words("\n".join(lines))[:2] == ["[ 2.7] BUG: kernel NULL pointer", "[ 2.7] Kernel panic"]
    assert len(console_words("\n".join(lines))) == 25
    assert console_words("one\ntwo\n") == ["one", "two"]
