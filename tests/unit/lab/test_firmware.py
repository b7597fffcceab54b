from __future__ import annotations

from pathlib import Path

import pytest

from contracts.arch import Arch
from lab.firmware import find_firmware
from pipeline.errors import ExitCode, PrerequisiteError


def install(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_larger_build_is_preferred(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/OVMF"
    install(folder, "OVMF_CODE.fd", "OVMF_VARS.fd", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
    assert find_firmware(Arch.X86_64, root=tmp_path) == (folder / "OVMF_CODE_4M.fd", folder / "OVMF_VARS_4M.fd")


def test_half_a_pair_is_none(tmp_path: Path) -> None:
    install(tmp_path / "usr/share/OVMF", "OVMF_CODE_4M.fd", "OVMF_CODE.fd", "OVMF_VARS.fd")
    assert find_firmware(Arch.X86_64, root=tmp_path)[0].name == "OVMF_CODE.fd"


def test_each_architecture_has_its_own(tmp_path: Path) -> None:
    install(tmp_path / "usr/share/AAVMF", "AAVMF_CODE.fd", "AAVMF_VARS.fd")
    assert find_firmware(Arch.AARCH64, root=tmp_path)[0].name == "AAVMF_CODE.fd"
    with pytest.raises(PrerequisiteError):
        find_firmware(Arch.X86_64, root=tmp_path)


@pytest.mark.parametrize("arch", Arch)
def test_none_names_the_command_that_helps(tmp_path: Path, arch: Arch) -> None:
    with pytest.raises(PrerequisiteError, match=f"no UEFI firmware for {arch} machines") as caught:
        find_firmware(arch, root=tmp_path)
    assert "./pvmlab setup" in caught.value.resolution
    assert caught.value.exit_code is ExitCode.PREREQUISITE
