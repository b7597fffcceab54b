"""The installer's initrd as it was built: its size, and that it holds nothing of the machine that built it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.workspace import REPOSITORY, Cache

pytestmark = pytest.mark.artifacts

LARGEST = 12_000_000  # bytes


@pytest.fixture(scope="module")
def initrd(artifacts: Cache) -> Path:
    return artifacts.installer_initrd(Arch.X86_64)


def test_it_is_small(initrd: Path) -> None:
    assert initrd.stat().st_size <= LARGEST


@pytest.mark.parametrize(
    "path",
    [
        "init",
        "dev/console",
        "usr/bin/busybox",
        "usr/bin/modprobe",
        "usr/bin/sfdisk",
        "usr/lib/python3.13/encodings/__init__.pyc",
        "usr/lib/python3.13/encodings/idna.pyc",
        "usr/lib/pvmlab/installer/__main__.pyc",
        "usr/lib/pvmlab/contracts/install.pyc",
    ],
)
def test_it_holds_what_it_starts_with(initrd: Path, path: str) -> None:
    unused_checksum = b"0" * 8  # the header's last field, right before the name
    assert unused_checksum + path.encode() + b"\0" in gzip.decompress(initrd.read_bytes())


def test_it_holds_no_path_of_the_machine_that_built_it(initrd: Path) -> None:
    assert str(REPOSITORY).encode() not in gzip.decompress(initrd.read_bytes())
