from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.arch import Arch
from lab import firmware
from lab.firmware import FirmwareFiles, find_firmware, find_secure_firmware, own_firmware
from lab.spec import Firmware
from pipeline.errors import ExitCode, PrerequisiteError


def install(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_larger_build_is_preferred(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/OVMF"
    install(folder, "OVMF_CODE.fd", "OVMF_VARS.fd", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
    found = find_firmware(Arch.X86_64, root=tmp_path)
    assert found == FirmwareFiles(folder / "OVMF_CODE_4M.fd", folder / "OVMF_VARS_4M.fd")


def test_half_a_pair_is_none(tmp_path: Path) -> None:
    install(tmp_path / "usr/share/OVMF", "OVMF_CODE_4M.fd", "OVMF_CODE.fd", "OVMF_VARS.fd")
    assert find_firmware(Arch.X86_64, root=tmp_path).code.name == "OVMF_CODE.fd"


def test_each_architecture_has_its_own(tmp_path: Path) -> None:
    install(tmp_path / "usr/share/AAVMF", "AAVMF_CODE.fd", "AAVMF_VARS.fd")
    assert find_firmware(Arch.AARCH64, root=tmp_path).code.name == "AAVMF_CODE.fd"
    with pytest.raises(PrerequisiteError):
        find_firmware(Arch.X86_64, root=tmp_path)


@pytest.mark.parametrize("arch", Arch)
def test_none_names_the_command_that_helps(tmp_path: Path, arch: Arch) -> None:
    with pytest.raises(PrerequisiteError, match=f"no UEFI firmware for {arch} machines") as caught:
        find_firmware(arch, root=tmp_path)
    assert "./pvmlab setup" in caught.value.resolution
    assert caught.value.exit_code is ExitCode.PREREQUISITE


MS = {
    "interface-types": ["uefi"],
    "mapping": {
        "device": "flash",
        "executable": {"filename": "/fw/CODE.ms.fd", "format": "raw"},
        "nvram-template": {"filename": "/fw/VARS.ms.fd", "format": "raw"},
    },
    "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
    "features": ["enrolled-keys", "requires-smm", "secure-boot"],
}


def describe(root: Path, name: str, **changes: object) -> None:
    path = root / "usr/share/qemu/firmware" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(MS | changes))


def test_secure_firmware_is_what_a_descriptor_tells_of(tmp_path: Path) -> None:
    install(tmp_path / "fw", "CODE.ms.fd", "VARS.ms.fd")
    describe(tmp_path, "40-secure.json")
    found = FirmwareFiles(tmp_path / "fw/CODE.ms.fd", tmp_path / "fw/VARS.ms.fd", smm=True)
    assert find_secure_firmware(Arch.X86_64, root=tmp_path) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"features": ["requires-smm", "secure-boot"]},  # no keys: everything boots
        {"features": ["enrolled-keys"]},
        {"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]},
        {"targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*"]}]},
        {"mapping": {"device": "memory", "filename": "/fw/CODE.ms.fd"}},
        {"mapping": MS["mapping"] | {"nvram-template": {"filename": "/fw/VARS.ms.fd", "format": "qcow2"}}},  # type: ignore[operator]
        {"mapping": MS["mapping"] | {"executable": {"filename": "/fw/not-there.fd", "format": "raw"}}},  # type: ignore[operator]
    ],
)
def test_other_firmware_is_not_secure(tmp_path: Path, changes: dict[str, object]) -> None:
    install(tmp_path / "fw", "CODE.ms.fd", "VARS.ms.fd")
    describe(tmp_path, "40-secure.json", **changes)
    (tmp_path / "usr/share/qemu/firmware/50-broken.json").write_text("{")
    (tmp_path / "usr/share/qemu/firmware/60-list.json").write_text("[]")
    with pytest.raises(PrerequisiteError, match="no UEFI firmware with Secure Boot for x86_64") as caught:
        find_secure_firmware(Arch.X86_64, root=tmp_path)
    assert "./pvmlab doctor" in caught.value.resolution


def test_an_administrators_descriptor_hides_the_packages_one(tmp_path: Path) -> None:
    install(tmp_path / "fw", "CODE.ms.fd", "VARS.ms.fd")
    describe(tmp_path, "40-secure.json")
    ours = tmp_path / "etc/qemu/firmware/40-secure.json"
    ours.parent.mkdir(parents=True)
    ours.write_text("")
    with pytest.raises(PrerequisiteError):
        find_secure_firmware(Arch.X86_64, root=tmp_path)


def test_a_machine_keeps_its_own_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "VARS").write_text("template")
    (tmp_path / "MS").write_text("with keys")
    files = FirmwareFiles(tmp_path / "CODE", tmp_path / "VARS")
    monkeypatch.setattr(firmware, "find_firmware", lambda _: files)
    monkeypatch.setattr(
        firmware, "find_secure_firmware", lambda _: FirmwareFiles(tmp_path / "S", tmp_path / "MS", True)
    )
    own = tmp_path / "web1.vars.fd"
    assert own_firmware(Arch.X86_64, own, http=True) == Firmware(tmp_path / "CODE", own, http=True)
    assert own.read_text() == "template"
    assert own.stat().st_mode & 0o777 == 0o600
    own.write_text("boot entries")
    assert own_firmware(Arch.X86_64, own, secure=True) == Firmware(tmp_path / "S", own, smm=True)
    assert own.read_text() == "boot entries"
    own_firmware(Arch.X86_64, own, secure=True, fresh=True)
    assert own.read_text() == "with keys"
