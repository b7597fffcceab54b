from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lab import sockets
from pipeline.errors import ConflictError


def test_a_short_path_is_used_as_it_is() -> None:
    assert sockets.socket_path(Path("/home/me/.pvmlab/run"), "web1.qmp") == Path("/home/me/.pvmlab/run/web1.qmp")


@pytest.fixture
def private(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    parent = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(sockets, "_TEMPORARY", parent)
    return parent / f"pvmlab-{os.getuid()}"


def test_a_long_path_becomes_a_short_private_one(private: Path) -> None:
    run = Path("/" + "d" * 150)
    path = sockets.socket_path(run, f"{'n' * 63}.qmp")
    assert path.parent == private
    assert private.stat().st_mode & 0o777 == 0o700
    assert path == sockets.socket_path(run, f"{'n' * 63}.qmp")
    assert path.with_suffix(".serial") == sockets.socket_path(run, f"{'n' * 63}.serial")
    assert path != sockets.socket_path(run, f"{'m' * 63}.qmp")
    assert path != sockets.socket_path(Path("/" + "e" * 150), f"{'n' * 63}.qmp")


def test_in_the_real_temporary_folder_it_is_short_enough() -> None:
    digest_and_suffix = 24 + len(".serial")
    assert len(f"/tmp/pvmlab-{2**32}/") + digest_and_suffix <= sockets.LONGEST


@pytest.mark.parametrize("planted", ["symlink", "open", "file"])
def test_a_planted_folder_is_refused(private: Path, planted: str) -> None:
    if planted == "symlink":
        private.symlink_to(private.parent)
    elif planted == "open":
        private.mkdir()
        private.chmod(0o755)
    else:
        private.touch()
    with pytest.raises(ConflictError, match="not a private folder of yours"):
        sockets.socket_path(Path("/" + "d" * 150), "web1.qmp")


def test_listens(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not sockets.listens(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert not sockets.listens(path)
        listener.listen()
        assert sockets.listens(path)
    assert not sockets.listens(path)
