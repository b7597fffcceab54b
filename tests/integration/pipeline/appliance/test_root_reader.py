"""Root file systems read out of images by the real appliance: every attribute of every file, and how it fails."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from contracts.arch import Arch
from distros.family import Family
from distros.release import Medium, MediumKind, Release, Sources
from pipeline.appliance.boot import Appliance, ApplianceError
from pipeline.appliance.root_reader import JobLimits, UnreadableRootError, read_root
from pipeline.appliance.traces import without_traces
from pipeline.artifact import Making
from pipeline.digests import file_digest
from pipeline.kernel.boot_files import extract_boot_files
from pipeline.kernel.modules import read_modules
from pipeline.media.cloud_image import inspect_image
from pipeline.media.member import MemberKind
from pipeline.recipes.cloud_image import appliance_files, cloud_rootfs
from pipeline.recipes.media import medium_path
from pipeline.run import run
from pipeline.state import State
from pipeline.workspace import REPOSITORY, Cache
from tests.fakes.cloud_images import KVER, LAYOUTS, Layout, tree, with_jobs

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]

RELEASE = Release(
    name="test-1", title="A test", family=Family.FEDORA,
    sources={
        Arch.X86_64: Sources(
            media={MediumKind.CLOUD_IMAGE: Medium(kind=MediumKind.CLOUD_IMAGE, mirrors=(), file="x.qcow2")},
            rootfs=MediumKind.CLOUD_IMAGE,
        )
    },
)  # fmt: skip
Record = tuple[str, int, int, int, int, int, str, dict[str, bytes], str]
_KINDS = {
    tarfile.REGTYPE: MemberKind.FILE, tarfile.DIRTYPE: MemberKind.DIRECTORY, tarfile.SYMTYPE: MemberKind.SYMLINK,
    tarfile.LNKTYPE: MemberKind.HARDLINK,
}  # fmt: skip


def expected(layout: Layout) -> dict[str, Record]:
    """Return what the root filesystem must hold: path to all that is to be known of it."""
    found: dict[str, Record] = {}
    has_esp = any(part.type == "vfat" for part in layout.parts)
    for member in without_traces(tree(layout.text)):
        if member.kind is MemberKind.FIFO:
            continue
        content = hashlib.sha256(b"".join(member.content)).hexdigest() if member.kind is MemberKind.FILE else ""
        status = (member.mode, member.uid, member.gid, member.mtime)
        if has_esp and member.path.startswith("boot/efi"):  # FAT knows no owners and modes; fstab's umask is 0077
            status = (0o700, 0, 0, member.mtime)
        if member.kind in {MemberKind.SYMLINK, MemberKind.HARDLINK}:
            status = (0o777 if member.kind is MemberKind.SYMLINK else 0o755, *status[1:])
        found[member.path] = (member.kind, *status, member.size, member.target, dict(member.xattrs), content)
    return found


def written(path: Path) -> dict[str, Record]:
    """Return the same of a rootfs.tar.zst, read by tarfile."""
    found: dict[str, Record] = {}
    with (
        zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True) as plain,
        tarfile.open(fileobj=plain, mode="r|", errors="surrogateescape") as archive,
    ):
        for member in archive:
            data = archive.extractfile(member) if member.isreg() else None
            content = hashlib.sha256(data.read()).hexdigest() if data is not None else ""
            xattrs = {
                name.removeprefix("SCHILY.xattr."): os.fsencode(value)
                for name, value in member.pax_headers.items() if name.startswith("SCHILY.xattr.")
            }  # fmt: skip
            status = (member.mode, member.uid, member.gid, int(member.mtime))
            kind = _KINDS[member.type]
            found[member.name.removeprefix("./").rstrip("/")] = (
                kind, *status, member.size, member.linkname.removeprefix("./"), xattrs, content,
            )  # fmt: skip
    return found


def build(image: Path, folder: Path, appliance: Appliance) -> tuple[Path, dict[str, object]]:
    """Make ``rootfs.tar.zst`` of *image* by the recipe; return it with its facts."""
    cache = Cache(folder / "cache")
    medium = medium_path(RELEASE, Arch.X86_64, MediumKind.CLOUD_IMAGE, cache)
    medium.parent.mkdir(parents=True)
    medium.symlink_to(image)
    files = appliance_files(Arch.of_host(), cache)
    files.kernel.parent.mkdir(parents=True)
    files.kernel.symlink_to(appliance.kernel)
    files.initrd.symlink_to(appliance.initrd)
    artifact = cloud_rootfs(RELEASE, Arch.X86_64, cache)
    scratch, output = folder / "scratch", folder / "rootfs.tar.zst"
    scratch.mkdir()
    facts = artifact.make(Making({artifact.targets[0]: output}, scratch, folder / "log"))
    assert facts is not None
    return output, dict(facts)


def without(records: dict[str, Record], names: Iterable[str]) -> dict[str, Record]:
    return {path: record for path, record in records.items() if path not in set(names)}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_attribute_of_every_file_arrives(
    layout: Layout, images: dict[str, Path], appliance: Appliance, tmp_path: Path
) -> None:
    image = images[layout.name]
    before = file_digest(image)
    output, facts = build(image, tmp_path, appliance)
    assert file_digest(image) == before  # a journal's replay, if any, is QEMU's own
    wanted, found = expected(layout), written(output)
    # mount points: what is mounted there has times of its own (FAT's root none at all)
    places = {part.place.strip("/") for part in layout.parts} | {place.strip("/") for _, place in layout.subvolumes}
    assert found.keys() - {""} == wanted.keys()
    assert without(found, places | {""}) == without(wanted, places)
    assert facts["os"] == {"ID": "test", "VERSION_ID": "1.0", "PRETTY_NAME": "A test 1.0"}
    assert (facts["kernels"], facts["package_manager"]) == ([KVER], "dpkg")
    assert facts["left_out"] == (["/mnt no partition is /dev/vdz"] if layout.name == "ext4" else [])
    check_mounted(layout, facts["file_systems"])
    boot = extract_boot_files(output, vmlinuz=tmp_path / "vmlinuz", initrd=tmp_path / "initrd")
    assert (boot.kver, boot.has_initrd) == (KVER, True)
    assert {"ext4", "jbd2", "virtio_blk"} <= read_modules(output).paths.keys()


def check_mounted(layout: Layout, found: Any) -> None:
    mounted = [(each["place"], each["type"]) for each in found]
    others = [(part.place, part.type) for part in layout.parts if part.place != "/"]
    others += [(place, "btrfs") for _, place in layout.subvolumes if place != "/"]
    assert (mounted[0], sorted(mounted[1:])) == (("/", layout.name), sorted(others))


class Reading:
    """Reads damaged and odd disks."""

    def __init__(self, appliance: Appliance, state: State, folder: Path) -> None:
        self._appliance, self._state, self._folder = appliance, state, folder

    def fails(
        self, raw: Path, *, limits: JobLimits | None = None, jobs: dict[str, str] | None = None
    ) -> ApplianceError:
        """Read *raw*; return how that fails."""
        appliance = self._appliance
        if jobs:
            initrd = with_jobs(appliance, jobs, self._folder / "initrd.gz")
            appliance = dataclasses.replace(appliance, initrd=initrd)
        work = self._folder / "work"
        work.mkdir()
        with pytest.raises(ApplianceError) as caught:
            read_root(
                inspect_image(raw), appliance, folder=work, log=self._folder / "log", state=self._state, limits=limits
            )
        assert caught.value.resolution
        return caught.value


@pytest.fixture
def reading(appliance: Appliance, state: State, tmp_path: Path) -> Reading:
    return Reading(appliance, state, tmp_path)


def damaged(raw: Path, folder: Path, place: int, data: bytes) -> Path:
    """Return a copy of a raw disk with *data* at byte *place*."""
    output = folder / "damaged.raw"
    output.write_bytes(raw.read_bytes())
    with output.open("r+b") as stream:
        stream.seek(place)
        stream.write(data)
    return output


EXT4_AT = 1 << 20  # the first partition of that image


def test_a_file_system_that_the_kernel_refuses_is_named(
    reading: Reading, images: dict[str, Path], tmp_path: Path
) -> None:
    """The superblock stays; the table of block groups, in the block after it, is noise."""
    raw = damaged(images["ext4"].with_suffix(".raw"), tmp_path, EXT4_AT + 2048, bytes(range(1, 256)) * 8)
    failure = reading.fails(raw)
    assert isinstance(failure, UnreadableRootError)
    assert failure.kind == "refused"
    assert "the kernel refuses a file system" in failure.brief
    assert "vda1 (ext4)" in failure.details
    assert "EXT4-fs" in failure.details  # its own words


@pytest.mark.nightly
def test_an_image_without_a_root_is_told_with_what_is_in_it(
    reading: Reading, images: dict[str, Path], tmp_path: Path
) -> None:
    """The magic number of ext4 is gone: an unknown file system, and an ESP."""
    raw = damaged(images["ext4"].with_suffix(".raw"), tmp_path, EXT4_AT + 1024 + 0x38, b"\0\0")
    failure = reading.fails(raw)
    assert isinstance(failure, UnreadableRootError)
    assert failure.kind == "no-root"
    assert "partitions of the image: vda1 unknown, vda2 vfat" in failure.details


@pytest.mark.nightly
def test_a_tar_that_does_not_fit_is_stopped(reading: Reading, images: dict[str, Path]) -> None:
    failure = reading.fails(images["ext4"], limits=JobLimits(tar=2 << 20))
    assert failure.kind == "too-large"
    assert failure.text == f"its root file system is larger than {2 << 20} bytes"


@pytest.mark.nightly
def test_a_file_system_that_fstab_insists_on_must_be_there(
    reading: Reading, images: dict[str, Path], tmp_path: Path
) -> None:
    disk = images["ext4"].with_suffix(".raw").read_bytes()
    failure = reading.fails(damaged(images["ext4"].with_suffix(".raw"), tmp_path, disk.index(b"AB12-CD34"), b"FFFF"))
    assert failure.kind == "fstab"
    assert "/boot/efi: no partition is UUID=FFFF-CD34" in failure.details


def test_a_full_disk_of_the_host_is_called_that(images: dict[str, Path], appliance: Appliance, tmp_path: Path) -> None:
    """The scratch folder is a file system in memory, with room for a part of the tar, in a mount namespace."""
    folder = tmp_path / "small"
    folder.mkdir()
    namespace = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    script = 'mount -t tmpfs -o size=1536k none "$1" && exec "$2" -c "$3" "$1" "$4" "$5" "$6" "$7"'
    words = (folder, sys.executable, _READ, images["ext4"], appliance.kernel, appliance.initrd, tmp_path)
    argv: list[str | Path] = ["unshare", *namespace, "sh", "-c", script, "sh", *words]
    done = run(argv, timeout=120, cwd=REPOSITORY, check=False)
    assert done.stdout.strip() == "[Errno 28] No space left on device", done.stderr


_READ = """
import pathlib, sys
from contracts.arch import Arch
from pipeline.appliance.boot import Appliance
from pipeline.appliance.root_reader import read_root
from pipeline.media.cloud_image import inspect_image
from pipeline.state import State
from pipeline.workspace import REPOSITORY, Cache
folder, image, kernel, initrd, outside = map(pathlib.Path, sys.argv[1:])
try:
    read_root(inspect_image(image), Appliance(Arch.of_host(), kernel, initrd), folder=folder, log=outside / "log",
              state=State(Cache(outside)))
except OSError as error:
    print(str(error).partition(":")[0])
"""


def test_a_guest_that_hangs_is_ended(reading: Reading, images: dict[str, Path]) -> None:
    jobs = {"jobs/read-root": "while :; do :; done\n"}
    failure = reading.fails(images["ext4"], limits=JobLimits(idle=3), jobs=jobs)
    assert (failure.kind, failure.text) == ("hung", "nothing happened for 3 s")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("script", "words"),
    [("echo c > /proc/sysrq-trigger", "Kernel panic"), ("exit 1", "Attempted to kill init")],
    ids=["panic", "init dies"],
)
def test_a_guest_that_ends_shows_its_console(
    reading: Reading, images: dict[str, Path], script: str, words: str
) -> None:
    failure = reading.fails(images["ext4"], jobs={"jobs/read-root": f"{script}\n"})
    assert failure.kind == "ended"
    assert words in failure.details


@pytest.mark.nightly
def test_an_encrypted_root_is_called_that(reading: Reading, images: dict[str, Path], tmp_path: Path) -> None:
    """A LUKS header (version 1), and no superblock of ext4."""
    header = b"LUKS\xba\xbe\0\1".ljust(2048, b"\0")
    failure = reading.fails(damaged(images["ext4"].with_suffix(".raw"), tmp_path, EXT4_AT, header))
    assert failure.kind == "unread"
    assert "vda1 is a crypto_LUKS" in failure.details


@pytest.mark.nightly
def test_two_roots_are_one_too_many(reading: Reading, images: dict[str, Path], tmp_path: Path) -> None:
    root = images["ext4"].with_suffix(".raw").read_bytes()[EXT4_AT : EXT4_AT + (60 << 20)]
    disk = tmp_path / "two.raw"
    with disk.open("wb") as stream:
        stream.truncate(122 << 20)
    run(["sfdisk", "--quiet", disk], input="label: gpt\nsize=60MiB\nsize=60MiB\n", timeout=60)
    with disk.open("r+b") as stream:
        for start in (1 << 20, 61 << 20):
            stream.seek(start)
            stream.write(root)
    failure = reading.fails(disk)
    assert (failure.kind, failure.text.split()) == ("two-roots", ["vda1", "vda2"])
