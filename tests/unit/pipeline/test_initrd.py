"""What can be said of the installer's initrd without its packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.initrd import INITRD_PACKAGES, IncompleteTreeError, installer_initrd
from pipeline.sourceless import place_of
from pipeline.workspace import REPOSITORY


def test_an_incomplete_tree_is_refused_with_the_packages_it_needs(tmp_path: Path) -> None:
    with pytest.raises(IncompleteTreeError, match=r"usr/bin/python3\.13") as caught:
        installer_initrd(tmp_path)
    assert all(package in caught.value.resolution for package in INITRD_PACKAGES)


def test_the_compiler_imports_the_standard_library_only() -> None:
    """It runs under the initrd's interpreter, which has nothing else."""
    source = (REPOSITORY / "pipeline/sourceless.py").read_text()
    assert not re.findall(r"^(?:from|import) (?:pipeline|contracts|installer)", source, re.MULTILINE)


def test_a_library_unpacked_inside_the_repository_is_still_the_library() -> None:
    repository, stdlib = Path("/repo"), Path("/repo/cache/tmp/tree/usr/lib/python3.13")
    found = place_of(stdlib / "json/decoder.py", repository=repository, stdlib=stdlib)
    assert found == ("stdlib", Path("json/decoder.py"))
    found = place_of(repository / "installer/disk.py", repository=repository, stdlib=stdlib)
    assert found == ("app", Path("installer/disk.py"))


@pytest.mark.parametrize("name", ["init", "dhcp-script"])
def test_the_scripts_can_be_started(name: str) -> None:
    script = REPOSITORY / "installer" / name
    assert script.read_text().startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111 == 0o111
