"""The services container, loaded by a real Docker engine and started in it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests

from contracts.arch import Arch
from lab.wait import Deadline, wait_for
from pipeline.run import find_program, spawn
from pipeline.workspace import Cache
from pxeboot_stack import container

pytestmark = pytest.mark.artifacts


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """An engine of our own, that touches neither the host's network nor its images."""
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    if find_program("dockerd") is None:
        pytest.skip("dockerd is not installed: ./pvmlab test installs it")
    folder = tmp_path_factory.mktemp("docker")
    settings = folder / "daemon.json"
    settings.write_text(json.dumps({"storage-driver": "vfs", "iptables": False, "ip6tables": False, "bridge": "none"}))
    socket = folder / "docker.sock"
    arguments = [f"--data-root={folder}/data", f"--exec-root={folder}/run", f"--pidfile={folder}/pid"]
    with (folder / "log").open("wb") as log:
        process = spawn(
            ["dockerd", f"--config-file={settings}", f"--host=unix://{socket}", *arguments], stdout=log, stderr=log
        )
    try:
        wait_for("the Docker engine", lambda: socket.exists() or None, deadline=Deadline(60))
        with contextlib.closing(docker.DockerClient(base_url=f"unix://{socket}", timeout=120)) as client:
            wait_for("the Docker engine's answer", lambda: _answers(client) or None, deadline=Deadline(60))
            yield client
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(client: docker.DockerClient) -> bool:
    try:
        return bool(client.ping())
    except (docker.errors.APIError, requests.ConnectionError):
        return False


def test_docker_loads_it_and_its_programs_start(engine: docker.DockerClient, artifacts: Cache) -> None:
    with artifacts.container(Arch.X86_64).open("rb") as archive:
        (image,) = engine.images.load(archive)
    assert image.tags == [container.TAG]
    check = "import pxeboot_stack.entrypoint, starlette, uvicorn; print('imported')"
    printed = engine.containers.run(
        image, entrypoint=["/bin/sh", "-euc", f'dnsmasq --version; nginx -v; python3 -c "{check}"'],
        network_mode="none", read_only=True, tmpfs={"/run": "", "/tmp": ""}, remove=True, stderr=True,
    )  # fmt: skip
    assert b"Dnsmasq version" in printed
    assert b"nginx version" in printed
    assert b"imported" in printed


def test_it_is_small(artifacts: Cache) -> None:
    assert artifacts.container(Arch.X86_64).stat().st_size <= 120_000_000


def test_the_layers_are_an_oci_layout_too(artifacts: Cache, tmp_path: Path) -> None:
    from pipeline.oci import read_image

    image = read_image(artifacts.container(Arch.X86_64), tmp_path)
    assert json.loads(image.document)["config"]["Entrypoint"] == list(container.ENTRYPOINT)
    assert len(image.layers) == 2
