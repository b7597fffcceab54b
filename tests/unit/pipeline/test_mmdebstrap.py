"""What a root filesystem says of itself."""

import io
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import PvmlabError
from pipeline.mmdebstrap import installed_packages, parse_dpkg_status

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
