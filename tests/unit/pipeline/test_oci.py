"""The image tar: what docker load reads, what an OCI layout is, and equal bytes for equal layers."""

import hashlib
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

from contracts.arch import Arch
from pipeline.docker_store import chain_ids, write_metadata
from pipeline.oci import ImageConfig, Layer, compress_layer, image_json, write_image
from pipeline.tree_tar import TreeTar

CONFIG = ImageConfig(
    tag="stack:latest", entrypoint=("python3", "-m", "stack"), environment={"B": "2", "A": "1"}, labels={"x": "y"}
)


def make_layers(folder: Path) -> tuple[list[Path], list[Layer]]:
    plain = []
    for name in ("base", "app"):
        plain.append(folder / f"{name}.tar")
        with TreeTar(plain[-1]) as tree:
            tree.file(f"opt/{name}/file", name.encode() * 1000)
    return plain, [compress_layer(path, path.with_suffix(".tar.gz")) for path in plain]


def read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            found[member.name] = stream.read()
        return found


def test_every_blob_is_named_by_its_digest_and_every_reference_holds(tmp_path: Path) -> None:
    plain, layers = make_layers(tmp_path)
    image_id = write_image(tmp_path / "image.tar", CONFIG, Arch.X86_64, layers)
    members = read(tmp_path / "image.tar")
    for name, data in members.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(data).hexdigest() == name.removeprefix("blobs/sha256/")
    (index,) = json.loads(members["index.json"])["manifests"]
    manifest: dict[str, Any] = json.loads(members[f"blobs/sha256/{index['digest'].removeprefix('sha256:')}"])
    assert manifest["config"]["digest"] == f"sha256:{image_id}"
    (docker,) = json.loads(members["manifest.json"])
    assert docker["Config"] == f"blobs/sha256/{image_id}"
    assert docker["RepoTags"] == ["stack:latest"]
    assert docker["Layers"] == [
        f"blobs/sha256/{layer['digest'].removeprefix('sha256:')}" for layer in manifest["layers"]
    ]
    image = json.loads(members[docker["Config"]])
    assert image["architecture"] == "amd64"
    assert image["config"]["Env"] == ["A=1", "B=2"]
    for path, blob, diff_id in zip(plain, docker["Layers"], image["rootfs"]["diff_ids"], strict=True):
        assert zlib.decompress(members[blob], wbits=31) == path.read_bytes()
        assert diff_id == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_equal_layers_give_equal_bytes(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        _, layers = make_layers(folder)
        write_image(folder / "image.tar", CONFIG, Arch.X86_64, layers)
        results.append((folder / "image.tar").read_bytes())
    assert results[0] == results[1]


def test_chain_ids_follow_the_image_specification() -> None:
    first, second = "a" * 64, "b" * 64
    expected = hashlib.sha256(f"sha256:{first} sha256:{second}".encode()).hexdigest()
    assert list(chain_ids([first, second])) == [first, expected]


def test_the_docker_store_links_every_layer_to_those_below(tmp_path: Path) -> None:
    _, layers = make_layers(tmp_path)
    image = image_json(CONFIG, Arch.X86_64, layers)
    write_metadata(tmp_path / "store.tar", tag="stack:latest", image=image, layers=layers, sizes=[10, 20])
    with tarfile.open(tmp_path / "store.tar") as archive:
        links = {member.name: member.linkname for member in archive if member.issym()}
        files = {m.name: s.read() for m in archive if m.isfile() and (s := archive.extractfile(m)) is not None}
    base, app = layers
    driver, store = "var/lib/docker/overlay2", "var/lib/docker/image/overlay2"
    chain = list(chain_ids([base.diff_id, app.diff_id]))
    assert files[f"{driver}/{app.diff_id}/lower"].decode() == "l/" + files[f"{driver}/{base.diff_id}/link"].decode()
    for layer in layers:
        short = files[f"{driver}/{layer.diff_id}/link"].decode()
        assert links[f"{driver}/l/{short}"] == f"../{layer.diff_id}/diff"
    assert f"{driver}/{base.diff_id}/lower" not in files
    assert files[f"{store}/layerdb/sha256/{chain[1]}/parent"].decode() == f"sha256:{chain[0]}"
    assert files[f"{store}/layerdb/sha256/{chain[1]}/size"] == b"20"
    image_id = hashlib.sha256(image).hexdigest()
    assert files[f"{store}/imagedb/content/sha256/{image_id}"] == image
    assert json.loads(files[f"{store}/repositories.json"]) == {
        "Repositories": {"stack": {"stack:latest": f"sha256:{image_id}"}}
    }
