"""A person's own image: as tars that real Docker made and loads, and as a Dockerfile that it builds."""

from __future__ import annotations

import dataclasses
import gc
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.container_build import TAG, ImageBuildError, build_image
from pipeline.container_tar import find_image, write_loadable
from pipeline.disk_image import Unpacked
from pipeline.docker_store import layer_content, write_metadata
from pipeline.errors import NotFoundError, PrerequisiteError
from pipeline.oci import read_image
from pipeline.run import run
from pipeline.workspace import Cache
from pxeboot_stack import container
from tests.fakes.engine import Engine, running_engine
from tests.fakes.image_tars import docker_files, layer, oci_files, write_tar

LAYERS = [layer("base"), layer("ours")]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine with no images."""
    with tempfile.TemporaryDirectory(prefix="pvmlab-docker-") as folder, running_engine(Path(folder)) as made:
        yield made


@pytest.fixture
def client(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine, the one that the environment names."""
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    return engine


def labels(engine: Engine, image: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(engine.docker(["inspect", "--format={{json .Config.Labels}}", image]).stdout)
    return found


@pytest.mark.parametrize("kind", ["docker", "oci", "oci-zstd", "oci-nested"])
def test_docker_loads_every_copy_under_the_id_we_said(engine: Engine, tmp_path: Path, kind: str) -> None:
    if kind == "oci-zstd" and engine.docker(["version", "--format={{.Server.Version}}"]).stdout.startswith("20."):
        pytest.skip("this Docker does not read zstd")
    files = {"docker": docker_files(LAYERS), "oci": oci_files(LAYERS), "oci-zstd": oci_files(LAYERS, how="zstd"),
             "oci-nested": oci_files(LAYERS, nested=True)}[kind]  # fmt: skip
    source = write_tar(tmp_path / "image.tar", files)
    image = find_image(source, Arch.X86_64)
    write_loadable(source, image, tmp_path / "copy.tar", tag=f"own:{kind}")
    assert engine.docker(["load", "--quiet", f"--input={tmp_path}/copy.tar"]).stdout == f"Loaded image: own:{kind}\n"
    assert engine.docker(["inspect", "--format={{.Id}}", f"own:{kind}"]).stdout == f"sha256:{image.image_id}\n"


def test_what_docker_saves_is_taken(engine: Engine, tmp_path: Path) -> None:
    source = write_tar(tmp_path / "image.tar", docker_files(LAYERS, names=("saved:1", "saved:2")))
    engine.docker(["load", f"--input={source}"])
    engine.docker(["save", f"--output={tmp_path}/saved.tar", "saved:1", "saved:2"])
    saved = find_image(tmp_path / "saved.tar", Arch.X86_64, name="saved:2")
    assert engine.docker(["inspect", "--format={{.Id}}", "saved:1"]).stdout == f"sha256:{saved.image_id}\n"


@pytest.mark.artifacts
def test_a_dockerfile_on_top_of_ours_is_built(client: Engine, artifacts: Cache, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {container.TAG}\nCOPY note /note\nLABEL mine=yes\n")
    (tmp_path / "note").write_text("of mine")
    lines: list[str] = []
    base = artifacts.container(Arch.X86_64)
    build_image(tmp_path, base, tmp_path / "image.tar", arch=Arch.X86_64, say=lines.append)
    image = find_image(tmp_path / "image.tar", Arch.X86_64)
    assert image.names == (TAG,)
    assert image.labels["mine"] == "yes"
    assert "org.opencontainers.image.version" in image.labels
    assert json.loads(image.document)["config"]["Entrypoint"] == list(container.ENTRYPOINT)
    assert any("COPY note" in line for line in lines)


@pytest.mark.artifacts
@pytest.mark.parametrize(
    ("text", "why"),
    [("FROM pxeboot_stack:latest\nCOPY missing /\n", "missing"), ("FROM pxeboot_stack:latest\nNONSENSE\n", "NONSENSE"),
     ("", "Dockerfile")],
)  # fmt: skip
def test_a_dockerfile_that_cannot_be_built_says_why(
    client: Engine, artifacts: Cache, tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    base = artifacts.container(Arch.X86_64)
    with pytest.raises(ImageBuildError) as caught:
        build_image(tmp_path, base, tmp_path / "image.tar", arch=Arch.X86_64, say=lambda _: None)
    assert why.lower() in caught.value.details.lower()
    assert not (tmp_path / "image.tar").exists()


def test_without_an_engine_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker does not close a socket that it could not connect
        with pytest.raises(PrerequisiteError, match="no Docker engine answers") as caught:
            build_image(tmp_path, tmp_path / "base", tmp_path / "image.tar", arch=Arch.X86_64, say=print)
        resolution = caught.value.resolution
        del caught
        gc.collect()
    assert "--docker-tar" in resolution


def test_without_a_dockerfile_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no Dockerfile"):
        build_image(tmp_path, tmp_path / "base", tmp_path / "image.tar", arch=Arch.X86_64, say=print)


@pytest.mark.artifacts
def test_docker_loads_another_image_into_the_store_that_we_wrote(artifacts: Cache, tmp_path: Path) -> None:
    """In the provisioner the built-in image was put there without Docker; a person's image shares its layers."""
    archive = artifacts.container(Arch.X86_64)
    with tempfile.TemporaryDirectory(prefix="pvmlab-store-") as scratch:
        folder, data = Path(scratch), Path(scratch) / "data"
        unpack_store(archive, folder / "unpacked", data)
        with running_engine(folder) as engine:
            if engine.docker(["info", "--format={{.Driver}}"]).stdout.strip() != "overlay2":
                pytest.skip("there is no overlay2 here")
            built_in = engine.docker(["inspect", "--format={{.Id}}", container.TAG]).stdout.strip()
            own = derived(archive, tmp_path / "own.tar")
            engine.docker(["load", f"--input={own}"])
            assert labels(engine, "own:1")["mine"] == "yes"
            for image in ("own:1", container.TAG):
                words = ["run", "--rm", "--network=none", "--entrypoint=/usr/sbin/nginx", image, "-v"]
                assert "nginx version" in engine.docker(words).stderr
            engine.docker(["image", "rm", "own:1"])
            assert engine.docker(["inspect", "--format={{.Id}}", container.TAG]).stdout.strip() == built_in


def unpack_store(archive: Path, scratch: Path, data: Path) -> None:
    """Lay the image *archive* down as the provisioner's disk has it."""
    scratch.mkdir()
    image = read_image(archive, scratch)
    sizes = [path.stat().st_size for path in image.plain]
    write_metadata(scratch / "store.tar", tag=image.tag, image=image.document, layers=image.layers, sizes=sizes)
    root = scratch / "root"
    for part in (Unpacked(scratch / "store.tar"), *layer_content(image.layers, image.plain)):
        target = root / part.prefix
        target.mkdir(parents=True, exist_ok=True)
        run(["tar", "--extract", "--numeric-owner", "--file", part.archive, "--directory", target], timeout=120)
    (root / "var/lib/docker").rename(data)


def derived(archive: Path, output: Path) -> Path:
    """Write the image *archive* with one label more."""
    image = find_image(archive, Arch.X86_64)
    document = json.loads(image.document)
    document["config"]["Labels"]["mine"] = "yes"
    own = dataclasses.replace(image, document=json.dumps(document).encode())
    write_loadable(archive, own, output, tag="own:1")
    return output
