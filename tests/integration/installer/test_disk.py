"""The real partitioning tool on files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.arch import Arch
from installer import command, disk
from installer.errors import InstallError
from pipeline.run import find_program

pytestmark = pytest.mark.skipif(
    find_program("sfdisk") is None, reason="sfdisk is not installed; the initrd has its own"
)


def make_image(path: Path, mib: int) -> disk.Layout:
    with path.open("wb") as image:
        image.truncate(mib * disk.MIB)
    return disk.plan(str(path), Arch.X86_64)


def test_the_script_gives_the_partitions_that_were_planned(tmp_path: Path) -> None:
    layout = make_image(tmp_path / "disk", 2048)
    command.run(["sfdisk", layout.device], timeout=30, input=disk.render_partition_script(layout))
    table = json.loads(command.run(["sfdisk", "--json", layout.device], timeout=30))["partitiontable"]
    assert (table["label"], table["id"].lower()) == ("gpt", layout.disk_uuid)
    esp, root = table["partitions"]
    assert (esp["uuid"].lower(), esp["size"] * 512) == (layout.esp_partuuid, disk.ESP_MIB * disk.MIB)
    assert root["uuid"].lower() == layout.root_partuuid
    assert root["size"] * 512 > (2048 - disk.ESP_MIB - 4) * disk.MIB, "the root takes all the rest"


def test_when_sfdisk_fails_its_own_words_are_in_the_error(tmp_path: Path) -> None:
    layout = make_image(tmp_path / "disk", 1)  # too small for any partition
    with pytest.raises(command.CommandError, match="sfdisk failed with exit status 1") as caught:
        disk.prepare(layout)
    assert caught.value.lines[0].startswith("$ sfdisk --wipe always")
    assert any("space" in line.lower() or "failed" in line.lower() for line in caught.value.lines[1:])


def test_partitions_that_do_not_appear_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_DISK_WITHIN", 0.2)
    with pytest.raises(InstallError, match=r"disk1? did not appear|p?1 did not appear"):
        disk.prepare(make_image(tmp_path / "disk", 2048))  # a file: the kernel makes no partitions of it


def test_a_wiped_disk_has_no_partitions(tmp_path: Path) -> None:
    layout = make_image(tmp_path / "disk", 2048)
    command.run(["sfdisk", layout.device], timeout=30, input=disk.render_partition_script(layout))
    disk.wipe(Path(layout.device))
    with pytest.raises(command.CommandError, match="sfdisk"):
        command.run(["sfdisk", "--json", layout.device], timeout=30)
