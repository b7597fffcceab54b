"""Kernel and initrd are found in a root filesystem, and a doubtful one is refused."""

import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from pipeline.debian.rootfs import extract_boot_files
from pipeline.errors import PvmlabError


def make_rootfs(path: Path, *names: str) -> Path:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    path.write_bytes(zstandard.compress(plain.getvalue()))
    return path


def outputs(folder: Path) -> dict[str, Path]:
    return {"vmlinuz": folder / "vmlinuz", "initrd.img": folder / "initrd"}


@pytest.mark.parametrize("prefix", ["./", ""])
def test_both_are_found_whatever_the_version(tmp_path: Path, prefix: str) -> None:
    rootfs = make_rootfs(
        tmp_path / "r", f"{prefix}boot/vmlinuz-6.1-x", f"{prefix}etc/passwd", f"{prefix}boot/initrd.img-6.1-x"
    )
    assert extract_boot_files(rootfs, outputs(tmp_path)) == "6.1-x"
    assert (tmp_path / "vmlinuz").read_text() == f"{prefix}boot/vmlinuz-6.1-x"
    assert (tmp_path / "initrd").read_text() == f"{prefix}boot/initrd.img-6.1-x"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["boot/vmlinuz-1"], r"has no /boot/initrd\.img-<version>"),
        (["boot/vmlinuz-1", "boot/vmlinuz-2", "boot/initrd.img-1"], "more than one vmlinuz: versions 1 and 2"),
        (["boot/vmlinuz-1", "boot/initrd.img-2"], "kernel and initrd of different versions: 1, 2"),
    ],
)
def test_a_doubtful_rootfs_is_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    with pytest.raises(PvmlabError, match=complaint):
        extract_boot_files(make_rootfs(tmp_path / "r", *names), outputs(tmp_path))
