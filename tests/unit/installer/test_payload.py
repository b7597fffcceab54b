"""What the initrds unpacked to, compared with what was promised."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import zlib
from pathlib import Path

import pytest

from contracts import payload as tree
from contracts.arch import Arch
from contracts.install import InstallerConfig, PayloadSource
from installer import payload
from installer.errors import InstallError
from pipeline import cpio
from pipeline.payload import tree_digest

INITRD = [
    cpio.directory("dev"),
    cpio.character_device("dev/console", 5, 1),
    cpio.directory("tmp", mode=0o1777),
    cpio.symlink("bin", "usr/bin"),
    cpio.regular("init", b"#!/bin/sh\n" * 50, mode=0o755),
    cpio.regular("usr/bin/program", random.Random(1).randbytes(3000), mode=0o755),
    cpio.regular("etc/empty", b""),
    cpio.directory("usr/lib"),
]
MODULES = [
    cpio.regular("usr/lib/modules/6.1/kernel/a.ko", random.Random(2).randbytes(2000)),
    cpio.regular("usr/lib/modules/6.1/modules.dep", b"kernel/a.ko:\n"),
]
PROMISED = (tree_digest(INITRD, modules=False), tree_digest(MODULES, modules=True))


def config(initrd: str = PROMISED[0], modules: str = PROMISED[1]) -> InstallerConfig:
    return InstallerConfig(
        name="web1", mac="52:54:00:00:00:07", arch=Arch.X86_64, distro="debian-12", domain="pvmlab.local",
        disk="/dev/nvme0n1", rootfs=PayloadSource(url="http://10.0.0.1/r", sha256="0" * 64, size=1), kernel_args=(),
        kernel=None, initrd_tree=initrd, modules_tree=modules, seed_url="http://10.0.0.1/s/", report_url="http://10.0.0.1/r",
    )  # fmt: skip


def unpack(entries: list[cpio.Entry], root: Path) -> None:
    """Write what the kernel would, but for device nodes."""
    for entry in cpio.arrange(entries):
        path = root / entry.path
        if stat.S_ISDIR(entry.mode):
            path.mkdir(exist_ok=True)
        elif stat.S_ISLNK(entry.mode):
            path.symlink_to(entry.data.decode())
        elif stat.S_ISREG(entry.mode):
            path.write_bytes(entry.data)
        if not stat.S_ISLNK(entry.mode) and path.exists():
            path.chmod(stat.S_IMODE(entry.mode))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree of both archives. It belongs to whoever runs the tests: he stands for root."""
    made = tmp_path / "root"
    made.mkdir()
    unpack(INITRD + MODULES, made)
    plain = tree.line_of
    me = (os.getuid(), os.getgid())

    def line_of(path: str, mode: int, content: str, *, owner: tuple[int, int] = (0, 0)) -> bytes:
        return plain(path, mode, content, owner=(0, 0) if owner == me else owner)

    monkeypatch.setattr(tree, "line_of", line_of)
    return made


def verify(root: Path) -> str:
    return payload.verify(payload.start_measuring(root), config())


def test_what_was_built_is_what_is_measured(root: Path) -> None:
    assert verify(root) == "the initrds are the ones promised"


def test_what_is_mounted_and_written_meanwhile_does_not_count(root: Path) -> None:
    for folder in ("proc", "sys", "run", "root", "target"):
        (root / folder).mkdir()
        (root / folder / "file").write_text("anything")
    (root / "etc/resolv.conf").write_text("nameserver 10.0.0.1\n")
    verify(root)


@pytest.mark.parametrize(
    ("path", "archive"),
    [
        ("init", "the installer's initrd"),
        ("usr/bin/program", "the installer's initrd"),
        ("usr/lib/modules/6.1/kernel/a.ko", "the archive of kernel modules"),
    ],
)
def test_a_changed_bit_is_found(root: Path, path: str, archive: str) -> None:
    data = bytearray((root / path).read_bytes())
    data[len(data) // 2] ^= 0x10
    (root / path).write_bytes(data)
    with pytest.raises(InstallError, match=f"{archive} is not the one promised") as caught:
        verify(root)
    assert caught.value.lines[0].startswith("expected tree ")


def test_a_file_more_or_less_or_another_mode_or_target_is_found(root: Path) -> None:
    def refused() -> None:
        with pytest.raises(InstallError, match="initrd is not the one promised"):
            verify(root)

    (root / "usr/bin/more").write_text("")
    refused()
    (root / "usr/bin/more").unlink()
    (root / "init").chmod(0o744)
    refused()
    (root / "init").chmod(0o755)
    (root / "bin").unlink()
    (root / "bin").symlink_to("usr/sbin")
    refused()
    (root / "bin").unlink()
    (root / "bin").symlink_to("usr/bin")
    verify(root)
    (root / "etc/empty").unlink()
    refused()


def test_a_tree_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"cannot be checked: .*No such file"):
        payload.verify(payload.start_measuring(tmp_path / "none"), config())


def test_a_bit_that_changes_on_the_way_is_found_or_changes_nothing() -> None:
    """Of a thousand places: the archive does not unpack any more, or its digest is another, or all is as it was."""
    stream = io.BytesIO()
    cpio.write(stream, INITRD)
    packed = gzip.compress(stream.getvalue(), 6, mtime=0)
    chance, found = random.Random(5), {"refused by the kernel": 0, "found": 0, "harmless": 0}
    for _ in range(1000):
        changed = bytearray(packed)
        changed[chance.randrange(10, len(packed))] ^= 1 << chance.randrange(8)
        try:
            entries = read_as_the_kernel(bytes(changed))
            digest = tree_digest(entries, modules=False)
        except (ValueError, zlib.error):
            found["refused by the kernel"] += 1
        else:
            assert (digest == PROMISED[0]) is (_counting(entries) == _counting(INITRD))
            found["harmless" if digest == PROMISED[0] else "found"] += 1
    assert found["found"] > 400  # without a digest, all of these would go unnoticed: no kernel checks gzip's sum
    assert found["harmless"] < 100  # inode numbers, padding, gzip's own sum


def _counting(entries: list[cpio.Entry]) -> list[cpio.Entry]:
    return [entry for entry in cpio.arrange(entries) if tree.counts(entry.path)]


def read_as_the_kernel(packed: bytes) -> list[cpio.Entry]:
    """Return the entries; gzip's checksum is not looked at, as the kernel does not (lib/decompress_inflate.c)."""
    raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed[10:])
    entries: list[cpio.Entry] = []
    place = 0
    while True:
        header = raw[place : place + 110]
        if header[:6] != b"070701":
            raise ValueError("no header")
        fields = [int(header[start : start + 8], 16) for start in range(6, 110, 8)]
        name = raw[place + 110 : place + 110 + fields[11] - 1].decode()
        content = place + -(-(110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            return cpio.arrange(entries)
        if (fields[2], fields[3]) != (0, 0):
            raise ValueError("another owner: the digest has it, Entry has not")
        data = raw[content : content + fields[6]]
        device = (fields[9], fields[10]) if stat.S_ISCHR(fields[1]) else (0, 0)
        entries.append(cpio.Entry(name, fields[1], data, device))
        place = content + -(-fields[6] // 4) * 4


def test_an_entry_in_the_other_archives_place_is_refused() -> None:
    with pytest.raises(ValueError, match="is no module"):
        tree_digest(INITRD, modules=True)
    with pytest.raises(ValueError, match="in the place of the modules"):
        tree_digest(MODULES, modules=False)
