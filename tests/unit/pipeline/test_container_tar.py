from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline import container_tar
from pipeline.container_tar import ImageTarError, find_image, write_loadable
from pipeline.errors import ChecksumError, NotFoundError, PvmlabError, UsageError
from tests.fakes.image_tars import config, docker_files, layer, oci_files, write_tar

LAYERS = [layer("base" * 5000), layer("ours")]


@pytest.mark.parametrize(
    "files",
    [docker_files(LAYERS), docker_files(LAYERS, how="gzip"), docker_files(LAYERS, how="zstd"), oci_files(LAYERS),
     oci_files(LAYERS, how="zstd"), oci_files(LAYERS, how="plain"), oci_files(LAYERS, nested=True)],
    ids=["docker", "docker-gzip", "docker-zstd", "oci", "oci-zstd", "oci-plain", "oci-nested"],
)  # fmt: skip
def test_an_image_is_found_and_copied(tmp_path: Path, files: dict[str, bytes | None]) -> None:
    source = write_tar(tmp_path / "image.tar", files)
    image = find_image(source, Arch.X86_64)
    assert image.names == ("web:1",)
    assert image.image_id == hashlib.sha256(config(LAYERS)).hexdigest()
    assert image.labels == {"org.opencontainers.image.version": "7"}
    write_loadable(source, image, tmp_path / "copy.tar", tag="ours:1")
    copy = find_image(tmp_path / "copy.tar", Arch.X86_64)
    assert (copy.names, copy.document) == (("ours:1",), image.document)
    with tarfile.open(tmp_path / "copy.tar") as tar:
        assert tar.getnames() == ["manifest.json", f"blobs/sha256/{image.image_id}", "blobs/sha256/layer0",
                                  "blobs/sha256/layer1"]  # fmt: skip


def test_equal_layers_may_be_links(tmp_path: Path) -> None:
    files = docker_files([LAYERS[0], LAYERS[0]])
    del files["l1/layer.tar"]
    source = write_tar(tmp_path / "image.tar", files, links={"l1/layer.tar": "../l0/layer.tar"})
    image = find_image(source, Arch.X86_64)
    write_loadable(source, image, tmp_path / "copy.tar", tag="ours:1")
    find_image(tmp_path / "copy.tar", Arch.X86_64)


def test_a_compressed_tar_is_taken_too(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "image.tar", docker_files(LAYERS))
    (tmp_path / "image.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert find_image(tmp_path / "image.tar.gz", Arch.X86_64).names == ("web:1",)


def several() -> dict[str, bytes | None]:
    first = docker_files(LAYERS)
    other = docker_files([layer("other")], names=("db:latest",))
    entries = [*json.loads(first["manifest.json"] or b""), *json.loads(other["manifest.json"] or b"")]
    entries[1]["Layers"] = ["o/layer.tar"]
    other["o/layer.tar"] = other.pop("l0/layer.tar")
    return {**other, **first, "manifest.json": json.dumps(entries).encode()}


@pytest.mark.parametrize(
    ("name", "names"), [("web:1", ("web:1",)), ("db", ("db:latest",)), ("db:latest", ("db:latest",))]
)
def test_one_of_several_is_chosen_by_name(tmp_path: Path, name: str, names: tuple[str, ...]) -> None:
    source = write_tar(tmp_path / "image.tar", several())
    assert find_image(source, Arch.X86_64, name=name).names == names


def test_several_without_a_name_are_refused(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "image.tar", several())
    with pytest.raises(UsageError, match="several images") as caught:
        find_image(source, Arch.X86_64)
    assert (caught.value.details, caught.value.resolution) == ("web:1, db:latest", "say which: --image=NAME")
    with pytest.raises(NotFoundError, match="no image named mail") as missing:
        find_image(source, Arch.X86_64, name="mail")
    assert "web:1, db:latest" in missing.value.details


@pytest.mark.parametrize(
    ("document", "found"),
    [(config(LAYERS, architecture="arm64"), "linux/arm64"), (config(LAYERS, os="windows"), "windows/amd64"),
     (config(LAYERS, architecture=None), "linux/None")],
)  # fmt: skip
def test_another_machine_or_system_is_refused(tmp_path: Path, document: bytes, found: str) -> None:
    source = write_tar(tmp_path / "image.tar", docker_files(LAYERS, document=document))
    with pytest.raises(ImageTarError, match="no container image for the provisioner") as caught:
        find_image(source, Arch.X86_64)
    assert f"it is for {found}, the provisioner is linux/amd64" in caught.value.details


def changed(**changes: bytes | None) -> dict[str, bytes | None]:
    return docker_files(LAYERS) | changes


HOSTILE: dict[str, Callable[[], dict[str, bytes | None]]] = {
    "nothing": dict,
    "no image": lambda: {"hello": b"world"},
    "no json": lambda: changed(**{"manifest.json": b"{"}),
    "a number": lambda: changed(**{"manifest.json": b"7"}),
    "a list of numbers": lambda: changed(**{"manifest.json": b"[7]"}),
    "no entries": lambda: changed(**{"manifest.json": b"[]"}),
    "no layers": lambda: changed(**{"manifest.json": json.dumps([{"Config": "x"}]).encode()}),
    "a config that is missing": lambda: changed(
        **{"manifest.json": b'[{"Config": "x", "RepoTags": [], "Layers": []}]'}
    ),
    "a layer that is missing": lambda: {k: v for k, v in docker_files(LAYERS).items() if k != "l1/layer.tar"},
    "a deep config": lambda: docker_files(LAYERS, document=b"[" * 200_000),
    "a config without layers": lambda: docker_files(LAYERS, document=b'{"os": "linux", "architecture": "amd64"}'),
    "too few layers": lambda: docker_files(LAYERS, document=config(LAYERS[:1])),
    "an index of itself": lambda: {"index.json": b'{"manifests": [{"digest": "sha256:' + b"0" * 64 + b'"}]}'},
    "a path for a digest": lambda: {"index.json": b'{"manifests": [{"digest": "sha256:../../../../etc/passwd"}]}'},
    "a layer cut off": lambda: changed(**{"l0/layer.tar": gzip.compress(LAYERS[0])[:-20]}),
    "a layer of another kind": lambda: changed(**{"l0/layer.tar": b"\x1f\x8b nonsense"}),
}


@pytest.mark.parametrize("files", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_image_is_refused(tmp_path: Path, files: Callable[[], dict[str, bytes | None]]) -> None:
    source = write_tar(tmp_path / "image.tar", files())
    with pytest.raises(PvmlabError) as caught:
        find_image(source, Arch.X86_64)
    assert isinstance(caught.value, (ImageTarError, ChecksumError))
    assert caught.value.details


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8b", b"\x1f\x8b" + bytes(600), bytes(1024), b"x" * 5000])
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(data)
    with pytest.raises(ImageTarError):
        find_image(tmp_path / "image.tar", Arch.X86_64)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        find_image(tmp_path / "image.tar", Arch.X86_64)


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_layer_is_noticed(tmp_path: Path, number: int) -> None:
    files = docker_files(LAYERS)
    name = f"l{number}/layer.tar"
    data = bytearray(files[name] or b"")
    data[600] ^= 1
    source = write_tar(tmp_path / "image.tar", files | {name: bytes(data)})
    with pytest.raises(ChecksumError, match="is damaged") as caught:
        find_image(source, Arch.X86_64)
    assert name in caught.value.details


def test_a_damaged_blob_is_noticed(tmp_path: Path) -> None:
    files = oci_files(LAYERS)
    name = next(name for name, data in files.items() if data and data.startswith(b'{"architecture"'))
    source = write_tar(tmp_path / "image.tar", files | {name: (files[name] or b"").replace(b"/x", b"/y")})
    with pytest.raises(ChecksumError, match="is damaged"):
        find_image(source, Arch.X86_64)


def test_what_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_tar, "MOST_UNPACKED", 100_000)
    bomb = layer("0" * 3_000_000)
    for how in ("gzip", "zstd", "plain"):
        source = write_tar(tmp_path / f"{how}.tar", docker_files([bomb], how=how))
        with pytest.raises(ImageTarError) as caught:
            find_image(source, Arch.X86_64)
        assert "its layers are larger than" in caught.value.details


def test_documents_and_members_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_tar, "MOST_MEMBERS", 3)
    source = write_tar(tmp_path / "image.tar", docker_files(LAYERS))
    with pytest.raises(ImageTarError) as caught:
        find_image(source, Arch.X86_64)
    assert "more than 3 members" in caught.value.details
    monkeypatch.undo()
    monkeypatch.setattr(container_tar, "MOST_DOCUMENT", 10)
    with pytest.raises(ImageTarError) as longer:
        find_image(source, Arch.X86_64)
    assert "is longer than" in longer.value.details
