"""What is read and written of a disk image through qemu-nbd, and that no server stays behind, whoever dies."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from lab.disks import create_empty_disk
from lab.nbd import open_image
from pipeline.errors import PvmlabError
from pipeline.run import run
from pipeline.workspace import REPOSITORY
from tests.fakes.web_client import wait_for

_DIES = """
import os, signal, sys
from pathlib import Path
from lab import nbd

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "before the first word":
    nbd._open = die
with nbd.open_image(Path(sys.argv[1])) as device:
    device.write(0, b"half")
    die()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "a disk, with spaces.qcow2"
    create_empty_disk(path, 1)
    return path


def servers(disk: Path) -> list[int]:
    """Return the processes that have the file *disk* among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(disk).encode() in words and b"qemu-nbd" in words[0]:
            found.append(int(folder.name))
    return found


def test_what_is_written_is_read_again(disk: Path) -> None:
    with open_image(disk) as device:
        assert device.size == 1 << 30
        device.write(4096, b"something")
        assert len(servers(disk)) == 1
    assert not servers(disk)
    with open_image(disk) as device:
        assert device.read(4094, 13) == b"\0\0something\0\0"
        with pytest.raises(PvmlabError, match="beyond the end"):
            device.read(1 << 30, 1)


def test_an_image_that_cannot_be_opened_is_told_with_its_reason(disk: Path) -> None:
    disk.write_bytes(b"no qcow2 at all" * 1000)
    with pytest.raises(PvmlabError, match="cannot be opened") as caught, open_image(disk):
        pytest.fail("it was opened")
    assert "not in qcow2 format" in caught.value.details


def test_an_image_in_use_is_refused(disk: Path) -> None:
    with open_image(disk), pytest.raises(PvmlabError, match="cannot be opened") as caught, open_image(disk):
        pytest.fail("it was opened twice")
    assert "lock" in caught.value.details


@pytest.mark.parametrize("moment", ["before the first word", "while it writes"])
def test_a_killed_command_leaves_no_server(disk: Path, moment: str) -> None:
    died = run([sys.executable, "-c", _DIES, disk, moment], timeout=60, cwd=REPOSITORY, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    wait_for("the server has ended", lambda: not servers(disk))
    with open_image(disk) as device:  # nobody holds its lock
        assert device.size == 1 << 30
