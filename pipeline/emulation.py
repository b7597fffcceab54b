"""How QEMU may run guests' instructions on this host, and what its emulation (TCG) needs to be right and quick.

The same for all guests, whoever starts them. Whether an accelerator that may work does work is seen by those who try.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from contracts.arch import Arch
from pipeline.errors import PvmlabError, UsageError
from pipeline.run import run

# the default translation cache costs up to 1 GiB of memory and is no faster
TCG_OPTION = "tcg,thread=multi,tb-size=256"

OVERRIDE = "PVMLAB_ACCEL"
KVM, HVF, TCG = "kvm", "hvf", "tcg"
KVM_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def wished_accelerator() -> str | None:
    """Return the accelerator that ``PVMLAB_ACCEL`` names, which decides unseen; None if it names none.

    :raises UsageError: if it is no accelerator.
    """
    wish = os.environ.get(OVERRIDE)
    if wish and wish not in {KVM, HVF, TCG}:
        raise UsageError(
            f"{OVERRIDE}={wish} is not an accelerator", resolution=f"use one of {KVM}, {HVF}, {TCG}, or unset it"
        )
    return wish or None


def find_hardware(arch: Arch) -> tuple[str | None, str]:
    """Return the hardware accelerator that may work here for *arch* guests; None with the reason if none can."""
    if arch is not Arch.of_host():
        return None, f"this host is {Arch.of_host()}, the machine is {arch}"
    if sys.platform == "darwin":
        return HVF, ""
    if not KVM_DEVICE.exists():
        return None, f"this host has no {KVM_DEVICE}"
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return None, f"you may not use {KVM_DEVICE}: join its group with 'adduser $USER kvm'"
    return KVM, ""


def boot_id() -> str:
    """Return what is another one after each boot of this host; empty where the system tells none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        return ""


def tcg_cpu(arch: Arch, version: tuple[int, ...]) -> str:
    """Return the right ``-cpu`` for emulation by QEMU *version*."""
    if arch is Arch.AARCH64:
        return "max,pauth-impdef=on"  # the architected pointer authentication costs 3 s of a 16 s boot when emulated
    # erms, fsrm: kernel and libc copy by "rep movsb" where a processor says that this is fast; TCG does it byte by byte
    # (134 MB/s from a disk to /dev/null, 207 without)
    # cx16: QEMU 7.2 corrupts the memory of guests that use cmpxchg16b (6 of 13 installs died); 10.0 does not
    return "max,-erms,-fsrm" + ("" if version >= (10,) else ",-cx16")


def qemu_version(program: Path) -> tuple[int, ...]:
    """Return the version of a QEMU program, as numbers.

    :raises PvmlabError: if it does not say one.
    """
    return parse_version(run([program, "--version"], timeout=20).stdout)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers in the first line of ``--version``: ``(7, 2, 22)``.

    :raises PvmlabError: if there are none.
    """
    if found := re.search(r"\bversion (\d+(?:\.\d+)+)", text):
        return tuple(int(number) for number in found[1].split("."))
    raise PvmlabError(
        "QEMU does not say its version", details=text[:200], resolution="./pvmlab doctor checks this host"
    )
