"""What emulation needs to be told."""

from __future__ import annotations

import pytest

from contracts.arch import Arch
from pipeline.emulation import parse_version, tcg_cpu
from pipeline.errors import PvmlabError


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright 2003\n", (7, 2, 22)),
        ("QEMU emulator version 10.0.0", (10, 0, 0)),
        ("QEMU emulator version 9.2.50 (v9.2.0-12-gabc)", (9, 2, 50)),
    ],
)
def test_versions_are_numbers(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_a_program_without_a_version_is_an_error() -> None:
    with pytest.raises(PvmlabError, match="does not say its version"):
        parse_version("command not found")


@pytest.mark.parametrize(
    ("arch", "version", "cpu"),
    [
        (Arch.X86_64, (7, 2, 22), "max,-erms,-fsrm,-cx16"),
        (Arch.X86_64, (9, 2, 0), "max,-erms,-fsrm,-cx16"),  # as text, "9" would be newer than "10"
        (Arch.X86_64, (10, 0, 0), "max,-erms,-fsrm"),
        (Arch.X86_64, (10, 1, 3), "max,-erms,-fsrm"),
        (Arch.AARCH64, (7, 2, 22), "max,pauth-impdef=on"),
        (Arch.AARCH64, (10, 0, 0), "max,pauth-impdef=on"),
    ],
)
def test_the_processor_that_is_right_with_emulation(arch: Arch, version: tuple[int, ...], cpu: str) -> None:
    assert tcg_cpu(arch, version) == cpu
