"""Times of packages, and the words for one that is gone."""

from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.debian.apt_sources import Mirror
from pipeline.debian.deb_file import newest_time
from pipeline.debian.deb_store import Origin, PackageGoneError
from pipeline.debian.package_set import PackageSet
from pipeline.errors import ExitCode, PvmlabError


def write_deb(path: Path, time: int) -> Path:
    path.write_bytes(f"!<arch>\n{'debian-binary':16}{time:<12}0     0     100644  4         `\n2.0\n".encode())
    return path


def test_the_youngest_package_tells_the_time(tmp_path: Path) -> None:
    debs = [write_deb(tmp_path / str(time), time) for time in (1_700_000_000, 1_793_221_079, 5)]
    assert newest_time(debs) == 1_793_221_079


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"<html>")
    with pytest.raises(PvmlabError, match=r"x\.deb is no Debian package"):
        newest_time([tmp_path / "x.deb"])


def test_who_misses_a_package_learns_of_the_snapshot() -> None:
    wanted = PackageSet(name="x", suite="trixie", arch=Arch.X86_64, packages=("a",))
    origin = Origin(wanted=wanted, date="2026-11-19T02:12:54+00:00", mirror=lambda: Mirror("http://m.invalid", None))
    error = PackageGoneError("http://m.invalid/pool/a_1_amd64.deb", origin)
    assert error.exit_code is ExitCode.NOT_FOUND
    assert error.brief == "the mirror no longer has a_1_amd64.deb"
    assert "snapshot of trixie was taken, on 2026-11-19" in error.details
    assert "`doit clean snapshot:trixie:x86_64`" in error.resolution
