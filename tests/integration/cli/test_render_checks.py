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


@pytest.mark.artifacts
@pytest.mark.parametrize("what", [What.USER_DATA, What.VENDOR_DATA])
def test_what_we_make_is_right_by_the_schema_of_the_cloud_init_that_reads_it(
    artifacts: Cache, tmp_path: Path, what: What
) -> None:
    machine = make_machine()
    text = documents.render(machine, f"cloud-init/{what}", make_settings(tmp_path), token="TOKEN").body
    found = check_document(what, text, machine, artifacts)
    assert (found.by, found.faults) == ("right, by the schema of cloud-init in debian-12", ())


@pytest.mark.artifacts
def test_a_fault_in_user_data_is_named(artifacts: Cache) -> None:
    found = check_document(What.USER_DATA, "#cloud-config\nusers: 7\n", make_machine(), artifacts)
    assert any(fault.startswith("users") for fault in found.faults), found
