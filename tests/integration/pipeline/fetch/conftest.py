"""Downloads from servers on the loopback, whatever proxies this host has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.fetch.patience import Patience
from pipeline.fetch.store import Store
from pipeline.workspace import Cache

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_OTHERS = ("PVMLAB_OFFLINE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_PROXIES, *map(str.upper, _PROXIES), *_OTHERS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(name="store")
def make_store(tmp_path: Path) -> Store:
    return Store(Cache(tmp_path / "cache"))


@pytest.fixture(name="hasty")
def make_hasty() -> Patience:
    """The patience of tests: what takes a minute on the internet takes a fraction of a second."""
    return Patience(
        connect=2.0, read=0.3, floor=20_000.0, window=0.5, tries=3, worth=4096, most=12, pause=0.001, longest=0.01
    )
