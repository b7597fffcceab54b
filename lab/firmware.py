"""Finding the host's UEFI firmware: a read-only code image and the template of its variables."""

from __future__ import annotations

from pathlib import Path

from contracts.arch import Arch
from pipeline.errors import PrerequisiteError

# Pairs in order of preference, without Secure Boot. The 4M builds come first: the 2M ones are gone in newer releases.
_PAIRS = {
    Arch.X86_64: (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),  # Debian, Ubuntu
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),  # older Debian, Fedora
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),  # Fedora
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),  # Arch
        ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),  # older Arch
        # Homebrew and QEMU's own build; the x86_64 code goes with the i386 variables (QEMU's firmware descriptors)
        ("/opt/homebrew/share/qemu/edk2-x86_64-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"),
        ("/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd"),
    ),
    Arch.AARCH64: (
        ("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),  # Debian 13
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),  # Debian, Ubuntu, Fedora
        ("/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"),  # Fedora
        ("/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/edk2/aarch64/QEMU_VARS.fd"),  # Arch
        ("/opt/homebrew/share/qemu/edk2-aarch64-code.fd", "/opt/homebrew/share/qemu/edk2-arm-vars.fd"),
        ("/usr/local/share/qemu/edk2-aarch64-code.fd", "/usr/local/share/qemu/edk2-arm-vars.fd"),
    ),
}


def find_firmware(arch: Arch, *, root: Path = Path("/")) -> tuple[Path, Path]:
    """Return the firmware code and the template of its variables, of which every machine needs a copy of its own.

    :param root: where the host's file system starts.
    :raises PrerequisiteError: if no complete pair is installed.
    """
    for names in _PAIRS[arch]:
        code, variables = (root / name.lstrip("/") for name in names)
        if code.is_file() and variables.is_file():
            return code, variables
    raise PrerequisiteError(
        f"no UEFI firmware for {arch} machines is installed",
        details="looked for " + ", ".join(code for code, _ in _PAIRS[arch]),
        resolution="./pvmlab setup installs it",
    )
