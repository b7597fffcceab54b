"""The provisioner's script that runs the container, with a real Docker: ours, and a person's own image in its place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from lab import services_container
from lab.lab import Lab
from pipeline.container_tar import find_image, write_loadable
from pipeline.run import Popen, spawn
from pipeline.workspace import Cache, Home, Workspace
from pxeboot_stack import container, provisioner
from tests.fakes.web_client import end
from tests.integration.services_container.conftest import Host

pytestmark = pytest.mark.artifacts

SCRIPT = provisioner.FILES / "usr/local/lib/pvmlab/run-container"
Run = Callable[[dict[str, str]], Popen[bytes]]


@pytest.fixture
def run_script(host: Host, tmp_path: Path) -> Iterator[Run]:
    """Start the script where ``/mnt/host`` is the lab's, with variables of the unit."""
    running: list[Popen[bytes]] = []

    def start(variables: dict[str, str]) -> Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            argv = ["nsenter", f"--target={host.engine.pid}", "--mount", "sh", str(SCRIPT)]
            running.append(spawn(argv, env={"DOCKER_HOST": host.engine.url, **variables}, stdout=log, stderr=log))
        return running[-1]

    host.remove()
    yield start
    host.remove()
    for process in running:
        end(process)


@pytest.fixture
def chosen(host: Host, artifacts: Cache, tmp_path: Path) -> dict[str, str]:
    """Our image with another label, chosen as a person's own; the variables that the unit gets of it."""
    archive = artifacts.container(Arch.X86_64)
    image = find_image(archive, Arch.X86_64)
    document = json.loads(image.document)
    document["config"]["Labels"]["mine"] = "yes"
    own = dataclasses.replace(image, document=json.dumps(document).encode())
    write_loadable(archive, own, tmp_path / "mine.tar", tag="mine:1")
    lab = Lab(Workspace(artifacts, Home(host.engine.host)))
    services_container.choose_tar(lab, tmp_path / "mine.tar")
    lines = (host.engine.host / "config/container.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_it_runs_ours(host: Host, run_script: Run) -> None:
    process = run_script({})
    host.wait("the services answer", host.answers)
    assert host.inspect(".Config.Image") == container.TAG
    host.engine.docker(["stop", container.NAME])
    assert process.wait(timeout=20) == 0


def test_it_loads_and_runs_a_persons_own(host: Host, run_script: Run, chosen: dict[str, str]) -> None:
    for _ in range(2):  # the second time it is there
        process = run_script(chosen)
        host.wait("the services answer", host.answers)
        assert host.inspect(".Image") == chosen["CONTAINER_IMAGE"]
        assert host.inspect(".Config.Labels")["mine"] == "yes"
        host.engine.docker(["stop", container.NAME])
        assert process.wait(timeout=20) == 0
        (host.engine.host / "config/containers" / chosen["CONTAINER_TAR"]).unlink(missing_ok=True)


def test_a_container_that_cannot_start_ends_the_script(host: Host, run_script: Run) -> None:
    process = run_script({"CONTAINER_IMAGE": f"sha256:{'0' * 64}", "CONTAINER_TAR": "missing.tar"})
    assert process.wait(timeout=60) != 0
