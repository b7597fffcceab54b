"""squashfs images made by mksquashfs, read as streams; layers compared with what the kernel's overlayfs shows."""

from __future__ import annotations

import functools
import json
import os
import random
import re
import sys
from pathlib import Path

import pytest

from pipeline.errors import MissingProgramError
from pipeline.media.layers import Layer, merge
from pipeline.media.limits import Limits
from pipeline.media.member import Member, MemberKind
from pipeline.media.squashfs import SquashfsError, read_squashfs, read_superblock
from pipeline.run import run
from pipeline.workspace import REPOSITORY

COMPRESSORS = ("gzip", "xz", "lz4", "zstd", "lzo")
TIMEOUT = 120.0
EPOCH = 1_700_000_000


def squash(tree: Path, image: Path, *options: str) -> Path:
    """Make an image of *tree*; everything in it belongs to root."""
    argv: list[str | Path] = ["mksquashfs", tree, image, "-noappend", "-quiet", "-no-progress", "-all-root", *options]
    run(argv, timeout=TIMEOUT, env={"SOURCE_DATE_EPOCH": str(EPOCH)})
    return image


def described(image: Path) -> dict[str, tuple[object, ...]]:
    """Return what is in *image*: kind, mode, content or target."""
    return {member.path: describe(member) for member in read_squashfs(image)}


def describe(member: Member) -> tuple[object, ...]:
    about = member.target or member.device if "device" in member.kind else member.target
    return (member.kind, oct(member.mode), b"".join(member.content) or about)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"tool")
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "usr/bin/other-name").hardlink_to(root / "usr/bin/tool")
    (root / "bin").symlink_to("usr/bin")
    (root / ("n" * 255)).write_text("a long name")
    (root / "größe").write_text("not ASCII")
    (root / "empty").touch()
    with (root / "sparse").open("wb") as stream:
        stream.truncate(3 << 20)
        stream.seek(1 << 20)
        stream.write(b"x")
    return root


def test_everything_in_an_image_comes_out(tree: Path, tmp_path: Path) -> None:
    pseudo = ("-p", "gone c 000 0 0 0 0", "-p", "disk b 660 0 6 8 1")
    found = described(squash(tree, tmp_path / "image", *pseudo))
    sparse = found.pop("sparse")[2]
    assert isinstance(sparse, bytes)
    assert (len(sparse), sparse.index(b"x"), sparse.count(0)) == (3 << 20, 1 << 20, (3 << 20) - 1)
    kinds = MemberKind
    assert found == {
        "bin": (kinds.SYMLINK, "0o777", "usr/bin"),
        "disk": (kinds.BLOCK_DEVICE, "0o660", (8, 1)),
        "empty": (kinds.FILE, "0o644", ""),
        "gone": (kinds.CHARACTER_DEVICE, "0o0", (0, 0)),
        "größe": (kinds.FILE, "0o644", b"not ASCII"),
        "n" * 255: (kinds.FILE, "0o644", b"a long name"),
        "usr": (kinds.DIRECTORY, "0o755", ""),
        "usr/bin": (kinds.DIRECTORY, "0o755", ""),
        "usr/bin/other-name": (kinds.FILE, "0o4755", b"tool"),
        "usr/bin/tool": (kinds.HARDLINK, "0o4755", "usr/bin/other-name"),
    }


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_every_compressor_is_read_and_named(tree: Path, tmp_path: Path, compressor: str) -> None:
    image = squash(tree, tmp_path / "image", "-comp", compressor)
    superblock = read_superblock(image)
    assert (superblock.compressor, superblock.made) == (compressor, EPOCH)
    assert superblock.used <= image.stat().st_size
    assert described(image)["usr/bin/other-name"][2] == b"tool"


def test_whiteouts_that_are_one_inode_are_members_of_their_own(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes device nodes")
    upper = tmp_path / "upper"
    upper.mkdir()
    os.mknod(upper / "a", 0o020000, os.makedev(0, 0))
    (upper / "b").hardlink_to(upper / "a")  # as the kernel does it
    found = described(squash(upper, tmp_path / "image"))
    assert found == dict.fromkeys(("a", "b"), (MemberKind.CHARACTER_DEVICE, "0o0", (0, 0)))


def test_extended_attributes_come_along(tree: Path, tmp_path: Path) -> None:
    value = b"\0\xff\n=binary"
    os.setxattr(tree / "usr/bin/tool", "user.note", value)
    members = {member.path: member for member in read_squashfs(squash(tree, tmp_path / "image", "-xattrs"))}
    assert members["usr/bin/other-name"].xattrs == {"user.note": value}


def test_what_is_not_read_is_skipped(tree: Path, tmp_path: Path) -> None:
    image = squash(tree, tmp_path / "image")
    assert [member.path for member in read_squashfs(image)] == list(described(image))


def test_nothing_runs_on_when_nobody_reads_on(tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_bytes(random.Random(1).randbytes(8 << 20))
    members = read_squashfs(squash(tree, tmp_path / "image"))
    next(members)
    assert children("sqfs2tar")
    members.close()
    assert not children("sqfs2tar")


def children(name: str) -> list[int]:
    """Return our children that run the program *name*."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == name]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"it does not begin like one, but with ''"),
        (b"<!DOCTYPE html>" * 10, r"it does not begin like one, but with '<!DO'"),
        (b"sqsh" + bytes(200), "version before 4"),
        (b"hsqs" + bytes(20), "it is truncated: it has 24 bytes"),
        (b"hsqs" + bytes(24) + b"\3\0\1\0" + bytes(64), r"it is of version 3\.1; only version 4"),
    ],
)
def test_what_is_no_squashfs_is_said_to_be_none(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.squashfs").write_bytes(data)
    with pytest.raises(SquashfsError, match=r"a\.squashfs cannot be read as a squashfs image") as caught:
        list(read_squashfs(tmp_path / "a.squashfs"))
    assert re.search(reason, caught.value.details)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of half a megabyte, gzip: it notices most damages."""
    folder = tmp_path_factory.mktemp("noisy")
    (folder / "tree/d").mkdir(parents=True)
    for number in range(40):
        words = random.Random(number).choices(("some", "words", "that", "compress", str(number)), k=9000)
        (folder / f"tree/d/{number}").write_text(" ".join(words))
    return squash(folder / "tree", folder / "image", "-comp", "gzip")


def test_an_image_that_is_cut_is_never_taken_for_whole(noisy: Path, tmp_path: Path) -> None:
    data, cut = noisy.read_bytes(), tmp_path / "cut"
    used = read_superblock(noisy).used
    for number in range(50):
        cut.write_bytes(data[: used * number // 50])
        with pytest.raises(SquashfsError) as caught:
            list(read_squashfs(cut))
        assert number == 0 or caught.value.details.startswith("it is truncated: it has")


def test_damage_anywhere_is_an_error_of_ours_or_none(noisy: Path, tmp_path: Path) -> None:
    data, chance, refused = noisy.read_bytes(), random.Random(4), 0
    used = read_superblock(noisy).used
    for _ in range(60):
        damaged, place = bytearray(data), chance.randrange(used)
        damaged[place : place + 16] = chance.randbytes(16)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            for member in read_squashfs(tmp_path / "damaged"):
                assert sum(map(len, member.content)) == member.size
        except SquashfsError as error:
            refused += 1
            assert error.details  # noqa: PT017 (it is one of two that may happen)
    assert refused > 40
    assert not children("sqfs2tar")


def test_an_image_that_unpacks_to_too_much_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree/zeros").open("wb") as stream:
        stream.truncate(1 << 30)
    image = squash(tmp_path / "tree", tmp_path / "bomb")
    with pytest.raises(SquashfsError) as caught:
        list(read_squashfs(image))
    assert "more than is allowed" in caught.value.details


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(members=3), "it has more than 3 members"),
        (Limits(member=1 << 20), "sparse has 3145728 bytes, more than 1048576"),
        (Limits(total=1 << 20), "unpacked it has more than 1048576 bytes"),
        (Limits(ratio_from=0, ratio=10), "unpacked it has more than 6"),
    ],
)
def test_limits_hold(tree: Path, tmp_path: Path, limits: Limits, reason: str) -> None:
    with pytest.raises(SquashfsError) as caught:
        list(read_squashfs(squash(tree, tmp_path / "image"), limits=limits))
    assert caught.value.details.startswith(reason)


def test_too_much_is_told_to_whoever_reads_the_content(tree: Path, tmp_path: Path) -> None:
    members = read_squashfs(squash(tree, tmp_path / "image"), limits=Limits(total=1 << 20))
    content = next(member.content for member in members if member.path == "sparse")
    with pytest.raises(SquashfsError, match="cannot be read"):
        list(content)


@pytest.mark.parametrize("name", [b"..", b"/x", b"\n\t", b"\xff\xfe", b"ab"])
def test_hostile_names_are_refused(tmp_path: Path, name: bytes) -> None:
    """Names as no honest tool writes them; the last is another one's that is there already."""
    folder = tmp_path / "tree/d"
    folder.mkdir(parents=True)
    (folder / "ab").write_text("1")
    (folder / "qq").write_text("2")
    image = squash(tmp_path / "tree", tmp_path / "image", "-noI", "-noD", "-noF")
    data = image.read_bytes()
    assert data.count(b"qq") == 1
    image.write_bytes(data.replace(b"qq", name))
    with pytest.raises(SquashfsError):
        list(read_squashfs(image))


def test_without_sqfs2tar_the_program_is_named(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = squash(tree, tmp_path / "image")
    monkeypatch.setattr("pipeline.run.find_program", lambda _: None)
    with pytest.raises(MissingProgramError, match="sqfs2tar"):
        list(read_squashfs(image))


def test_merged_layers_are_what_the_kernel_shows(tmp_path: Path) -> None:
    """Real upper directories of overlayfs, packed and merged, beside the same directories mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts overlayfs with trusted attributes")
    whiteouts = 0
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        script: list[str | Path] = [sys.executable, "-m", "tests.fakes.overlay_mounts", folder, str(seed)]
        done = run(["unshare", "--mount", "--", *script], timeout=TIMEOUT, cwd=REPOSITORY, check=False)
        if done.returncode == 77:
            pytest.skip(f"no overlayfs here: {done.stdout}")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert shown([folder / name for name in told["layers"]]) == told["shown"], f"seed {seed}"
        whiteouts += told["whiteouts"]
    assert whiteouts > 8


def shown(images: list[Path]) -> dict[str, list[object]]:
    layers = [Layer(name=image.name, read=functools.partial(read_squashfs, image)) for image in images]
    found: dict[str, list[object]] = {}
    for member in merge(layers):
        content = b"".join(member.content).decode()
        is_link = member.kind is MemberKind.HARDLINK
        look: list[object] = [member.kind.value, member.mode, member.mtime, content or member.target]
        found[member.path] = found[member.target] if is_link else look
    return found
