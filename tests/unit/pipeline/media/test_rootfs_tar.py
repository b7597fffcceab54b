"""Root filesystems from what others made: what gets in, what is left out, what is refused."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from pipeline.documents.contents import files_in
from pipeline.media.installed_packages import InstalledPackage, PackageManager
from pipeline.media.limits import Limits
from pipeline.media.member import Member, MemberKind
from pipeline.media.rootfs_tar import RootfsSummary, UnfitRootfsError, write_rootfs
from pipeline.progress import Progress
from tests.fakes.trees import KERNEL, OS_RELEASE, file, folder, link, special, system

HARD = MemberKind.HARDLINK


def write(
    folder_: Path, *members: Member, epoch: int | None = None
) -> tuple[RootfsSummary, dict[str, tarfile.TarInfo]]:
    output = folder_ / "rootfs.tar.zst"
    summary = write_rootfs([*system(), *members], output, epoch=epoch)
    with (
        zstandard.ZstdDecompressor().stream_reader(output.read_bytes()) as plain,
        tarfile.open(fileobj=plain, mode="r|", errors="surrogateescape") as archive,
    ):
        return summary, {member.name: member for member in archive}


def test_a_system_is_written_and_described(tmp_path: Path) -> None:
    summary, members = write(tmp_path, file("usr/bin/su", b"su", 0o4755, uid=0, gid=70_000, mtime=1_700_000_000))
    assert (members["usr/bin/su"].mode, members["usr/bin/su"].gid, members["usr/bin/su"].mtime) == (
        0o4755,
        70_000,
        1.7e9,
    )
    assert members["lib"].linkname == "usr/lib"
    assert summary.kernels == (KERNEL,)
    assert summary.size == len(OS_RELEASE) + len(b"module") + len(b"su")
    assert summary.members == len(members)
    assert summary.facts() == {
        "os": {"ID": "toy", "VERSION_ID": "1", "PRETTY_NAME": "Toy Linux 1 (o'clock)"},
        "kernels": [KERNEL],
        "epoch": 1_700_000_000,
        "dropped": {},
        "package_manager": None,
        "packages": [],
    }
    assert {found.path for found in files_in(tmp_path / "rootfs.tar.zst")} >= {"usr/bin/su", "usr/lib/os-release"}


def test_missing_folders_are_added_and_later_described(tmp_path: Path) -> None:
    _, members = write(tmp_path, file("opt/a/b/c"), folder("opt/a", 0o700, uid=5))
    assert (members["opt"].mode, members["opt/a"].mode, members["opt/a"].uid) == (0o755, 0o700, 5)
    modes = {name: members[name].mode for name in ("dev", "proc", "run", "sys", "tmp")}
    assert modes == {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}


def test_no_time_is_later_than_the_epoch(tmp_path: Path) -> None:
    summary, members = write(tmp_path, file("a", mtime=500), file("b", mtime=2_000), file("c", mtime=-7), epoch=1_000)
    assert [members[name].mtime for name in "abc"] == [500, 1_000, 0]
    assert (summary.epoch, max(member.mtime for member in members.values())) == (1_000, 1_000)


def test_what_is_filled_while_a_system_runs_is_left_out(tmp_path: Path) -> None:
    summary, members = write(
        tmp_path,
        folder("dev", 0o700),
        special("dev/null", MemberKind.CHARACTER_DEVICE),
        link("dev/fd", "/proc/self/fd"),
        file("tmp/x"),
        folder("run/lock"),
        special("var/spool/pipe", MemberKind.FIFO),
        special("var/lib/socket", MemberKind.SOCKET),
        folder("lost+found"),
        file("boot/lost+found/x"),
        file("opt/dev/x"),
    )
    assert summary.dropped == {
        "below /dev": 2, "below /run": 1, "below /tmp": 1, "lost+found": 2, "named pipes": 1, "sockets": 1,
    }  # fmt: skip
    assert members["dev"].mode == 0o700
    assert "opt/dev/x" in members
    assert not {name for name in members if name.startswith(("dev/", "tmp/", "run/", "lost+found"))}
    assert all(member.isreg() or member.isdir() or member.issym() or member.islnk() for member in members.values())


def test_extended_attributes_that_mean_something_are_kept(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    xattrs = {
        "security.capability": capability,
        "security.selinux": b"system_u:object_r:bin_t:s0\0",
        "system.posix_acl_access": b"\2\0\0\0",
        "user.note": b"a=b\nc",
        "trusted.overlay.opaque": b"y",
        "btrfs.compression": b"zstd",
    }
    summary, members = write(tmp_path, file("usr/bin/ping", xattrs=xattrs), folder("srv", xattrs={"user.x": b"1"}))
    found = {
        key.removeprefix("SCHILY.xattr."): value.encode(errors="surrogateescape")
        for key, value in members["usr/bin/ping"].pax_headers.items()
    }
    assert found == {key: value for key, value in xattrs.items() if not key.startswith(("trusted", "btrfs"))}
    assert members["srv"].pax_headers == {"SCHILY.xattr.user.x": "1"}
    assert summary.dropped == {"extended attributes of other kinds": 2}


def test_hard_links_name_what_came_before(tmp_path: Path) -> None:
    _, members = write(tmp_path, file("a", b"1"), link("b", "a", HARD), link("c", "b", HARD), link("d", "lib", HARD))
    assert {name: members[name].linkname for name in "bcd"} == {"b": "a", "c": "b", "d": "lib"}


def test_equal_members_give_equal_bytes(tmp_path: Path) -> None:
    outputs = [tmp_path / "1", tmp_path / "2"]
    large = file("usr/large", bytes(range(256)) * 20_000)
    for output in outputs:
        write_rootfs([*system(), large], output, epoch=9)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[Progress] = []
    content = Member(
        path="usr/x", kind=MemberKind.FILE, mode=0o644, size=20 << 20, content=(bytes(1 << 20) for _ in range(20))
    )
    write_rootfs([*system(), content], tmp_path / "r", epoch=None, listener=seen.append)
    assert [(step.step, step.done > 20 << 20) for step in seen] == [("writing the root filesystem", True)]


BELOW = "below a, which is a symbolic"
REFUSED: dict[str, tuple[list[Member], str]] = {
    "absolute": ([file("/etc/passwd")], "not a relative name in its shortest form"),
    "upwards": ([file("../x")], "not a relative name"),
    "upwards, further in": ([file("usr/../../x")], "not a relative name"),
    "not shortest": ([file("usr//x")], "not a relative name"),
    "dot": ([file("usr/./x")], "not a relative name"),
    "upwards below a folder that is left out": ([file("tmp/../../x")], "not a relative name"),
    "the root is no folder": ([link(".", "/etc")], "/: a symlink"),
    "below a link": ([link("a", "/etc"), file("a/x")], "below a, which is a symlink"),
    "below a link, far": ([link("a", "/etc"), file("a/b/c/x")], "below a, which is a symlink"),
    "below a link that comes later": ([file("a/x"), link("a", "/etc")], "a directory, and then again as a symlink"),
    "below a hard link to a link": (
        [link("a", "/etc"), link("b", "a", HARD), file("b/x")],
        "below b, which is a symlink",
    ),
    "below a file": ([file("a"), file("a/x")], "below a, which is a file"),
    "a file, then a link": ([file("a"), link("a", "/etc")], "a file, and then again as a symlink"),
    "a folder, then a link": ([folder("a"), link("a", "/etc")], "a directory, and then again as a symlink"),
    "a link, then a folder": ([link("a", "/etc"), folder("a")], "a symlink, and then again as a directory"),
    "a file, then a hard link": ([file("a"), file("b"), link("a", "b", HARD)], "a file, and then again as a hard link"),
    "hard link out": ([link("a", "/etc/shadow", HARD)], "a hard link to '/etc/shadow', which is no file"),
    "hard link up": ([link("a", "../x", HARD)], "which is no file that came before it"),
    "hard link to what comes later": ([link("a", "b", HARD), file("b")], "which is no file that came before it"),
    "hard link to a folder": ([link("a", "usr", HARD)], "which is no file that came before it"),
    "hard link to what is left out": ([file("tmp/x"), link("a", "tmp/x", HARD)], "which is no file that came before"),
    "hard link to itself": ([link("a", "a", HARD)], "which is no file that came before it"),
    "disk": ([special("usr/sda", MemberKind.BLOCK_DEVICE)], "usr/sda: a block device outside of /dev"),
    "null": ([special("etc/null", MemberKind.CHARACTER_DEVICE)], "a character device outside of /dev"),
    "escape sequence": ([file("usr/\x1b[2Jx")], "control character"),
    "new line": ([file("usr/a\nb")], "control character"),
    "new line in a link": ([link("usr/a", "b\nc")], "control character"),
    "link to nowhere": ([link("usr/a", "")], "a symbolic link to nowhere"),
    "long part": ([file("usr/" + "x" * 256)], "longer than Linux allows"),
    "long part in bytes": ([file("usr/" + "é" * 128)], "longer than Linux allows"),
    "long path": ([file("a/" * 2048 + "x")], "longer than Linux allows"),
    "owner": ([file("a", uid=-1)], "its owner is -1:0"),
    "owner too large": ([file("a", gid=1 << 32)], "its owner is 0:4294967296"),
    "cut off": ([dataclasses.replace(file("a", b"12345"), size=9)], "a: its content ends after 5 of 9 bytes"),
    "too long": ([dataclasses.replace(file("a", b"12345"), size=2)], "a: its content is more than the 2 bytes"),
    "negative size": ([dataclasses.replace(file("a", b""), size=-2)], "its content ends after 0 of -2 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_must_not_be_unpacked_is_refused(tmp_path: Path, name: str) -> None:
    members, complaint = REFUSED[name]
    with pytest.raises(UnfitRootfsError) as caught:
        write(tmp_path, *members)
    assert complaint in caught.value.brief
    assert caught.value.brief.isprintable()
    assert list(tmp_path.iterdir()) == []  # nothing is left of it


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([], "no os-release, neither in /etc nor in /usr/lib among its 0 members"),
        ([folder("usr"), link("etc/os-release", "../gone")], "no os-release"),
        ([file("etc/os-release", OS_RELEASE)], "no /usr"),
        ([file("etc/os-release", OS_RELEASE), link("usr", "/srv")], "no /usr"),
    ],
)
def test_what_is_no_system_is_refused(tmp_path: Path, members: list[Member], complaint: str) -> None:
    with pytest.raises(UnfitRootfsError, match=complaint):
        write_rootfs(members, tmp_path / "r", epoch=None)
    assert not (tmp_path / "r").exists()


def test_limits_stop_it(tmp_path: Path) -> None:
    endless = (file(f"usr/{number}", b"12345678") for number in range(1_000_000))
    with pytest.raises(UnfitRootfsError, match="more than 100 members"):
        write_rootfs(endless, tmp_path / "r", epoch=None, limits=Limits(members=100))
    with pytest.raises(UnfitRootfsError, match="usr/12: 8 bytes, with which the files are 104 bytes"):
        write_rootfs(
            (file(f"usr/{n}", b"12345678") for n in range(99)),
            tmp_path / "r",
            epoch=None,
            limits=Limits(total=100),
        )


def test_an_error_of_the_source_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    def members() -> Iterator[Member]:
        yield from system()
        raise EOFError("the medium is cut off")

    with pytest.raises(EOFError, match="cut off"):
        write_rootfs(members(), tmp_path / "r", epoch=None)
    assert not (tmp_path / "r").exists()


def test_packages_are_read_while_they_pass(tmp_path: Path) -> None:
    status = (
        b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc (2.36-9)\n"
        b"Version: 2.36-9+deb12u1\n"
        b"Description: library\n more: text\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    summary, _ = write(tmp_path, file("var/lib/dpkg/status", status))
    assert summary.manager is PackageManager.DPKG
    assert summary.packages == (InstalledPackage("libc6", "2.36-9+deb12u1", "amd64", "glibc"),)
    assert summary.facts()["packages"] == [
        {"type": "deb", "name": "libc6", "version": "2.36-9+deb12u1", "arch": "amd64", "source": "glibc",
         "vendor": "toy"}
    ]  # fmt: skip


def test_a_package_manager_that_is_only_a_tool_does_not_count(tmp_path: Path) -> None:
    apk = b"C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\no:musl\n\n"
    summary, _ = write(
        tmp_path, file("var/lib/dpkg/status", b""), file("lib2/x"), file("usr/lib/apk/db/installed", apk)
    )
    assert (summary.manager, summary.packages) == (
        PackageManager.APK,
        (InstalledPackage("musl", "1.2.5-r0", "x86_64", "musl"),),
    )


@pytest.mark.parametrize(
    "path", ["usr/lib/sysimage/rpm/Packages.db", "var/lib/rpm/Packages", "var/lib/rpm/rpmdb.sqlite"]
)
def test_a_database_that_cannot_be_read_is_no_fault(tmp_path: Path, path: str) -> None:
    summary, _ = write(tmp_path, file(path, b"not a database"))
    assert (summary.manager, summary.packages, summary.facts()["packages"]) == (PackageManager.RPM, None, [])
