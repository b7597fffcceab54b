"""The root filesystem of a live-server disc: made of a faithful one, and refused of those that lack something."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from contracts.arch import Arch
from installer import bootloader
from pipeline.artifact import Making
from pipeline.errors import CommandError, NotFoundError
from pipeline.media.archive import read_archive
from pipeline.media.disc import inspect
from pipeline.media.live_server import UnfitDiscError, read_live_server
from pipeline.media.live_system import LiveSystem, make_live_system
from pipeline.media.member import Member, MemberKind
from pipeline.media.squashfs import SquashfsError
from pipeline.run import run
from pipeline.workspace import Cache
from tests.fakes.discs import make_iso, write_tree
from tests.fakes.live_iso import (
    ARCH,
    CATALOG,
    GONE_PACKAGE,
    META_PACKAGE,
    MINIMAL,
    RENEWED_FOLDER,
    SERVER,
    TRACES,
    LiveIso,
    ensure_live_iso,
)

TIMEOUT = 60.0
BOOT = ("boot/", "usr/lib/shim/", "usr/lib/grub/", "usr/lib/os-release", "usr/lib/modules/")
TEXTS = ("var/lib/dpkg/status", "etc/machine-id", "var/lib/apt/extended_states")


class Made(NamedTuple):
    """A root filesystem. :ivar texts: contents of some of its members."""

    system: LiveSystem
    archive: Path
    members: Mapping[str, Member]
    texts: Mapping[str, str]


def make(iso: Path, folder: Path, *, source: str | None = None, arch: Arch = ARCH) -> tuple[LiveSystem, Path]:
    scratch, output = folder / "scratch", folder / "rootfs.tar.zst"
    scratch.mkdir(parents=True)
    making = Making({output: output}, scratch, folder / "log")
    return make_live_system(iso, arch, source=source, making=making), output


@pytest.fixture(scope="session")
def disc(artifacts: Cache) -> LiveIso:
    return ensure_live_iso(artifacts)


@pytest.fixture(scope="session")
def made(disc: LiveIso, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("live")
    system, archive = make(disc.iso, folder)
    members, texts = {}, {}
    for member in read_archive(archive):
        members[member.path] = member
        if member.path in TEXTS:
            texts[member.path] = b"".join(member.content).decode()
    shutil.rmtree(folder / "scratch")
    return Made(system, archive, members, texts)


@pytest.mark.artifacts
def test_it_is_the_layers_merged(made: Made) -> None:
    assert made.system.source == "ubuntu-server"
    assert f"usr/bin/{GONE_PACKAGE}" not in made.members
    assert sorted(path for path in made.members if path.startswith(f"{RENEWED_FOLDER}/")) == [f"{RENEWED_FOLDER}/new"]
    assert "etc/only-in-the-live-session" not in made.members
    assert made.members["usr/bin/cloud-init"].kind is MemberKind.FILE
    assert not [path for path, member in made.members.items() if member.kind is MemberKind.CHARACTER_DEVICE]


@pytest.mark.artifacts
def test_what_the_layers_lack_comes_from_the_disc(made: Made) -> None:
    assert made.system.added == (META_PACKAGE, "grub-efi-amd64-signed", "shim-signed", "initramfs-tools")
    assert made.system.summary.packages is not None
    installed = {package.name for package in made.system.summary.packages}
    assert {*made.system.added, "cloud-init", "openssh-server"} <= installed
    states = {line for line in made.texts["var/lib/dpkg/status"].splitlines() if line.startswith("Status: ")}
    assert states == {"Status: install ok installed"}


@pytest.mark.artifacts
def test_the_installer_can_make_it_boot(made: Made, tmp_path: Path) -> None:
    run(
        ["tar", "--zstd", "--extract", "--file", made.archive, "--directory", tmp_path, "--no-same-owner",
         "--wildcards", *(f"{name}*" for name in BOOT)],
        timeout=TIMEOUT,
    )  # fmt: skip
    kernel = bootloader.find_kernel(tmp_path)
    assert kernel.has_initrd
    assert made.system.summary.kernels == (kernel.kver,)
    assert {"shimx64.efi", "grubx64.efi"} <= bootloader.find_loaders(tmp_path, ARCH).keys()
    assert bootloader.find_vendor(tmp_path) == "debian"


@pytest.mark.artifacts
def test_nothing_is_left_that_machines_would_share_or_of_the_build(made: Made, disc: LiveIso) -> None:
    assert {path for path in TRACES if path in made.members} == {"etc/machine-id"}
    assert made.texts["etc/machine-id"] == ""
    logs = [
        path for path, member in made.members.items() if path.startswith("var/log/") and member.kind is MemberKind.FILE
    ]
    assert logs == []
    leftovers = ("run/pvmlab", "mnt/dists", "usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/00mmdebstrap", "etc/hostname")
    assert [path for path in leftovers if path in made.members] == []
    assert made.members["usr/sbin/start-stop-daemon"].size > 10_000  # and no stand-in
    assert not [path for path in made.members if path.startswith(("var/lib/apt/lists/", "var/cache/apt/archives/"))
                and "." in path.rpartition("/")[2]]  # fmt: skip
    assert max(member.mtime for member in made.members.values()) <= made.system.summary.epoch


@pytest.mark.artifacts
def test_a_source_that_lacks_something_the_disc_has_not_either_is_refused(disc: LiveIso, tmp_path: Path) -> None:
    with pytest.raises(UnfitDiscError) as caught:
        make(disc.iso, tmp_path, source=MINIMAL)
    assert caught.value.brief.endswith("lacks what an installed machine needs: cloud-init, openssh-server")


@pytest.mark.artifacts
def test_a_disc_for_other_machines_is_refused(disc: LiveIso, tmp_path: Path) -> None:
    with pytest.raises(UnfitDiscError, match="is not for aarch64 machines") as caught:
        make(disc.iso, tmp_path, arch=Arch.AARCH64)
    assert caught.value.details == "its packages are for amd64"


@pytest.mark.artifacts
def test_a_source_that_is_not_there_is_named(disc: LiveIso, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not install desktop"):
        make(disc.iso, tmp_path, source="desktop")


@pytest.mark.artifacts
def test_an_archive_that_somebody_changed_is_not_installed_from(disc: LiveIso, tmp_path: Path) -> None:
    changed = with_another(disc.iso, b"Label: Debian\n", b"Label: Debiam\n", tmp_path)
    with pytest.raises(CommandError, match="failed") as caught:
        make(changed, tmp_path)
    assert "BADSIG" in (tmp_path / "log").read_text()
    assert caught.value.log == tmp_path / "log"
    assert not mounts_below(tmp_path)


@pytest.mark.artifacts
@pytest.mark.nightly
def test_a_package_that_is_damaged_is_not_installed(disc: LiveIso, tmp_path: Path) -> None:
    meta = f"{META_PACKAGE}/{META_PACKAGE}_1_amd64.deb"
    inspect(disc.iso).extract({f"pool/main/l/{meta}": tmp_path / "deb"})
    data = (tmp_path / "deb").read_bytes()
    changed = with_another(disc.iso, data, data[:-20] + bytes(20), tmp_path)
    with pytest.raises(CommandError):
        make(changed, tmp_path)
    assert "Hash Sum mismatch" in (tmp_path / "log").read_text()


@pytest.mark.artifacts
@pytest.mark.nightly
def test_equal_discs_give_equal_bytes(
    made: Made, disc: LiveIso, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    _, again = make(disc.iso, tmp_path / "some where" / "else")
    assert again.read_bytes() == made.archive.read_bytes()


def with_another(iso: Path, data: bytes, other: bytes, folder: Path) -> Path:
    """Return a copy of *iso* in which *data* is *other*, of the same length."""
    content = iso.read_bytes()
    assert content.count(data) == 1
    assert len(data) == len(other)
    path = folder / iso.name
    path.write_bytes(content.replace(data, other))
    return path


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split(" ")[1].startswith(str(folder))]


def small_disc(folder: Path, files: Mapping[str, bytes]) -> Path:
    return make_iso(write_tree(folder / "tree", files), folder / "small.iso", "-rational-rock", label="Small")


def layer(folder: Path, files: Mapping[str, bytes]) -> bytes:
    """Return a squashfs image with *files*."""
    tree = write_tree(folder / "layer", files)
    run(["mksquashfs", tree, folder / "image", "-noappend", "-quiet", "-no-progress", "-all-root"], timeout=TIMEOUT)
    shutil.rmtree(tree)
    return (folder / "image").read_bytes()


def test_a_disc_of_another_layout_is_refused(tmp_path: Path) -> None:
    iso = small_disc(tmp_path, {"images/pxeboot/vmlinuz": b"x"})
    with pytest.raises(UnfitDiscError, match=r"small\.iso is no live-server disc") as caught:
        make(iso, tmp_path)
    assert "its label is 'Small'" in caught.value.details
    assert "cloud image" in caught.value.resolution


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    files = {"casper/install-sources.yaml": CATALOG.encode(), f"casper/{SERVER}.squashfs": b"x"}
    with pytest.raises(UnfitDiscError, match=r"small\.iso lacks a layer of ubuntu-server") as caught:
        make(small_disc(tmp_path, files), tmp_path)
    assert caught.value.details == f"casper/{MINIMAL}.squashfs should be below casper/{SERVER}.squashfs"


def test_an_older_disc_has_one_layer_and_no_catalog(tmp_path: Path) -> None:
    live = read_live_server(inspect(small_disc(tmp_path, {"casper/filesystem.squashfs": b"x"})), ARCH)
    assert (live.source.id, live.layers, live.suites) == ("filesystem", ("casper/filesystem.squashfs",), ())


def test_a_layer_that_is_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(SquashfsError, match=r"filesystem\.squashfs cannot be read as a squashfs image"):
        make(small_disc(tmp_path, {"casper/filesystem.squashfs": b"hsqs"}), tmp_path)


def test_layers_without_a_system_of_packages_are_refused(tmp_path: Path) -> None:
    image = layer(tmp_path, {"usr/lib/os-release": b"ID=x\n"})
    with pytest.raises(UnfitDiscError, match="hold no system of Debian packages"):
        make(small_disc(tmp_path, {"casper/filesystem.squashfs": image}), tmp_path)


def test_a_disc_without_an_archive_is_told_what_it_lacks(tmp_path: Path) -> None:
    status = b"Package: dpkg\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"
    image = layer(tmp_path, {"var/lib/dpkg/status": status})
    with pytest.raises(
        UnfitDiscError, match=r"lacks what an installed machine needs: a kernel \(linux-generic\), grub"
    ):
        make(small_disc(tmp_path, {"casper/filesystem.squashfs": image}), tmp_path)


def test_a_damaged_list_of_packages_is_named(tmp_path: Path) -> None:
    status = b"Package: dpkg\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"
    files = {
        "casper/filesystem.squashfs": layer(tmp_path, {"var/lib/dpkg/status": status}),
        "dists/noble/main/binary-amd64/Packages.gz": b"\x1f\x8b no gzip",
    }
    with pytest.raises(UnfitDiscError, match=r"the disc's list of packages is damaged: Packages\.gz"):
        make(small_disc(tmp_path, files), tmp_path)
