"""Disk images as qemu-img makes them: read like qemu-img reads them, or refused."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard

from contracts.arch import Arch
from distros.family import Family
from distros.release import Medium, MediumKind, Release, Sources
from pipeline.artifact import Making
from pipeline.media.cloud_image import inspect_image, read_disk, write_disk
from pipeline.media.qcow2 import RefusedImageError
from pipeline.recipes.cloud_image import image as image_artifact
from pipeline.recipes.media import medium_path
from pipeline.run import run
from pipeline.workspace import Cache

_TIMEOUT = 60.0
SIZE = (40 << 20) + 512  # no whole clusters
RELEASE = Release(
    name="test-1", title="A test", family=Family.DEBIAN,
    sources={
        Arch.X86_64: Sources(
            media={MediumKind.CLOUD_IMAGE: Medium(kind=MediumKind.CLOUD_IMAGE, mirrors=(), file="x.qcow2")},
            rootfs=MediumKind.CLOUD_IMAGE,
        )
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a GPT, noise, text, zeros that are written and holes."""
    path, noise = tmp_path_factory.mktemp("disk") / "disk.raw", random.Random(5)
    with path.open("wb") as stream:
        stream.truncate(SIZE)
        for place, data in {
            1 << 20: noise.randbytes(3 << 20), 5 << 20: b"text to compress " * 200_000, 12 << 20: bytes(4 << 20),
            (20 << 20) + 512: b"x", SIZE - 1000: b"the end" * 100,
        }.items():  # fmt: skip
            stream.seek(place)
            stream.write(data)
    run(
        ["sfdisk", "--quiet", path],
        input='label: gpt\nsize=8MiB, name="root"\nsize=8MiB, type=uefi\n',
        timeout=_TIMEOUT,
    )
    return path


def convert(raw: Path, folder: Path, *options: str, form: str = "qcow2") -> Path:
    output = folder / "made.img"
    run(["qemu-img", "convert", "-f", "raw", "-O", form, *options, raw, output], timeout=_TIMEOUT)
    return output


def digest(path: Path) -> str:
    state = hashlib.sha256()
    for piece in read_disk(inspect_image(path)):
        state.update(bytes(piece) if isinstance(piece, int) else piece)
    return state.hexdigest()


@pytest.mark.parametrize(
    "options",
    [(), ("-c",), ("-c", "-o", "compression_type=zstd"), ("-o", "compat=0.10"), ("-c", "-o", "compat=0.10"),
     ("-c", "-o", "cluster_size=512"), ("-c", "-o", "cluster_size=2M"), ("-o", "cluster_size=4k"),
     ("-o", "preallocation=metadata"), ("-S", "0"), ("-o", "lazy_refcounts=on"), ("-o", "refcount_bits=1")],
    ids=lambda options: " ".join(options) or "plain",
)  # fmt: skip
def test_the_disk_is_what_qemu_img_was_given(options: Sequence[str], raw: Path, tmp_path: Path) -> None:
    assert digest(convert(raw, tmp_path, *options)) == hashlib.sha256(raw.read_bytes()).hexdigest() == digest(raw)


def test_equal_disks_give_equal_bytes(raw: Path, tmp_path: Path) -> None:
    copy = tmp_path / "no-holes.raw"
    copy.write_bytes(raw.read_bytes())
    written = []
    for path in (raw, copy, convert(raw, tmp_path), convert(raw, tmp_path, "-c")):
        disk = write_disk(inspect_image(path), tmp_path / "disk.img.zst")
        assert [each.name for each in disk.table.partitions] == ["root", ""]
        written.append((tmp_path / "disk.img.zst").read_bytes())
    assert len(set(written)) == 1
    assert zstandard.ZstdDecompressor().decompress(written[0], max_output_size=SIZE) == raw.read_bytes()
    assert zstandard.frame_content_size(written[0]) == SIZE


@pytest.mark.parametrize(
    ("form", "options", "reason"),
    [
        ("vmdk", (), "VMDK"),
        ("vmdk", ("-o", "subformat=monolithicFlat"), "VMDK descriptor"),
        ("vpc", (), "VHD"),
        ("vhdx", (), "VHDX"),
        ("vdi", (), "VDI"),
        ("qed", (), "QED"),
        ("parallels", (), "Parallels"),
        ("qcow", (), "version 1"),
        ("qcow2", ("-o", "extended_l2=on"), "extended L2"),
        # by AES: qemu-img measures how fast it is to make a LUKS header, and now and then says that it cannot
        ("qcow2", ("--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s"), "encrypted"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_other_formats_are_refused(form: str, options: Sequence[str], reason: str, raw: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedImageError) as caught:
        inspect_image(convert(raw, tmp_path, *options, form=form))
    assert reason in caught.value.reason


def hostile(kind: str, folder: Path, secret: Path) -> Path:
    """Make an image with qemu-img that leads to *secret*."""
    path = folder / "hostile.qcow2"
    options = {"backing": ["-b", str(secret), "-F", "raw"], "data": ["-o", f"data_file={secret},data_file_raw=on"]}[
        kind
    ]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, str(secret.stat().st_size)], timeout=_TIMEOUT)
    return path


@pytest.mark.parametrize("kind", ["backing", "data"])
def test_no_byte_of_another_file_gets_into_an_artifact(kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret! " * 65536)
    cache = Cache(tmp_path / "cache")
    medium = medium_path(RELEASE, Arch.X86_64, MediumKind.CLOUD_IMAGE, cache)
    medium.parent.mkdir(parents=True)
    hostile(kind, tmp_path, secret).rename(medium)
    artifact = image_artifact(RELEASE, Arch.X86_64, cache)
    output = tmp_path / "output"
    with pytest.raises(RefusedImageError):
        artifact.make(Making({artifact.targets[0]: output}, tmp_path, tmp_path / "log"))
    assert not output.exists()


def test_one_with_a_snapshot_is_refused(raw: Path, tmp_path: Path) -> None:
    path = convert(raw, tmp_path)
    run(["qemu-img", "snapshot", "-c", "before", path], timeout=_TIMEOUT)
    with pytest.raises(RefusedImageError, match="snapshots"):
        inspect_image(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_one_that_is_cut_off_is_refused_wherever(compressed: bool, raw: Path, tmp_path: Path) -> None:
    path = convert(raw, tmp_path, *(["-c"] if compressed else []))
    whole = path.read_bytes()
    for part in range(40):
        path.write_bytes(whole[: len(whole) * part // 40])
        with pytest.raises(RefusedImageError):
            inspect_image(path)


def test_the_recipe_says_what_the_disk_is(raw: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    medium = medium_path(RELEASE, Arch.X86_64, MediumKind.CLOUD_IMAGE, cache)
    medium.parent.mkdir(parents=True)
    convert(raw, tmp_path, "-c").rename(medium)
    artifact = image_artifact(RELEASE, Arch.X86_64, cache)
    output = tmp_path / "disk.img.zst"
    facts = artifact.make(Making({artifact.targets[0]: output}, tmp_path, tmp_path / "log"))
    assert facts is not None
    assert (facts["format"], facts["virtual_size"], facts["table"]) == ("qcow2", SIZE, "gpt")
    assert [each["name"] for each in facts["partitions"]] == ["root", ""]
    assert zstandard.ZstdDecompressor().decompress(output.read_bytes()) == raw.read_bytes()
