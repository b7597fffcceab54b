"""qcow2 images: what is in honest ones, and that hostile ones are refused before any tool runs."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pipeline.media.cloud_image import ImageFormat, inspect_image, read_disk, write_disk
from pipeline.media.partitions import TableKind
from pipeline.media.qcow2 import Compression, RefusedImageError
from pipeline.media.qcow2_content import DamagedImageError
from tests.fakes.disks import gpt_disk, mbr_disk
from tests.fakes.qcow2_files import CLUSTER, Packed, Qcow2, patched

SIZE = 40 * CLUSTER - 512  # the last cluster is not all of the disk
NOISE = random.Random(7)


def noise(size: int = CLUSTER) -> bytes:
    return NOISE.randbytes(size)


def text(number: int) -> bytes:
    return (b"cluster %d " % number * CLUSTER)[:CLUSTER]


def honest(**more: object) -> Qcow2:
    clusters = {
        0: mbr_disk(SIZE)[:CLUSTER], 1: noise(), 2: noise(), 5: Packed(text(5)), 6: Packed(text(6)), 9: text(9),
        39: text(39),
    }  # fmt: skip
    return Qcow2(SIZE, clusters, **more)  # type: ignore[arg-type]


def put(folder: Path, data: bytes) -> Path:
    path = folder / "cloud.img"
    path.write_bytes(data)
    return path


def whole(path: Path) -> bytes:
    pieces = read_disk(inspect_image(path))
    return b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)


@pytest.mark.parametrize(
    "image",
    [honest(), honest(version=2), honest(zstd=True), honest(zeros=[3, 4, 20]), Qcow2(SIZE),
     honest(extensions=[(0x6803F857, b"feature names"), (0x12345678, b"unknown: may be passed over")])],
    ids=["deflate", "version 2", "zstd", "zero clusters", "nothing allocated", "extensions"],
)  # fmt: skip
def test_the_disk_is_what_was_put_in(image: Qcow2, tmp_path: Path) -> None:
    path = put(tmp_path, image.build())
    found = inspect_image(path)
    assert (found.format, found.size) == (ImageFormat.QCOW2, SIZE)
    assert found.header is not None
    assert found.header.compression is (Compression.ZSTD if image.zstd else Compression.DEFLATE)
    assert whole(path) == image.disk()


def test_the_compressed_disk_unpacks_to_it_whatever_the_container(tmp_path: Path) -> None:
    written = []
    images = [honest(), Qcow2(SIZE, {**honest().clusters, 3: bytes(CLUSTER)}, zeros=[7]), honest(zstd=True)]
    for number, image in enumerate(images):
        NOISE.seed(7)
        image.clusters = {**image.clusters, 1: text(1), 2: text(2)}
        disk = write_disk(inspect_image(put(tmp_path, image.build())), tmp_path / str(number))
        assert (disk.size, disk.table.kind) == (SIZE, TableKind.MBR)
        written.append((tmp_path / str(number)).read_bytes())
    raw = put(tmp_path, honest(zeros=[3]).disk()[:CLUSTER] + text(1) + text(2) + images[0].disk()[3 * CLUSTER :])
    assert inspect_image(raw).format is ImageFormat.RAW
    write_disk(inspect_image(raw), tmp_path / "raw")
    assert {*written, (tmp_path / "raw").read_bytes()} == {written[0]}
    assert zstandard.ZstdDecompressor().decompress(written[0]) == raw.read_bytes()


def test_a_shorter_last_cluster_of_the_file_is_filled_with_zeros(tmp_path: Path) -> None:
    image = Qcow2(SIZE, {0: b"short"})
    assert whole(put(tmp_path, image.build())) == image.disk()


MAGIC, VERSION, BACKING, BITS, SIZE_AT, CRYPT, L1_SIZE, L1, REFCOUNTS, SNAPSHOTS, FEATURES, ORDER, LENGTH, KIND = (
    0, 4, 8, 20, 24, 32, 36, 40, 48, 60, 72, 96, 100, 104,
)  # fmt: skip
L2_ENTRY = 4 * CLUSTER

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "backing file": (lambda: honest(backing=(512, 11)).build(), "backing file"),
    "backing file without a name": (lambda: honest(backing=(512, 0)).build(), "backing file"),
    "length of a backing file": (lambda: honest(backing=(0, 11)).build(), "backing file"),
    "format of a backing file": (lambda: honest(extensions=[(0xE2792ACA, b"raw")]).build(), "backing file"),
    "external data file": (lambda: honest(incompatible=1 << 2).build(), "external data file"),
    "its name": (lambda: honest(extensions=[(0x44415441, b"/etc/shadow")]).build(), "external data file"),
    "its name behind others": (
        lambda: honest(extensions=[(0x6803F857, b"x" * 48), (0x44415441, b"/etc/shadow")]).build(),
        "external data file",
    ),
    "encrypted by AES": (lambda: honest(crypt=1).build(), "encrypted"),
    "encrypted by LUKS": (lambda: honest(crypt=2).build(), "encrypted"),
    "LUKS header": (lambda: honest(extensions=[(0x0537BE77, bytes(16))]).build(), "encrypted"),
    "dirty": (lambda: honest(incompatible=1).build(), "not closed"),
    "corrupt": (lambda: honest(incompatible=2).build(), "marked as corrupt"),
    "extended L2": (lambda: honest(incompatible=1 << 4).build(), "extended L2"),
    "unknown feature": (lambda: honest(incompatible=1 << 5).build(), "bit 5"),
    "last feature": (lambda: honest(incompatible=1 << 63).build(), "bit 63"),
    "zstd without its bit": (lambda: patched(honest().build(), KIND, "B", 1), "unknown way"),
    "its bit without zstd": (lambda: patched(honest(zstd=True).build(), KIND, "B", 0), "unknown way"),
    "unknown compression": (lambda: patched(honest(zstd=True).build(), KIND, "B", 2), "unknown way (2)"),
    "version 1": (lambda: patched(honest().build(), VERSION, "I", 1), "version 1"),
    "version 4": (lambda: patched(honest().build(), VERSION, "I", 4), "version 4"),
    "no disk": (lambda: patched(honest().build(), SIZE_AT, "Q", 0), "has 0 bytes"),
    "half a sector": (lambda: patched(honest().build(), SIZE_AT, "Q", SIZE - 1), "whole sectors"),
    "an exabyte": (lambda: patched(honest().build(), SIZE_AT, "Q", 1 << 60), "up to"),
    "negative size": (lambda: patched(honest().build(), SIZE_AT, "Q", 1 << 63), "up to"),
    "tiny clusters": (lambda: patched(honest().build(), BITS, "I", 8), "power of 8"),
    "huge clusters": (lambda: patched(honest().build(), BITS, "I", 22), "power of 22"),
    "absurd clusters": (lambda: patched(honest().build(), BITS, "I", 0xFFFFFFFF), "power of"),
    "empty first table": (lambda: patched(honest().build(), L1_SIZE, "I", 0), "has 0 entries"),
    "huge first table": (lambda: patched(honest().build(), L1_SIZE, "I", 0xFFFFFFFF), "entries"),
    "first table over the header": (lambda: patched(honest().build(), L1, "Q", 0), "impossible place"),
    "first table between clusters": (lambda: patched(honest().build(), L1, "Q", CLUSTER + 8), "impossible place"),
    "first table beyond the end": (lambda: patched(honest().build(), L1, "Q", CLUSTER << 20), "cut off"),
    "first table at the end of all": (lambda: patched(honest().build(), L1, "Q", (1 << 64) - CLUSTER), "cut off"),
    "no reference counts": (lambda: patched(honest().build(), REFCOUNTS, "QI", CLUSTER, 0), "reference counts"),
    "many reference counts": (lambda: patched(honest().build(), REFCOUNTS, "QI", CLUSTER, 1 << 20), "counts"),
    "reference counts beyond": (lambda: patched(honest().build(), REFCOUNTS, "Q", CLUSTER << 30), "cut off"),
    "wide reference counts": (lambda: patched(honest().build(), ORDER, "I", 7), "power of 7"),
    "snapshots": (lambda: honest(snapshots=1).build(), "snapshots"),
    "short header": (lambda: patched(honest().build(), LENGTH, "I", 72), "72 bytes"),
    "long header": (lambda: patched(honest().build(), LENGTH, "I", 1 << 30), "bytes"),
    "odd header": (lambda: patched(honest().build(), LENGTH, "I", 109), "109 bytes"),
    "endless extension": (lambda: patched(honest().build(), 112, "II", 0x1234, 0xFFFFFFF0), "no end"),
    "extensions up to the end": (lambda: honest(extensions=[(0x1234, bytes(4096))] * 14).build(), "no end"),
    "table of clusters beyond": (lambda: patched(honest().build(), CLUSTER, "Q", CLUSTER << 20), "cut off"),
    "table of clusters in the header": (lambda: patched(honest().build(), CLUSTER, "Q", 512), "impossible place"),
    "strange bits in a table": (lambda: patched(honest().build(), CLUSTER, "Q", L2_ENTRY | 1 << 60), "mean nothing"),
    "cluster beyond": (lambda: patched(honest().build(), L2_ENTRY + 8, "Q", CLUSTER << 20), "cut off"),
    "cluster in the header": (lambda: patched(honest().build(), L2_ENTRY + 8, "Q", 1 << 63 | 512), "cut off"),
    "cluster between clusters": (lambda: patched(honest().build(), L2_ENTRY + 8, "Q", 5 * CLUSTER + 512), "cut off"),
    "compressed cluster beyond": (
        lambda: patched(honest().build(), L2_ENTRY + 8, "Q", 1 << 62 | CLUSTER << 20), "cut off",
    ),
    "compressed cluster over the header": (
        lambda: patched(honest().build(), L2_ENTRY + 8, "Q", 1 << 62 | 8), "where its header is",
    ),
    "cut in the header": (lambda: honest().build()[:50], "cut off"),
    "cut in the header of version 3": (lambda: honest().build()[:80], "cut off"),
    "cut behind the header": (lambda: honest().build()[:CLUSTER], "cut off"),
    "cut in the tables": (lambda: honest().build()[: 4 * CLUSTER + 100], "cut off"),
    "cut in the clusters": (lambda: honest().build()[: 7 * CLUSTER], "cut off"),
    "VMDK": (lambda: b"KDMV" + mbr_disk(SIZE)[4:], "VMDK"),
    "VMDK descriptor": (lambda: b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n'.ljust(SIZE, b"\n"), "VMDK"),
    "VHD": (lambda: b"conectix" + mbr_disk(SIZE)[8:], "VHD"),
    "VHDX": (lambda: b"vhdxfile" + mbr_disk(SIZE)[8:], "VHDX"),
    "VDI": (lambda: b"<<< Oracle VM".ljust(64) + b"\x7f\x10\xda\xbe" + bytes(1000), "VDI"),
    "VDI with another text": (lambda: bytes(64) + b"\x7f\x10\xda\xbe" + mbr_disk(SIZE)[68:], "VDI"),
    "QED": (lambda: b"QED\0" + mbr_disk(SIZE)[4:], "QED"),
    "Parallels": (lambda: b"WithouFreSpacExt" + mbr_disk(SIZE)[16:], "Parallels"),
    "LUKS": (lambda: b"LUKS\xba\xbe" + mbr_disk(SIZE)[6:], "encrypted"),
    "xz": (lambda: b"\xfd7zXZ\0" + bytes(1000), "compressed by xz"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(1000), "compressed by gzip"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(1000), "compressed by zstd"),
    "ISO": (lambda: mbr_disk(SIZE)[:32769] + b"CD001" + bytes(CLUSTER), "disc"),
    "web page": (lambda: b"\n<!DOCTYPE html><title>404</title>".ljust(1024), "web page"),
    "no disk at all": (lambda: bytes(SIZE), "neither qcow2 nor a raw disk"),
    "nothing": (lambda: b"", "0 bytes"),
    "raw, not whole sectors": (lambda: mbr_disk(SIZE)[:-100], "whole sectors"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = HOSTILE[name]
    with pytest.raises(RefusedImageError) as caught:
        inspect_image(put(tmp_path, make()))
    assert reason in caught.value.reason
    assert caught.value.details == "No tool has opened it."
    assert caught.value.resolution


def test_one_that_is_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    for data in (honest().build(), mbr_disk(SIZE)):
        assert inspect_image(put(tmp_path, data), max_size=SIZE).size == SIZE
        with pytest.raises(RefusedImageError, match=f"up to {SIZE - 512} in whole"):
            inspect_image(put(tmp_path, data), max_size=SIZE - 512)


def test_a_flipped_bit_is_never_a_traceback(tmp_path: Path) -> None:
    """Every bit of the header, and of entries that say something: refused, or still a disk that can be read."""
    image = honest(extensions=[(0x6803F857, b"names" * 8)]).build()
    path, refused = put(tmp_path, image), 0
    tables = [*range(CLUSTER, CLUSTER + 8), *range(L2_ENTRY, L2_ENTRY + 56)]
    for place in [*range(170), *tables]:
        for bit in range(8):
            with path.open("r+b") as stream:
                stream.seek(place)
                stream.write(bytes([image[place] ^ 1 << bit]))
            try:
                found = inspect_image(path)
                if place in tables:
                    assert sum(piece if isinstance(piece, int) else len(piece) for piece in read_disk(found)) == SIZE
            except (RefusedImageError, DamagedImageError):
                refused += 1
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(image[place : place + 1])
    assert refused > 700


@pytest.mark.parametrize(
    ("zstd", "raw"),
    [(False, b"\xff" * 100), (False, b""), (True, b"nothing"), (False, struct.pack("<BHH", 1, 5, 0xFFFA) + b"short"),
     (True, zstandard.ZstdCompressor().compress(b"short"))],
    ids=["noise", "nothing", "noise for zstd", "short", "short zstd"],
)  # fmt: skip
def test_a_cluster_that_cannot_be_unpacked_is_named(zstd: bool, raw: bytes, tmp_path: Path) -> None:
    image = Qcow2(SIZE, {3: Packed(b"", raw.ljust(600, b"\0")), 4: text(4)}, zstd=zstd)
    with pytest.raises(DamagedImageError, match="is damaged") as caught:
        whole(put(tmp_path, image.build()))
    assert caught.value.offset == 5 * CLUSTER


def test_a_cluster_that_unpacks_to_more_is_cut_at_its_size(tmp_path: Path) -> None:
    """A bomb of zeros in one cluster costs one cluster."""
    bomb = Qcow2(SIZE, {3: Packed(bytes(64 << 20)), 4: text(4)}, zstd=True)
    assert whole(put(tmp_path, bomb.build())) == Qcow2(SIZE, {4: text(4)}).disk()


def test_a_raw_disk_with_gpt_is_taken(tmp_path: Path) -> None:
    disk = gpt_disk(SIZE, [("root", 2048, 4095)])
    path = put(tmp_path, disk)
    assert inspect_image(path).format is ImageFormat.RAW
    assert whole(path) == disk


def test_a_raw_disk_that_ends_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = put(tmp_path, mbr_disk(SIZE))
    found = inspect_image(path)
    path.write_bytes(mbr_disk(SIZE)[: 2 * CLUSTER])
    with pytest.raises(DamagedImageError, match="is damaged"):
        list(read_disk(found))
