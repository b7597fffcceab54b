"""The services container as data agrees with the programs in it."""

from __future__ import annotations

import json
from pathlib import Path

from contracts.arch import Arch
from pipeline.oci import HealthCheck, ImageConfig, image_json
from pxeboot_stack import container, health
from pxeboot_stack.paths import RunFiles


def test_docker_asks_for_the_file_that_the_services_write() -> None:
    assert Path(container.HEALTHY) == RunFiles().healthy
    assert f"find {container.HEALTHY} -newermt '-{health.FRESH:g} seconds'" in container.HEALTH_COMMAND


def test_the_file_outlives_a_round() -> None:
    """One service that is slow does not make the container unhealthy at once."""
    assert health.INTERVAL + health.PATIENCE < health.FRESH


def test_the_image_says_how_it_is_asked() -> None:
    check = HealthCheck("true", interval=30, timeout=20, retries=3)
    image = json.loads(image_json(ImageConfig(tag="x:1", entrypoint=("x",), health_check=check), Arch.X86_64, []))
    assert image["config"]["Healthcheck"] == {
        "Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000, "Timeout": 20_000_000_000, "Retries": 3
    }  # fmt: skip
    assert "created" not in image


def test_the_images_date_is_the_packages() -> None:
    image = json.loads(image_json(ImageConfig(tag="x:1", entrypoint=("x",), created=1_700_000_000), Arch.X86_64, []))
    assert image["created"] == "2023-11-14T22:13:20Z"
    assert "Healthcheck" not in image["config"]


def test_the_labels_are_those_of_oci() -> None:
    labels = container.labels(version="1.2.3", source="a" * 64, created="2026-01-01T00:00:00Z")
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "a" * 64
    assert labels["org.opencontainers.image.created"] == "2026-01-01T00:00:00Z"
