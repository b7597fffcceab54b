"""A toy cache in which all is built, and a bundle of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.workspace import Cache
from tests.fakes.toy_bundle import exported
from tests.fakes.toy_cache import build_all, toy_graph


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache in which all is built; tests only read it."""
    cache = Cache(tmp_path_factory.mktemp("source") / "cache")
    build_all(toy_graph(cache))
    return cache


@pytest.fixture(scope="module")
def bundle(source: Cache) -> bytes:
    """A bundle of all there is."""
    return exported(source)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")
