"""What a distribution's own installer is booted from, out of a package and out of discs like the real ones."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts.answers import BOOT_FILES
from contracts.arch import Arch
from contracts.machine import Installer
from distros.family import Family
from distros.registry import releases
from distros.release import Checksums, Medium, MediumKind, Release, Sources
from pipeline.errors import PvmlabError
from pipeline.recipes import native
from pipeline.recipes.media import medium_path
from pipeline.recipes.packages import manifest_path
from pipeline.run import run
from pipeline.sidecar import publish_sidecar, read_sidecar
from pipeline.workspace import Cache
from tests.fakes.discs import fedora_files, make_iso, ubuntu_files, write_tree

ARCH = Arch.X86_64
PACKAGE = "debian-installer-13-netboot-amd64"
IMAGES = "usr/lib/debian-installer/images/13/amd64"
ISO = Medium(
    kind=MediumKind.ISO,
    mirrors=("http://mirror.example/",),
    file="a.iso",
    checksums=Checksums(file="SUMS", signature=None, keys=()),
)


def release(family: Family, sources: Sources) -> Release:
    return Release(name="some-1", title="Some 1", family=family, suite="trixie", sources={ARCH: sources})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def record(path: Path, facts: Mapping[str, object]) -> None:
    """Give *path* a sidecar, as if a task had made it."""
    data = path.read_bytes()
    publish_sidecar(path, {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "facts": dict(facts)})


def put_package(cache: Cache, made: Release, files: Mapping[str, bytes], *, scratch: Path) -> None:
    """Put a package with *files* into the store, and the manifest that names it."""
    (wanted,) = native.package_sets(made, ARCH)
    control = f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a\n"
    tree = write_tree(scratch / "deb", {**files, "DEBIAN/control": control.encode()})
    deb = scratch / f"{PACKAGE}_1_all.deb"
    run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb], timeout=60)
    data = deb.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    stored = cache.root / "downloads" / digest / deb.name
    stored.parent.mkdir(parents=True)
    stored.write_bytes(data)
    manifest = manifest_path(wanted, cache)
    manifest.parent.mkdir(parents=True)
    manifest.write_text(
        f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nFilename: pool/{deb.name}\nSize: {len(data)}\n"
        f"SHA256: {digest}\nArchive: main\n"
    )
    record(manifest, {"date": "2026-01-01"})


# The smallest initrd there is, a trailer: what is in initrds is read for their sidecars.
INITRD = gzip.compress(
    b"070701" + b"0" * 40 + b"00000001" + b"0" * 40 + b"0000000B" + b"0" * 8 + b"TRAILER!!!\0" + b"\0" * 3, mtime=0
)


def text_images(*names: str) -> dict[str, bytes]:
    files = {
        f"{IMAGES}/text/debian-installer/amd64/{name}": (INITRD if "initrd" in name else b"linux") for name in names
    }
    return files | {f"{IMAGES}/gtk/debian-installer/amd64/linux": b"not this one"}


def test_debians_comes_from_its_package(cache: Cache, tmp_path: Path) -> None:
    made = release(Family.DEBIAN, Sources(installer_package=PACKAGE))
    put_package(cache, made, text_images("linux", "initrd.gz"), scratch=tmp_path)
    artifact = native.native(made, ARCH, cache)
    artifact.build()
    folder = cache.root / "images/some-1/x86_64/native"
    assert ((folder / "vmlinuz").read_bytes(), (folder / "initrd").read_bytes()) == (b"linux", INITRD)
    assert artifact.reason() is None
    facts = (read_sidecar(folder / "vmlinuz") or {})["facts"]
    assert [package["name"] for package in facts["packages"]] == [PACKAGE]


@pytest.mark.parametrize("names", [(), ("linux",)])
def test_a_package_without_an_installer_is_said(cache: Cache, tmp_path: Path, names: tuple[str, ...]) -> None:
    made = release(Family.DEBIAN, Sources(installer_package=PACKAGE))
    put_package(cache, made, text_images(*names), scratch=tmp_path)
    with pytest.raises(PvmlabError, match=rf"{PACKAGE} has 0 files (linux|initrd\.gz)"):
        native.native(made, ARCH, cache).build()
    assert not list((cache.root / "images").rglob("vmlinuz"))


def put_iso(cache: Cache, made: Release, files: Mapping[str, bytes], *, scratch: Path) -> Path:
    path = medium_path(made, ARCH, MediumKind.ISO, cache)
    path.parent.mkdir(parents=True)
    make_iso(write_tree(scratch / "tree", files), path, label="A disc")
    record(path, {})
    return path


@pytest.mark.parametrize(
    ("family", "files", "names"),
    [
        (Family.UBUNTU, ubuntu_files(), {"vmlinuz": "casper/vmlinuz", "initrd": "casper/initrd"}),
        (Family.FEDORA, fedora_files(), {"vmlinuz": "images/pxeboot/vmlinuz", "initrd": "images/pxeboot/initrd.img",
                                         "images/install.img": "images/install.img"}),
    ],
)  # fmt: skip
def test_others_come_from_the_iso(
    cache: Cache, tmp_path: Path, family: Family, files: dict[str, bytes], names: dict[str, str]
) -> None:
    files = files | {names["initrd"]: INITRD}
    made = release(family, Sources(media={MediumKind.ISO: ISO}))
    iso = put_iso(cache, made, files, scratch=tmp_path)
    artifact = native.native(made, ARCH, cache)
    artifact.build()
    folder = cache.root / "images/some-1/x86_64/native"
    for name, member in names.items():
        assert (folder / name).read_bytes() == files[member]
    if family is Family.UBUNTU:
        assert (folder / "install.iso").samefile(iso)  # not a copy
    assert artifact.reason() is None


def test_an_iso_of_another_kind_is_said(cache: Cache, tmp_path: Path) -> None:
    made = release(Family.UBUNTU, Sources(media={MediumKind.ISO: ISO}))
    put_iso(cache, made, fedora_files(), scratch=tmp_path)
    with pytest.raises(PvmlabError, match="has no file casper/"):
        native.native(made, ARCH, cache).build()


@pytest.mark.parametrize("sources", [Sources(), Sources(media={})])
def test_what_is_not_there_is_not_made(cache: Cache, sources: Sources) -> None:
    made = release(Family.DEBIAN, sources)
    assert not native.has_native(made, ARCH)
    assert list(native.package_sets(made, ARCH)) == []
    with pytest.raises(ValueError, match="has no installer of its own"):
        native.native(made, ARCH, cache)


def test_the_boot_handler_asks_for_what_is_made(cache: Cache) -> None:
    """What families say of their discs, and what the contract says that an installer is booted from."""
    for family in Family:
        if family.native is not None:
            made = {*family.native.members, *(["install.iso"] if family.native.wants_iso else [])}
            assert made == set(BOOT_FILES[family.native.kind])
    for each in releases().values():
        for arch in each.arches:
            if native.has_native(each, arch):
                names = {path.relative_to(cache.image(each.name, arch, "native")).as_posix()
                         for path in native.native(each, arch, cache).targets}  # fmt: skip
                assert each.family.native is not None
                assert names == set(BOOT_FILES[each.family.native.kind])
    assert BOOT_FILES[Installer.PVMLAB] == ()
