"""Every regular file of every kind of artifact is found, and an archive that is not whole is refused."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import stat
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.arch import Arch
from pipeline import cpio
from pipeline.documents.contents import ContainedFile, DamagedArchiveError, files_in
from pipeline.oci import ImageConfig, compress_layer, write_image
from pipeline.tree_tar import TreeTar

CONTENT = {"etc/passwd": b"root\n", "usr/bin/tool": bytes(range(256)) * 9_000, "etc/empty": b""}


def contained(path: str, data: bytes) -> ContainedFile:
    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return ContainedFile(path, sha1, hashlib.sha256(data).hexdigest(), len(data))


def expected(content: Mapping[str, bytes]) -> list[ContainedFile]:
    return sorted(contained(path, data) for path, data in content.items())


def make_tar(content: Mapping[str, bytes], *, prefix: str = "./", extra: Iterable[tarfile.TarInfo] = ()) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for path, data in content.items():
            member = tarfile.TarInfo(prefix + path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return plain.getvalue()


def make_cpio(content: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    cpio.write(stream, [cpio.regular(path, data) for path, data in content.items()])
    return stream.getvalue()


def other(kind: bytes, name: str, linkname: str = "", *, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, linkname, size
    return member


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DamagedArchiveError) as caught:
        list(files_in(path))
    assert caught.value.brief == f"{path.name} is damaged: its content cannot be read"
    return caught.value.details


PACKED: dict[str, Callable[[], bytes]] = {
    "layer.tar": lambda: make_tar(CONTENT),
    "rootfs.tar.zst": lambda: zstandard.ZstdCompressor(write_checksum=True).compress(make_tar(CONTENT, prefix="")),
    "modules.cpio.gz": lambda: gzip.compress(make_cpio(CONTENT)),
    "initrd": lambda: zstandard.ZstdCompressor(write_checksum=True).compress(make_cpio(CONTENT)),
    "initrd.gz": lambda: gzip.compress(make_cpio(CONTENT)),
    "initrd.xz": lambda: lzma.compress(make_cpio(CONTENT)),
}


@pytest.mark.parametrize("name", PACKED)
def test_the_files_of_every_kind_of_archive_are_found(tmp_path: Path, name: str) -> None:
    assert sorted(files_in(written(tmp_path, name, PACKED[name]()))) == expected(CONTENT)


@pytest.mark.parametrize("name", ["vmlinuz", "ipxe-x86_64.efi", "disk.qcow2"])
def test_what_is_no_archive_is_not_looked_into(tmp_path: Path, name: str) -> None:
    assert list(files_in(written(tmp_path, name, PACKED["initrd"]()))) == []


def test_directories_links_and_devices_are_no_files_but_hard_links_are(tmp_path: Path) -> None:
    extra = [
        other(tarfile.DIRTYPE, "./etc"),
        other(tarfile.SYMTYPE, "./link", "etc/passwd"),
        other(tarfile.CHRTYPE, "./dev/null"),
        other(tarfile.LNKTYPE, "./etc/passwd-", "./etc/passwd"),
        other(tarfile.LNKTYPE, "./same-link", "./link"),
    ]
    path = written(tmp_path, "a.tar", make_tar(CONTENT, extra=extra))
    assert sorted(files_in(path)) == expected({**CONTENT, "etc/passwd-": CONTENT["etc/passwd"]})


def test_a_hard_link_to_nothing_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tar", make_tar({}, extra=[other(tarfile.LNKTYPE, "x", "gone")]))
    assert "x is a hard link to gone, which is not in the archive" in refusal(path)


def test_names_do_not_depend_on_the_locale(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("caf\xe9"))
    assert [file.path for file in files_in(written(tmp_path, "a.tar", plain.getvalue()))] == [r"caf\xe9"]
    name = "Főtanúsítvány.crt"
    assert [file.path for file in files_in(written(tmp_path, "b.tar", make_tar({name: b""})))] == [name]


def test_an_initrd_may_be_several_archives_one_after_the_other(tmp_path: Path) -> None:
    parts = [{f"part{number}": b"x" * number} for number in range(7)]
    early, first, second, third, fourth, plain, last = map(make_cpio, parts)
    data = b"".join(
        [
            early, bytes(1024), gzip.compress(first), gzip.compress(second + bytes(40) + third), bytes(3),
            zstandard.compress(fourth), plain, gzip.compress(last), bytes(10_000),
        ]
    )  # fmt: skip
    found = list(files_in(written(tmp_path, "initrd", data)))
    assert found == [contained(path, content) for part in parts for path, content in part.items()]


@pytest.mark.parametrize("magic", [b"BZh9", b"\x02\x21\x4c\x18", b"\x89LZO", b"\x5d\x00\x00\x80"])
def test_what_a_distribution_compressed_otherwise_is_not_looked_into(tmp_path: Path, magic: bytes) -> None:
    early = make_cpio({"kernel/x86/microcode": b"early"})
    assert list(files_in(written(tmp_path, "initrd", magic + bytes(100)))) == []
    assert list(files_in(written(tmp_path, "initrd", early + magic + bytes(100)))) == [
        contained("kernel/x86/microcode", b"early")
    ]


def newc(path: str, data: bytes, *, inode: int, links: int, mode: int = stat.S_IFREG) -> bytes:
    name = path.encode() + b"\0"
    fields = struct.pack(">13I", inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + fields.hex().encode() + name
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)


TRAILER = newc("TRAILER!!!", b"", inode=0, links=1, mode=0)


def test_all_names_of_a_file_in_an_initrd_have_its_content(tmp_path: Path) -> None:
    """As cpio(1) writes them: the content comes with the last name."""
    data = b"".join(
        [
            newc("bin/gunzip", b"", inode=7, links=2),
            newc("empty1", b"", inode=8, links=2),
            newc("./bin/uncompress", b"#!", inode=7, links=2),
            newc("empty2", b"", inode=8, links=2),
            TRAILER,
        ]
    )
    content = {"bin/gunzip": b"#!", "bin/uncompress": b"#!", "empty1": b"", "empty2": b""}
    assert sorted(files_in(written(tmp_path, "initrd", data))) == expected(content)


def test_a_container_image_is_looked_into_layer_by_layer(tmp_path: Path) -> None:
    layers = []
    for name in ("base", "app"):
        with TreeTar(tmp_path / name) as tree:
            tree.file("etc/same", name.encode())
            tree.symlink("etc/link", "same")
        layers.append(compress_layer(tmp_path / name, tmp_path / f"{name}.gz"))
    image = tmp_path / "stack.tar"
    write_image(image, ImageConfig(tag="stack", entrypoint=("sh",)), Arch.X86_64, layers)
    found = {file.path: file for file in files_in(image)}
    with tarfile.open(image) as archive:
        assert set(archive.getnames()) < found.keys()
    for layer, name in zip(layers, ("base", "app"), strict=True):
        blob = f"blobs/sha256/{layer.digest}"
        assert found[blob].sha256 == layer.digest
        assert found[f"{blob}/etc/same"] == contained(f"{blob}/etc/same", name.encode())
    assert len(found) == 3 + 2 + 2 + 2, "three documents by name, two as blobs, two layers with a file each"


@pytest.mark.parametrize(
    "manifest", [b"no json", b"{}", b"[1]", b'[{"Layers": 1}]', b'[{"Layers": ["layer"]}]', b'[{"Layers": ["gone"]}]']
)
def test_an_image_whose_layers_cannot_be_told_is_refused(tmp_path: Path, manifest: bytes) -> None:
    content = {"oci-layout": b"{}", "manifest.json": manifest, "layer": b"no tar"}
    refusal(written(tmp_path, "stack.tar", make_tar(content, prefix="")))


SMALL = {"etc/passwd": b"root\n" * 200, "usr/bin/tool": bytes(range(256)) * 8}
SMALL_PACKED = {
    "layer.tar": make_tar(SMALL),
    "rootfs.tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress(make_tar(SMALL)),
    "modules.cpio.gz": gzip.compress(make_cpio(SMALL)),
    "initrd": make_cpio(SMALL),
}


@pytest.mark.parametrize("name", SMALL_PACKED)
def test_a_cut_archive_is_refused_wherever_it_is_cut(tmp_path: Path, name: str) -> None:
    """But in the padding behind the end mark, where nothing is lost."""
    whole = SMALL_PACKED[name]
    # The end mark of a tar is a block of zeros; an archive of one name is padded after its last byte that is not.
    end = len(whole.rstrip(b"\0")) if name == "initrd" else tar_end(whole) if name == "layer.tar" else len(whole)
    for size in range(0, end, 1 if len(whole) < 2_000 else 37):
        refusal(written(tmp_path, name, whole[:size]))


def tar_end(data: bytes) -> int:
    """Return where the first block of the end mark ends."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.getmembers()
        return archive.offset + tarfile.BLOCKSIZE


@pytest.mark.parametrize("name", SMALL_PACKED)
@settings(deadline=None)  # it writes files
@given(data=st.data())
def test_a_flipped_bit_leads_to_no_other_error_and_past_no_checksum(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    whole = bytearray(SMALL_PACKED[name])
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = written(tmp_path_factory.getbasetemp(), name, bytes(whole))
    with contextlib.suppress(DamagedArchiveError):
        found = sorted(files_in(path))
        # Compressed data has a checksum; without one a damaged name or content is told as it is.
        assert found == expected(SMALL) or name in {"layer.tar", "initrd"}


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("rootfs.tar.zst", zstandard.compress(make_tar(SMALL)) + b"rest", "something follows the compressed data"),
        ("rootfs.tar.zst", b"\0" * 100, "header"),
        ("a.tar", other(b"L", "x", size=2**70).tobuf(tarfile.GNU_FORMAT), "cannot fit 'int'"),
        ("initrd", b"", "there is no archive in it"),
        ("initrd", bytes(4096), "there is no archive in it"),
        ("initrd", make_cpio(SMALL) + b"GARBAGE", "no newc archive or member begins with b'GARBAG'"),
        ("initrd.gz", gzip.compress(b"070701" + b"x" * 200), "a member's header is damaged"),
        ("initrd.gz", gzip.compress(b"070701" + b"0" * 200), "a member's name is 0 bytes long"),
        ("initrd.gz", gzip.compress(gzip.compress(make_cpio(SMALL))), "no newc archive or member begins"),
        ("initrd", newc("x", b"", inode=1, links=1), "the archive is cut off"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    assert reason in refusal(written(tmp_path, name, data))


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(make_cpio(SMALL)))
    packed[-5] ^= 1  # of the CRC-32
    assert "incorrect data check" in refusal(written(tmp_path, "initrd.gz", bytes(packed)))


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(files_in(tmp_path / "initrd"))


class Zeros(io.RawIOBase):
    """A file of zeros without end."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def test_a_long_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    """Zeros are the worst case: 300 MiB of them are 10 kB of zstd."""
    path, member = tmp_path / "rootfs.tar.zst", tarfile.TarInfo("zeros")
    member.size = 300 << 20
    with (
        path.open("wb") as raw,
        zstandard.ZstdCompressor(level=1).stream_writer(raw) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        archive.addfile(member, io.BufferedReader(Zeros()))
    tracemalloc.start()
    try:
        (file,) = files_in(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.size == member.size
    assert peak < 100 << 20
