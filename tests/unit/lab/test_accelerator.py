from __future__ import annotations

from pathlib import Path

import pytest

from contracts.arch import Arch
from lab import accelerator
from lab.probe import probe_for
from lab.spec import AcceleratorKind
from pipeline import emulation
from pipeline.errors import UsageError


def test_the_override_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_ACCEL", "tcg")
    assert accelerator._override() == (AcceleratorKind.TCG, "PVMLAB_ACCEL=tcg")
    monkeypatch.setenv("PVMLAB_ACCEL", "")
    assert accelerator._override() is None


def test_an_unknown_override_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_ACCEL", "xen")
    with pytest.raises(UsageError, match="PVMLAB_ACCEL=xen is not an accelerator") as caught:
        accelerator._override()
    assert caught.value.resolution == "use one of kvm, hvf, tcg, or unset it"


def test_another_architecture_is_emulated_without_a_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    kind, reason = accelerator._hardware(Arch.AARCH64, tmp_path / "no-qemu", tmp_path)
    assert (kind, reason) == (AcceleratorKind.TCG, "this host is x86_64, the machine is aarch64")


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[AcceleratorKind]:
    """Every probe is written down here, and fails."""
    made: list[AcceleratorKind] = []

    def probe(kind: AcceleratorKind, arch: Arch, program: Path) -> str:
        made.append(kind)
        return "it hung"

    monkeypatch.setattr(accelerator, "probe_failure", probe)
    return made


def test_a_probe_is_made_once_per_qemu_and_boot(
    tmp_path: Path, probes: list[AcceleratorKind], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "qemu"
    program.touch()

    def ask() -> str:
        return accelerator._cached_failure(AcceleratorKind.KVM, Arch.X86_64, program, tmp_path)

    assert [ask(), ask(), ask()] == ["it hung"] * 3
    assert len(probes) == 1
    (tmp_path / "accelerator.json").write_text("damaged")
    ask()
    assert len(probes) == 2
    (tmp_path / "accelerator.json").write_text("[1]")
    ask()
    assert len(probes) == 3
    monkeypatch.setattr(accelerator, "boot_id", lambda: "another boot")
    ask()
    assert len(probes) == 4


def test_no_device_no_probe(tmp_path: Path, probes: list[AcceleratorKind], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(emulation, "KVM_DEVICE", tmp_path / "kvm")
    assert accelerator._hardware(Arch.X86_64, tmp_path, tmp_path)[1] == f"this host has no {tmp_path / 'kvm'}"
    assert probes == []


def test_macos_has_its_own(tmp_path: Path, probes: list[AcceleratorKind], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for only: no macOS is here to try it on."""
    (program := tmp_path / "qemu").touch()
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert accelerator._hardware(Arch.AARCH64, program, tmp_path) == (AcceleratorKind.TCG, "it hung")
    assert probes == [AcceleratorKind.HVF]
    monkeypatch.setattr(accelerator, "probe_failure", lambda kind, arch, program: "")
    monkeypatch.setattr(accelerator, "boot_id", lambda: "another boot")
    assert accelerator._hardware(Arch.AARCH64, program, tmp_path) == (AcceleratorKind.HVF, "hvf ran a probe guest")


def test_a_device_of_somebody_else_is_told(
    tmp_path: Path, probes: list[AcceleratorKind], monkeypatch: pytest.MonkeyPatch
) -> None:
    (device := tmp_path / "kvm").touch()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr(emulation, "KVM_DEVICE", device)
    assert "adduser $USER kvm" in accelerator._hardware(Arch.X86_64, tmp_path, tmp_path)[1]
    assert probes == []


@pytest.mark.parametrize("arch", Arch)
def test_probe_firmware_fills_its_rom(arch: Arch) -> None:
    assert len(probe_for(arch).rom) == 65536


def test_the_x86_probe_starts_at_the_reset_vector() -> None:
    rom = probe_for(Arch.X86_64).rom
    assert rom[-16:-11] == bytes.fromhex("ea00f000f0")  # far jump to f000:f000
    assert rom[0xF000] == 0xFA
    assert rom[0xF05F] == 0xB8  # where the jump to 64-bit code goes
    assert rom[0xF098:0xF09E] == bytes.fromhex("170080f00f00")  # where lgdt looks
