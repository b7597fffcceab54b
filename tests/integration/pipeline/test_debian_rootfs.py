"""What must not be in a root filesystem, and what its sidecar says of it."""

from __future__ import annotations

import functools
import posixpath
import struct
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from contracts.arch import Arch
from lab.journey import DEFAULT_DISTRO
from pipeline.debian.mmdebstrap import open_tar_zst, parse_dpkg_status
from pipeline.sidecar import read_sidecar
from pipeline.workspace import Cache

pytestmark = pytest.mark.artifacts

# Of the build or of its host, or made when a package is installed though every machine must have its own.
NOT_WANTED = (
    "etc/apt/sources.list", "etc/hostname", "etc/ssh/ssh_host_*", "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed", "var/log/*.log", "var/log/apt/*", "var/lib/apt/lists/*_*", "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb", "var/cache/ldconfig/aux-cache", "run/*/*", "tmp/*",
)  # fmt: skip


@pytest.fixture
def rootfs(artifacts: Cache) -> Path:
    return artifacts.image(DEFAULT_DISTRO, Arch.X86_64, "rootfs.tar.zst")


@functools.cache
def read(rootfs: Path) -> tuple[dict[str, tarfile.TarInfo], dict[str, bytes]]:
    """Return all members, and the content of the package database, the machine id and the compiled files' headers."""
    members, content = {}, {}
    with open_tar_zst(rootfs) as archive:
        for member in archive:
            name = str(PurePosixPath(member.name))
            members[name] = member
            if member.isreg() and (name.endswith(".pyc") or name in {"var/lib/dpkg/status", "etc/machine-id"}):
                stream = archive.extractfile(member)
                assert stream is not None
                content[name] = stream.read(16 if name.endswith(".pyc") else -1)
    return members, content


def facts(rootfs: Path) -> dict[str, Any]:
    sidecar = read_sidecar(rootfs)
    assert sidecar is not None
    found: dict[str, Any] = sidecar["facts"]
    return found


def test_nothing_of_the_build_is_in_it(rootfs: Path) -> None:
    members, content = read(rootfs)
    paths = [PurePosixPath("/") / name for name, member in members.items() if not member.isdir()]
    assert [str(path) for path in paths if any(path.match(f"/{pattern}") for pattern in NOT_WANTED)] == []
    assert content["etc/machine-id"] == b""


def test_nothing_in_it_is_younger_than_its_packages(rootfs: Path) -> None:
    members, _ = read(rootfs)
    assert max(member.mtime for member in members.values()) <= facts(rootfs)["epoch"]


def test_its_sidecar_names_its_packages(rootfs: Path) -> None:
    _, content = read(rootfs)
    named = {package["name"]: package["version"] for package in facts(rootfs)["packages"]}
    assert named == parse_dpkg_status(content["var/lib/dpkg/status"].decode())


def test_python_takes_all_its_compiled_files_by_their_times(rootfs: Path) -> None:
    members, content = read(rootfs)
    compiled = {name: header for name, header in content.items() if name.endswith(".pyc")}
    assert len(compiled) > 1000
    for name, header in compiled.items():
        path = PurePosixPath(name)
        folder = path.parent.parent
        source = members[str(folder / f"{path.name.split('.')[0]}.py")]
        if source.issym():
            source = members[posixpath.normpath(folder / source.linkname).lstrip("/")]
        _, flags, time, size = struct.unpack("<4sIII", header)
        assert (flags, time, size) == (0, source.mtime, source.size), name
