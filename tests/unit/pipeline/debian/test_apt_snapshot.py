"""Dates and content of a snapshot."""

from pathlib import Path

import pytest
import zstandard

from pipeline.debian.apt_snapshot import newest_date, read_snapshot
from pipeline.errors import PvmlabError
from pipeline.tree_tar import TreeTar

RELEASE = """\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512

Origin: Debian
Date: {}
Valid-Until: Sat, 28 Nov 2026 02:12:54 UTC
"""


def test_the_newest_date_counts() -> None:
    texts = [RELEASE.format(f"{day}:12:54 UTC") for day in ("Sat, 14 Nov 2026 09", "Thu, 19 Nov 2026 02")]
    assert newest_date(texts).isoformat() == "2026-11-19T02:12:54+00:00"


def test_a_release_without_a_date_is_refused() -> None:
    with pytest.raises(PvmlabError, match="no date"):
        newest_date(["Origin: Debian\n"])


def write_snapshot(path: Path, files: dict[str, bytes]) -> Path:
    with TreeTar(path.with_suffix(".tar")) as tree:
        for name, data in files.items():
            tree.file(name, data)
    path.write_bytes(zstandard.compress(path.with_suffix(".tar").read_bytes()))
    return path


def test_it_is_read_back(tmp_path: Path) -> None:
    files = {"trixie/InRelease": b"signed", "trixie/Packages": b"Package: a\n"}
    assert read_snapshot(write_snapshot(tmp_path / "s.zst", files)) == files


def test_an_empty_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PvmlabError, match="holds no package lists"):
        read_snapshot(write_snapshot(tmp_path / "s.zst", {}))
