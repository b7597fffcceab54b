"""Finding the host's UEFI firmware: a read-only code image and the template of its variables.

Without Secure Boot it is looked for by name. With it, more has to be known than a name says (are Microsoft's keys in
the template? does it need System Management Mode?), and the firmware's descriptors tell: JSON files for management
programs, specified in QEMU's ``docs/interop/firmware.json``.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.arch import Arch
from lab.spec import Firmware
from pipeline import commit
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
# QEMU's docs/interop/firmware.json: of files with the same name, the one in the earlier folder counts.
_DESCRIPTOR_FOLDERS = (
    "/etc/qemu/firmware", "/usr/share/qemu/firmware", "/opt/homebrew/share/qemu/firmware",
    "/usr/local/share/qemu/firmware",
)  # fmt: skip
_MACHINES = {Arch.X86_64: "pc-q35-7.2", Arch.AARCH64: "virt-7.2"}  # any version: descriptors have patterns


@dataclasses.dataclass(frozen=True)
class FirmwareFiles:
    """UEFI firmware of the host.

    :ivar code: read-only. :ivar variables: the template of its variables, of which every machine needs a copy.
    :ivar smm: it runs with System Management Mode only.
    """

    code: Path
    variables: Path
    smm: bool = False


def find_firmware(arch: Arch, *, root: Path = Path("/")) -> FirmwareFiles:
    """Return firmware without Secure Boot.

    :param root: where the host's file system starts.
    :raises PrerequisiteError: if no complete pair is installed.
    """
    for names in _PAIRS[arch]:
        code, variables = (root / name.lstrip("/") for name in names)
        if code.is_file() and variables.is_file():
            return FirmwareFiles(code, variables)
    raise PrerequisiteError(
        f"no UEFI firmware for {arch} machines is installed",
        details="looked for " + ", ".join(code for code, _ in _PAIRS[arch]),
        resolution="./pvmlab setup installs it",
    )


def find_secure_firmware(arch: Arch, *, root: Path = Path("/")) -> FirmwareFiles:
    """Return firmware whose Secure Boot is on, with the keys that distributions' bootloaders are signed for.

    :param root: where the host's file system starts.
    :raises PrerequisiteError: if none is installed.
    """
    for descriptor in _descriptors(root):
        if (files := _secure_files(descriptor, arch, root)) is not None:
            return files
    raise PrerequisiteError(
        f"no UEFI firmware with Secure Boot for {arch} machines is installed",
        details=f"no descriptor in {', '.join(_DESCRIPTOR_FOLDERS)} tells of one with enrolled keys, in raw format",
        resolution="./pvmlab doctor tells which package has one, if any here has",
    )


def own_firmware(
    arch: Arch, variables: Path, *, http: bool = False, secure: bool = False, fresh: bool = False
) -> Firmware:
    """Return firmware with variables of a machine's own, which are copied from their template if they are not there.

    :param http: boot from the network by HTTP. :param secure: with Secure Boot on. :param fresh: copy them anyway.
    :raises PrerequisiteError: if this host has no such firmware.
    """
    files = find_secure_firmware(arch) if secure else find_firmware(arch)
    if fresh or not variables.exists():
        with commit.publish(variables, mode=0o600) as temporary:
            shutil.copyfile(files.variables, temporary)
    return Firmware(files.code, variables, http=http, smm=files.smm)


def _descriptors(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the firmware descriptors of the host in the order of their names; what is none is passed over."""
    found: dict[str, Path] = {}
    for folder in _DESCRIPTOR_FOLDERS:
        for path in (root / folder.lstrip("/")).glob("*.json"):
            found.setdefault(path.name, path)
    for name in sorted(found):
        try:
            data = json.loads(found[name].read_bytes())
        except (OSError, ValueError):  # an empty file hides the one of the same name
            continue
        if isinstance(data, dict):
            yield data


def _secure_files(descriptor: dict[str, Any], arch: Arch, root: Path) -> FirmwareFiles | None:
    """Return the files that a descriptor tells of, if they are what Secure Boot needs and are there."""
    try:
        features, mapping = descriptor["features"], descriptor["mapping"]
        machines = [
            name for target in descriptor["targets"] if target["architecture"] == arch for name in target["machines"]
        ]
        parts = [mapping["executable"], mapping["nvram-template"]]
        formats = {part["format"] for part in parts}
        code, variables = (root / os.fspath(part["filename"]).lstrip("/") for part in parts)
    except (KeyError, TypeError):  # another kind of mapping, such as of a BIOS
        return None
    fits = any(fnmatch.fnmatchcase(_MACHINES[arch], pattern) for pattern in machines)
    if not fits or not {"secure-boot", "enrolled-keys"} <= set(features) or formats != {"raw"}:
        return None
    if not code.is_file() or not variables.is_file():
        return None
    return FirmwareFiles(code, variables, smm="requires-smm" in features)
