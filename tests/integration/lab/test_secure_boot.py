"""Secure Boot in a real guest: what is signed boots, from a SATA disk and with a TPM; our unsigned iPXE does not.

An EFI system partition is a folder that QEMU shows as a FAT disk; in it is what the installer copies from a Debian.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import zstandard

from contracts.arch import Arch
from lab import tpm
from lab.accelerator import choose_accelerator
from lab.firmware import own_firmware
from lab.journey import DEFAULT_DISTRO
from lab.machine import Machine
from lab.network import SwitchNetwork
from lab.spec import LanCard, MachineSpec
from pipeline.errors import PrerequisiteError
from pipeline.run import find_program
from pipeline.workspace import Cache, Home

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]

MENU = """\
set timeout=0
search --no-floppy --file --set=root /vmlinuz
linux /vmlinuz console=ttyS0,115200 panic=0
boot
"""
LOADERS = {
    "./usr/lib/shim/shimx64.efi.signed": "EFI/BOOT/BOOTX64.EFI",
    "./usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": "EFI/BOOT/grubx64.efi",
}
WITHIN = 150.0  # seconds; 35 under emulation on an idle host
Boot = Callable[..., str]


@pytest.fixture
def signed(artifacts: Cache, tmp_path: Path) -> Path:
    """An EFI system partition with a Debian's signed bootloader and kernel."""
    esp = tmp_path / "esp"
    archive = artifacts.image(DEFAULT_DISTRO, Arch.X86_64, "rootfs.tar.zst")
    with archive.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as stream:
        wanted = dict(LOADERS)
        with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|") as members:
            for member in members:
                if (place := wanted.pop(member.name, None)) is not None:
                    content = members.extractfile(member)
                    assert content is not None
                    (esp / place).parent.mkdir(parents=True, exist_ok=True)
                    (esp / place).write_bytes(content.read())
                if not wanted:
                    break
    (esp / "EFI/debian").mkdir()
    (esp / "EFI/debian/grub.cfg").write_text(MENU)
    shutil.copyfile(artifacts.image(DEFAULT_DISTRO, Arch.X86_64, "vmlinuz"), esp / "vmlinuz")
    return esp


def fat_disk(number: int, folder: Path) -> tuple[str, ...]:
    return (
        "-drive", f"if=none,id=esp{number},format=raw,snapshot=on,file=fat:{folder}",
        "-device", f"ide-hd,bus=ide.{number},drive=esp{number},bootindex={number}",
    )  # fmt: skip


@pytest.fixture
def boot(home: Home, network: SwitchNetwork, tmp_path: Path) -> Iterator[Boot]:
    """Boot from folders, the first one first, Secure Boot on, until the console has said a text; return all of it."""
    try:
        firmware = own_firmware(Arch.X86_64, tmp_path / "vars.fd", secure=True)
    except PrerequisiteError as error:
        pytest.skip(error.brief)
    with_tpm = find_program(tpm.PROGRAM) is not None
    with contextlib.ExitStack() as stack:

        def run(disks: Sequence[Path], text: str) -> str:
            machine = Machine("web1", home=home)
            stack.callback(machine.kill)
            machine.start(
                MachineSpec(
                    name="web1", uuid=str(uuid.uuid4()), arch=Arch.X86_64, cpus=2, memory_mib=512,
                    accelerator=choose_accelerator(Arch.X86_64, state=tmp_path), boot=firmware, disks=(),
                    lan=LanCard("52:54:00:00:00:01"), lan_socket=network.ensure_started(),
                    serial_log=machine.logs.serial, qmp_socket=machine.qmp_socket,
                    tpm=tpm.tpm_of(home, "web1") if with_tpm else None,
                    more_arguments=tuple(word for number, disk in enumerate(disks) for word in fat_disk(number, disk)),
                )
            )  # fmt: skip
            deadline = time.monotonic() + WITHIN
            while text not in (said := machine.logs.serial.read_text(errors="replace")):
                if time.monotonic() > deadline or not machine.is_running():
                    pytest.fail(f"no {text!r}; the console said last:\n{said[-2000:]}")
                time.sleep(0.1)
            return said

        yield run


def test_what_is_signed_boots_and_what_is_not_does_not(
    boot: Boot, signed: Path, artifacts: Cache, tmp_path: Path
) -> None:
    """The first disk has our iPXE: this is why a machine with Secure Boot installs itself without."""
    unsigned = tmp_path / "unsigned"
    (unsigned / "EFI/BOOT").mkdir(parents=True)
    shutil.copyfile(artifacts.ipxe(Arch.X86_64), unsigned / "EFI/BOOT/BOOTX64.EFI")
    said = boot([unsigned, signed], "Kernel panic")  # there is no root file system
    assert "iPXE" not in said
    assert 0 < said.index("Access Denied") < said.index("secureboot: Secure boot enabled")
    assert "Kernel is locked down from EFI Secure Boot" in said
    if find_program(tpm.PROGRAM) is not None:
        assert "TPMEventLog=" in said  # the firmware has measured what it started
