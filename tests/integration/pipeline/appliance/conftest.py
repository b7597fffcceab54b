"""The appliance, and images made with it once for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.appliance.boot import Appliance
from pipeline.recipes.build import ensure
from pipeline.recipes.cloud_image import appliance_files
from pipeline.state import State, state_of
from pipeline.workspace import Workspace
from tests.fakes.cloud_images import make_images


@pytest.fixture(scope="session")
def appliance() -> Appliance:
    """The appliance of this host, built now if it was not."""
    ensure([f"appliance:{Arch.of_host()}"])
    return appliance_files(Arch.of_host(), Workspace.from_environment().cache)


@pytest.fixture(scope="session")
def state() -> State:
    """What is remembered of this host's accelerator."""
    return state_of(Workspace.from_environment().cache)


@pytest.fixture(scope="session")
def images(appliance: Appliance, state: State, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A qcow2 image for each layout of ``tests.fakes.cloud_images``, and the raw disk it was made of beside it."""
    return make_images(appliance, tmp_path_factory.mktemp("images"), state)
