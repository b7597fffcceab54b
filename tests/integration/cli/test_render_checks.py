"""Checks of documents by other people's programs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.render_checks import check_document
from contracts.machine import Installer
from contracts.templates import What
from pipeline.workspace import Cache
from pxeboot_stack.boot_handler import documents
from tests.fakes.lab_files import make_machine, make_settings


@pytest.mark.skipif(shutil.which("debconf-set-selections") is None, reason="only where debconf is")
def test_a_preseed_is_checked_by_debconf(tmp_path: Path) -> None:
    machine = make_machine(
        installer=Installer.PRESEED, package_sources=("deb http://mirror.example/debian trixie main",)
    )
    text = documents.render(machine, "answers/preseed.cfg", make_settings(tmp_path), token="TOKEN").body
    found = check_document(What.PRESEED, text, machine, Cache(tmp_path))
    assert (found.by, found.faults) == ("right, by debconf-set-selections --checkonly", ())
