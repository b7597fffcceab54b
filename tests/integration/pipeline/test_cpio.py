"""Our archives, read by cpio(1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import cpio
from pipeline.run import find_program, run


@pytest.mark.skipif(find_program("cpio") is None, reason="cpio is not installed")
def test_cpio_lists_what_we_wrote(tmp_path: Path) -> None:
    entries = [
        cpio.regular("usr/bin/tool", b"12345", mode=0o755),
        cpio.symlink("bin", "usr/bin"),
        cpio.character_device("dev/console", 5, 1),
    ]
    archive = tmp_path / "archive"
    with archive.open("wb") as stream:
        cpio.write(stream, entries)
    listing = run(["cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet", "--file", archive], timeout=30).stdout
    found = {line.split(maxsplit=8)[8]: line.split()[0] for line in listing.replace("5,   1", "5,1").splitlines()}
    assert found == {
        "bin -> usr/bin": "lrwxrwxrwx",
        "dev": "drwxr-xr-x",
        "dev/console": "crw-------",
        "usr": "drwxr-xr-x",
        "usr/bin": "drwxr-xr-x",
        "usr/bin/tool": "-rwxr-xr-x",
    }
    assert {tuple(line.split()[2:4]) for line in listing.splitlines()} == {("0", "0")}
