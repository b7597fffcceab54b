"""What is asked of mmdebstrap, and what a root filesystem says of itself."""

import io
import tarfile
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.debian.mmdebstrap import RootFilesystem, installed_packages, mmdebstrap_arguments, parse_dpkg_status
from pipeline.debian.package_set import PackageSet
from pipeline.errors import PvmlabError

STATUS = """\
Package: bash
Status: install ok installed
Version: 5.2-1
Description: a shell
 with: colons in it

Package: gone
Status: deinstall ok config-files
Version: 1

Package: zstd
Status: install ok installed
Version: 1.5.4+dfsg2-5
"""


def test_installed_packages_have_their_versions() -> None:
    assert parse_dpkg_status(STATUS) == {"bash": "5.2-1", "zstd": "1.5.4+dfsg2-5"}


def write_tar(path: Path, name: str) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(STATUS)
        archive.addfile(member, io.BytesIO(STATUS.encode()))
    return path


def test_they_are_found_in_the_archive(tmp_path: Path) -> None:
    assert installed_packages(write_tar(tmp_path / "r.tar", "./var/lib/dpkg/status"))["bash"] == "5.2-1"


def test_an_archive_without_a_package_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PvmlabError, match=r"r\.tar holds no dpkg database"):
        installed_packages(write_tar(tmp_path / "r.tar", "./etc/passwd"))


def wanted(*packages: str) -> RootFilesystem:
    asked = PackageSet(name="x", suite="trixie", arch=Arch.AARCH64, packages=packages)
    return RootFilesystem(packages=asked, exclude=("/x/*",), customize="rm x")


def test_the_arguments_that_decide_what_is_installed() -> None:
    assert mmdebstrap_arguments(wanted("a", "b")) == [
        "--format=tar", "--variant=minbase", "--architectures=arm64", "--include=a,b",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/info/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/lintian/*", "--dpkgopt=path-exclude=/x/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"',
        "--skip=cleanup/apt",
        ('--customize-hook=rm -rf "$1"/etc/apt/sources.list "$1"/etc/hostname "$1"/etc/resolv.conf '
        '"$1"/var/lib/apt/lists/* "$1"/var/cache/apt/archives/* "$1"/var/cache/apt/*.bin'),
        "--customize-hook=rm x",
    ]  # fmt: skip


def test_another_argument_is_another_artifact() -> None:
    assert wanted("a").options() != wanted("a", "b").options()
