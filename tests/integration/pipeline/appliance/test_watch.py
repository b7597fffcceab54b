"""How the appliance is watched, with a program in QEMU's place that hangs, dies and lies as a guest can make it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline import emulation
from pipeline.appliance import accelerator
from pipeline.appliance.boot import Appliance, ApplianceError, Job, run_job
from pipeline.errors import UsageError
from pipeline.state import State
from pipeline.workspace import Cache

_QEMU = """#!/bin/sh
case "$*" in *--version*) echo "QEMU emulator version 9.2.0"; exit ;; esac
echo $$ > qemu.pid
echo "started: $*"
"""


class Lab:
    """A folder with the program, and a state of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.state = State(Cache(folder / "cache"))
        self._bin = folder / "bin"
        self._bin.mkdir()
        device = folder / "kvm"
        device.touch()
        monkeypatch.setenv("PATH", str(self._bin), prepend=":")
        monkeypatch.delenv("PVMLAB_ACCEL", raising=False)
        monkeypatch.setattr(emulation, "KVM_DEVICE", device)
        monkeypatch.setattr(accelerator, "_FIRST_WORD_OF_HARDWARE", 0.6)
        monkeypatch.setattr(accelerator, "_FIRST_WORD_EMULATED", 5.0)

    def does(self, *, kvm: str, tcg: str) -> None:
        """Have the program do this, in shell, when started with each accelerator."""
        program = self._bin / f"qemu-system-{Arch.of_host()}"
        program.write_text(f"{_QEMU}\ncase \"$*\" in *'-accel kvm'*) {kvm} ;; *) {tcg} ;; esac\n")
        program.chmod(0o755)

    def run(self, *, idle: float = 30.0) -> list[str]:
        nothing = Path("/dev/null")
        job = Job(name="x", disks=(), folder=self.folder, log=self.folder / "log", timeout=30, idle=idle)
        return run_job(Appliance(Arch.of_host(), nothing, nothing), job, state=self.state)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


GOOD = r"printf 'alive\ndone 512\n' > report"


def test_hardware_that_works_is_used_and_remembered(lab: Lab) -> None:
    lab.does(kvm=GOOD, tcg="exit 1")
    for _ in range(2):
        assert lab.run() == ["alive", "done 512"]
    assert lab.log.count("booting the appliance with kvm") == 2


@pytest.mark.parametrize(
    "kvm",
    ["exec sleep 60", "echo 'failed to initialize kvm' >&2; exit 1", "kill -ABRT $$",
     "trap '' TERM; while :; do sleep 1; done"],
    ids=["hangs", "refuses", "aborts", "hangs and will not end"],
)  # fmt: skip
def test_hardware_that_does_not_work_is_given_up_once(lab: Lab, kvm: str) -> None:
    lab.does(kvm=kvm, tcg=GOOD)
    began = time.monotonic()
    assert lab.run() == ["alive", "done 512"]
    assert time.monotonic() - began < 15
    assert lab.run() == ["alive", "done 512"]
    assert lab.log.count("with kvm") == 1
    assert lab.log.count("with tcg") == 2


def test_another_qemu_is_tried_anew(lab: Lab) -> None:
    lab.does(kvm="exit 1", tcg=GOOD)
    lab.run()
    lab.does(kvm=GOOD, tcg="exit 1")
    assert lab.run() == ["alive", "done 512"]


def test_the_user_decides_unseen(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.does(kvm="exit 1", tcg=GOOD)
    monkeypatch.setenv("PVMLAB_ACCEL", "tcg")
    lab.run()
    assert "with kvm" not in lab.log
    monkeypatch.setenv("PVMLAB_ACCEL", "kvm")
    with pytest.raises(ApplianceError):
        lab.run()
    monkeypatch.setenv("PVMLAB_ACCEL", "magic")
    with pytest.raises(UsageError, match="PVMLAB_ACCEL=magic"):
        lab.run()


def test_a_guest_that_stops_working_is_ended(lab: Lab) -> None:
    lab.does(kvm="exit 1", tcg=r"printf 'alive\nseen vda1 xfs\n' > report; exec sleep 60")
    began = time.monotonic()
    with pytest.raises(ApplianceError) as caught:
        lab.run(idle=0.6)
    assert time.monotonic() - began < 10
    assert (caught.value.kind, caught.value.text) == ("hung", "nothing happened for 0.6 s")


def test_a_guest_that_goes_on_is_let_be(lab: Lab) -> None:
    lab.does(kvm="exit 1", tcg=f"echo alive > report; for i in 1 2 3 4 5; do sleep 0.4; echo . ; done; {GOOD}")
    assert lab.run(idle=1.5)[-1] == "done 512"


def test_a_failure_has_the_guests_words(lab: Lab) -> None:
    lab.does(kvm="exit 1", tcg=r"printf 'alive\nfailed write No space left on device\n' > report")
    with pytest.raises(ApplianceError) as caught:
        lab.run()
    assert (caught.value.kind, caught.value.text) == ("write", "No space left on device")


@pytest.mark.parametrize(
    "tcg",
    [r"echo alive > report; echo 'Kernel panic - not syncing: Attempted to kill init!'",
     r"printf 'alive\ndone 51' > report; echo 'Kernel panic - cut off'",
     r"echo alive > report; echo 'Kernel panic: QEMU failed'; exit 1", "echo 'no word, Kernel panic'"],
    ids=["panic", "half a line", "qemu fails", "no word at all"],
)  # fmt: skip
def test_an_end_without_a_result_shows_the_console(lab: Lab, tcg: str) -> None:
    lab.does(kvm="exit 1", tcg=tcg)
    with pytest.raises(ApplianceError, match="it ended without a result") as caught:
        lab.run()
    assert caught.value.kind == "ended"
    assert "Kernel panic" in caught.value.details
    assert str(lab.folder / "log") in caught.value.details


def test_an_endless_report_costs_its_cap(lab: Lab) -> None:
    lab.does(kvm="exit 1", tcg="yes alive | head -c 50000000 > report")
    with pytest.raises(ApplianceError) as caught:
        lab.run()
    assert caught.value.kind == "ended"
