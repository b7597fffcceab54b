"""What QEMU's emulation (TCG) needs to be told to be right and quick: the same for all guests, whoever starts them."""

from __future__ import annotations

import re
from pathlib import Path

from contracts.arch import Arch
from pipeline.errors import PvmlabError
from pipeline.run import run

# the default translation cache costs up to 1 GiB of memory and is no faster
TCG_OPTION = "tcg,thread=multi,tb-size=256"


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
