"""What can be said of the installer's initrd without its packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.initrd import INITRD_PACKAGES, IncompleteTreeError, installer_initrd
from pipeline.workspace import REPOSITORY


def test_an_incomplete_tree_is_refused_with_the_packages_it_needs(tmp_path: Path) -> None:
    with pytest.raises(IncompleteTreeError, match=r"usr/bin/python3\.13") as caught:
        installer_initrd(tmp_path)
    assert all(package in caught.value.resolution for package in INITRD_PACKAGES)


def test_the_compiler_imports_the_standard_library_only() -> None:
    """It runs under the initrd's interpreter, which has nothing else."""
    source = (REPOSITORY / "pipeline/sourceless.py").read_text()
    assert not re.findall(r"^(?:from|import) (?:pipeline|contracts|installer)", source, re.MULTILINE)


@pytest.mark.parametrize("name", ["init", "dhcp-script"])
def test_the_scripts_can_be_started(name: str) -> None:
    script = REPOSITORY / "installer" / name
    assert script.read_text().startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111 == 0o111
