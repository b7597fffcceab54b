"""Disks that are overlays of cloud images, made by the real qemu-img: what they stand on, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import sidecar
from contracts.arch import Arch
from contracts.machine import MachineSource, VmDefinition
from contracts.orders import OrderKind
from lab import cloud_machine, orders, target
from lab.disks import disk_info
from lab.lab import Lab
from lab.store import DefinitionStore, MachineRequest
from pipeline.digests import file_digest
from pipeline.errors import ConflictError, NotFoundError, PvmlabError, UsageError
from pipeline.media.cloud_image import inspect_image, write_disk
from pipeline.media.qcow2 import RefusedImageError
from pipeline.run import run
from pipeline.sidecar import publish_sidecar
from pipeline.workspace import Cache, Home, Workspace

MIB = 1 << 20
Make = Callable[..., VmDefinition]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    lab.ensure_folders()
    return lab


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw disk of 64 MiB with a partition, mostly holes."""
    path = tmp_path / "image.raw"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    run(["sfdisk", "--quiet", path], input="label: gpt\nsize=8MiB, type=linux\n", timeout=60)
    with path.open("r+b") as stream:
        stream.seek(2 * MIB)
        stream.write(b"system" * 1000)
    return path


@pytest.fixture
def qcow2(raw: Path) -> Path:
    path = raw.with_suffix(".qcow2")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], timeout=60)
    return path


@pytest.fixture
def make(lab: Lab) -> Make:
    def create(name: str, image: Path | str, **more: object) -> VmDefinition:
        request = MachineRequest(
            name=name, distro="debian-12", source=MachineSource.IMAGE, image=str(image), disk_gib=2
        )
        return target.create(lab, dataclasses.replace(request, **more))  # type: ignore[arg-type]

    return create


@pytest.fixture
def published(lab: Lab, raw: Path) -> Path:
    """The same disk as the artifact of debian-12."""
    packed = lab.cache.image("debian-12", Arch.X86_64, "disk.img.zst")
    packed.parent.mkdir(parents=True)
    write_disk(inspect_image(raw), packed)
    publish_sidecar(packed, {"sha256": file_digest(packed), "size": packed.stat().st_size, "inputs": {}, "facts": {}})
    return packed


def content(disk: Path) -> bytes:
    """Return what the guest would read of the part that the image has."""
    out = disk.with_suffix(".out")
    run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=1M", "count=64", f"if={disk}", f"of={out}"], timeout=60)
    data = out.read_bytes()
    out.unlink()
    return data


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_the_disk_is_an_overlay_of_a_persons_own_image(
    kind: str, request: pytest.FixtureRequest, lab: Lab, make: Make
) -> None:
    image: Path = request.getfixturevalue(kind)
    before = file_digest(image)
    make("web1", image, disk_gib=3)
    disk = target.disk_path(lab, "web1")
    found = disk_info(disk)
    assert (found.backing_file, found.virtual_size) == (image, 3 << 30)
    assert stat.S_IMODE(disk.stat().st_mode) == 0o600
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 2M 1M", disk], timeout=60)
    assert file_digest(image) == before


def test_an_image_that_is_larger_than_the_disk_is_refused(raw: Path, lab: Lab, make: Make) -> None:
    with raw.open("r+b") as stream:
        stream.truncate(3 << 30)
    with pytest.raises(UsageError, match=r"a disk of 3 GiB, and 2 GiB are asked for"):
        make("web1", raw, disk_gib=2)
    assert DefinitionStore(lab).names() == []
    assert not target.disk_path(lab, "web1").exists()


def test_images_that_need_other_files_are_refused(tmp_path: Path, qcow2: Path) -> None:
    backed, split = tmp_path / "backed.qcow2", tmp_path / "split.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", qcow2, "-F", "qcow2", backed], timeout=60)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", split, "64M"], timeout=60)
    for path in (backed, split):
        with pytest.raises(RefusedImageError):
            cloud_machine.require_image(str(path))
    with pytest.raises(NotFoundError, match="cannot be read"):
        cloud_machine.require_image(str(tmp_path / "nowhere"))


def test_an_image_that_changed_or_went_is_refused_at_the_next_start(qcow2: Path, lab: Lab, make: Make) -> None:
    definition = make("web1", qcow2)
    disk = target.disk_path(lab, "web1")
    cloud_machine.prepare_disk(lab, definition, disk)  # nothing to do
    os.utime(qcow2, (1, 1))
    with pytest.raises(ConflictError, match="has changed"):
        cloud_machine.prepare_disk(lab, definition, disk)
    qcow2.unlink()
    with pytest.raises(NotFoundError, match="is gone"):
        cloud_machine.prepare_disk(lab, definition, disk)
    disk.unlink()
    with pytest.raises(PvmlabError, match="the disk of web1 is gone"):
        cloud_machine.prepare_disk(lab, definition, disk)


def test_a_record_that_cannot_be_read_is_a_conflict(qcow2: Path, lab: Lab, make: Make) -> None:
    definition = make("web1", qcow2)
    (lab.home.disks / "web1.base.json").write_text("{}")
    with pytest.raises(ConflictError, match="it is not known any more"):
        cloud_machine.prepare_disk(lab, definition, target.disk_path(lab, "web1"))


def test_the_distributions_image_is_unpacked_once_and_goes_with_its_last_machine(
    lab: Lab, make: Make, published: Path, raw: Path
) -> None:
    make("web1", "")
    (base,) = lab.home.bases.iterdir()
    first = base.stat()
    make("web2", "")
    assert (base.stat().st_ino, base.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert stat.S_IMODE(first.st_mode) == 0o400
    assert base.read_bytes() == raw.read_bytes()
    assert first.st_blocks * 512 < 8 * MIB  # holes
    assert content(target.disk_path(lab, "web2")) == raw.read_bytes()
    target.clean(lab, "web1")
    assert base.exists()
    target.clean(lab, "web2")
    assert list(lab.home.bases.iterdir()) == []
    assert list(lab.home.disks.iterdir()) == []


def test_an_image_that_is_not_built_yet_is_waited_for_until_the_start(lab: Lab, make: Make, raw: Path) -> None:
    definition = make("web1", "")
    disk = target.disk_path(lab, "web1")
    assert not disk.exists()
    with pytest.raises(NotFoundError, match=r"disk\.img\.zst is not built"):
        cloud_machine.prepare_disk(lab, definition, disk)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_artifact_is_refused_and_leaves_nothing(lab: Lab, make: Make, published: Path, damage: str) -> None:
    data = bytearray(published.read_bytes())
    if damage == "cut":
        published.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0xFF
        published.write_bytes(data)
    with pytest.raises(RefusedImageError):
        make("web1", "")
    assert not lab.home.bases.exists() or list(lab.home.bases.iterdir()) == []
    assert DefinitionStore(lab).names() == []


def test_an_ordered_reinstall_makes_the_disk_anew_once(lab: Lab, make: Make, qcow2: Path) -> None:
    definition = make("web1", qcow2)
    disk = target.disk_path(lab, "web1")
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 2M 1M", disk], timeout=60)
    written = content(disk)
    orders.give(lab, definition, OrderKind.REINSTALL)
    target._prepare_disk(lab, definition)
    assert content(disk) != written
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 2M 1M", disk], timeout=60)
    target._prepare_disk(lab, definition)
    assert content(disk) == written


def test_the_sidecar_of_the_test_is_one(published: Path) -> None:
    assert json.loads(published.with_name(published.name + sidecar.SUFFIX).read_text())["seal"]


def test_a_machine_whose_making_was_killed_still_notices_that_its_image_changed(
    lab: Lab, make: Make, qcow2: Path
) -> None:  # fmt: skip
    definition = make("web1", qcow2)
    disk, record = target.disk_path(lab, "web1"), cloud_machine.own_files(lab, "web1")[1]
    record.unlink()  # it is written right after the disk
    cloud_machine.prepare_disk(lab, definition, disk)
    assert record.exists()
    os.utime(qcow2, (1, 1))
    with pytest.raises(ConflictError, match="has changed"):
        cloud_machine.prepare_disk(lab, definition, disk)
