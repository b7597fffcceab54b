"""Root filesystems from foreign members, unpacked by GNU tar: as root where the tests run as root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.media.member import MemberKind
from pipeline.media.rootfs_tar import UnfitRootfsError, write_rootfs
from pipeline.run import run
from tests.fakes.trees import file, folder, hostile_members, link, system

HOSTILE = 10_000


@pytest.fixture(scope="module")
def has_xattrs(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether the temporary folder's file system takes extended attributes."""
    probe = tmp_path_factory.mktemp("probe") / "file"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"1")
    except OSError:
        return False
    return True


def unpack(archive: Path, into: Path) -> None:
    """Unpack as the installer does (installer/system.py)."""
    into.mkdir()
    run(
        [
            "tar", "--extract", "--zstd", "--file", archive, "--directory", into,
            "--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*",
        ],
        timeout=60,
    )  # fmt: skip


def test_gnu_tar_unpacks_all_as_it_was(tmp_path: Path, *, has_xattrs: bool) -> None:
    owner = {"uid": 1234, "gid": 3_000_000} if os.geteuid() == 0 else {}
    xattrs = {"user.note": b"\0\1 binary \xff\n"} if has_xattrs else {}
    long = "/".join(["folder-with-a-long-name"] * 12)
    members = [
        folder("usr/é", 0o2750, mtime=1_000, **owner),
        file("usr/é/naïve", b"content" * 1000, 0o4711, mtime=1_234_567_890, xattrs=xattrs, **owner),
        file(f"{long}/file", b"deep", mtime=5),
        link(f"{long}/link", f"/{long}/" + "x" * 150),
        link("usr/same", "usr/é/naïve", MemberKind.HARDLINK),
        file("usr/empty", b"", 0o000, mtime=2**33),
        file("usr/caf\udce9", b"latin"),
    ]
    archive, tree = tmp_path / "rootfs.tar.zst", tmp_path / "tree"
    write_rootfs([*system(), *members], archive, epoch=None)
    unpack(archive, tree)
    for member in members:
        path = tree / member.path
        found = path.lstat()
        if member.kind is MemberKind.SYMLINK:
            assert str(path.readlink()) == member.target
        elif member.kind is MemberKind.HARDLINK:
            assert found.st_ino == (tree / member.target).stat().st_ino
        else:
            assert (stat.S_IMODE(found.st_mode), int(found.st_mtime)) == (member.mode, member.mtime), member.path
            assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == dict(member.xattrs)
            if os.geteuid() == 0:
                assert (found.st_uid, found.st_gid) == (member.uid, member.gid)
        if member.kind is MemberKind.FILE:
            assert path.stat().st_size == member.size
    assert (tree / "usr/é/naïve").read_bytes() == b"content" * 1000
    assert (tree / "etc/os-release").read_text().startswith("NAME=")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set capabilities")
def test_capabilities_arrive(tmp_path: Path, *, has_xattrs: bool) -> None:
    if not has_xattrs:
        pytest.skip("the file system takes no extended attributes")
    wanted = {
        "security.capability": bytes.fromhex(
            "0100000200200000000000000000000000000000"
        ),  # cap_net_raw=ep, capabilities(7)
        "user.note": b"n",
    }
    write_rootfs([*system(), file("usr/bin/ping", b"#", 0o755, xattrs=wanted)], tmp_path / "r", epoch=None)
    unpack(tmp_path / "r", tmp_path / "tree")
    ping = tmp_path / "tree/usr/bin/ping"
    assert {name: os.getxattr(ping, name) for name in os.listxattr(ping)} == wanted


def accepted(folder_: Path, seeds: range, outside: Path) -> Iterator[Path]:
    """Yield archives of the hostile trees that were not refused."""
    for seed in seeds:
        output = folder_ / f"{seed}.tar.zst"
        try:
            write_rootfs(hostile_members(seed, outside=str(outside)), output, epoch=0)
        except UnfitRootfsError:
            assert not output.exists()
        else:
            yield output


def test_nothing_of_hostile_trees_gets_out_or_becomes_a_node(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("sings")
    trees = tmp_path / "trees"
    trees.mkdir()
    before = run(["find", "/etc", "-maxdepth", "1", "-printf", "%p %T@\n"], timeout=10).stdout
    count = 0
    for archive in accepted(tmp_path, range(HOSTILE), outside):
        tree = trees / archive.stem
        unpack(archive, tree)
        archive.unlink()
        count += 1
    kinds = run(["find", trees, "!", "-type", "f", "!", "-type", "d", "!", "-type", "l"], timeout=60).stdout
    assert kinds == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "trees"]
    assert {path.name for path in trees.iterdir()} <= {f"{seed}.tar" for seed in range(HOSTILE)}
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("canary", "sings")]
    assert run(["find", "/etc", "-maxdepth", "1", "-printf", "%p %T@\n"], timeout=10).stdout == before
    assert HOSTILE // 20 < count < HOSTILE * 19 // 20  # of both there are enough
