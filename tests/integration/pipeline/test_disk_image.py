"""An ext4 file system, read back with e2fsprogs."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from pipeline.artifact import Making
from pipeline.digests import file_digest
from pipeline.disk_image import Unpacked, make_ext4_qcow2
from pipeline.run import find_program, run
from pipeline.tree_tar import TreeTar

EPOCH = 1_700_000_000
UUID = "7d1bd3a2-4a0f-4c55-9d7e-1c1c47c4d2a1"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and find_program("newuidmap") is None, reason="an ordinary user needs newuidmap"
)


def make(folder: Path, *, umask: int) -> Path:
    """Make a disk of two layers, of which the second adds to a directory of the first."""
    (folder / "scratch").mkdir(parents=True)
    with TreeTar(folder / "first.tar") as tree:
        tree.file("etc/secret", b"x", mode=0o600)
        tree.symlink("etc/link", "secret")
    with TreeTar(folder / "second.tar") as tree:
        tree.file("var/lib/z", b"z" * 5000)
        tree.file("var/lib/a", b"")
    before = os.umask(umask)
    try:
        make_ext4_qcow2(
            [Unpacked(folder / "first.tar"), Unpacked(folder / "second.tar", "etc/deep/place")],
            label="test", uuid=UUID, size_gib=1, epoch=EPOCH,
            making=Making({}, folder / "scratch", folder / "log"), output=folder / "disk.qcow2",
        )  # fmt: skip
    finally:
        os.umask(before)
    return folder / "disk.qcow2"


def test_another_moment_and_another_umask_give_the_same_bytes(tmp_path: Path) -> None:
    first = make(tmp_path / "a", umask=0o022)
    time.sleep(1.1)  # times in a file system are whole seconds
    assert file_digest(first) == file_digest(make(tmp_path / "b c", umask=0o077))


def test_it_holds_what_was_in_the_tars(tmp_path: Path) -> None:
    disk, raw = make(tmp_path / "a", umask=0o022), tmp_path / "raw"
    run(["qemu-img", "convert", "-O", "raw", disk, raw], timeout=60)
    assert run(["e2fsck", "-f", "-n", raw], timeout=60).returncode == 0
    listing = run(["debugfs", "-R", "ls -p /etc/deep/place/var/lib", raw], timeout=60).stdout
    assert re.findall(r"/100644/0/0/(\w+)/(\d+)/", listing) == [("a", "0"), ("z", "5000")]
    told = run(["debugfs", "-R", "stat /etc/deep", raw], timeout=60).stdout
    assert re.findall(r"Mode: +(\d+)", told) == ["0755"]
    times = dict(re.findall(r"(\w+time): 0x(\w+):", told))
    assert {name: int(value, 16) for name, value in times.items()} == dict.fromkeys(times, EPOCH)
