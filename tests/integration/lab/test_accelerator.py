"""The probe against the real QEMU and whatever acceleration this host has or pretends to have."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from contracts.arch import Arch
from lab.accelerator import choose_accelerator, probe_failure
from lab.qemu import qemu_program
from lab.spec import AcceleratorKind
from pipeline.emulation import qemu_version
from pipeline.run import find_program, require_program

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("arch", Arch)
def test_the_probe_guest_runs_under_emulation(arch: Arch) -> None:
    if (program := find_program(qemu_program(arch))) is None:
        pytest.skip(f"no {qemu_program(arch)} here")
    assert probe_failure(AcceleratorKind.TCG, arch, Path(program)) == ""


def test_an_accelerator_that_qemu_does_not_have_is_told() -> None:
    program = Path(require_program(qemu_program(Arch.X86_64)))
    failure = probe_failure(AcceleratorKind.HVF, Arch.X86_64, program)  # macOS only
    assert failure.startswith("hvf did not run a probe guest: ")
    assert "hvf" in failure.removeprefix("hvf did not run a probe guest: ")


def test_a_qemu_that_hangs_is_given_up(tmp_path: Path) -> None:
    program = tmp_path / "qemu-that-hangs"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    began = time.monotonic()
    assert probe_failure(AcceleratorKind.KVM, Arch.X86_64, program) == "kvm did not run a probe guest within 5 s"
    assert time.monotonic() - began < 8


def test_the_choice_of_this_host_works(tmp_path: Path) -> None:
    first = choose_accelerator(Arch.X86_64, state=tmp_path)
    assert first.reason
    if first.kind is AcceleratorKind.TCG:
        assert first.patience == 5
        assert first.cpu.startswith("max")
    else:
        assert (first.patience, first.cpu) == (1, "host")
    assert choose_accelerator(Arch.X86_64, state=tmp_path) == first


def test_this_hosts_qemu_has_a_version() -> None:
    assert qemu_version(Path(require_program(qemu_program(Arch.X86_64)))) > (5,)
