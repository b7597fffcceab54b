"""Copies to and from a machine, which is an SSH server of this host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts.names import PROVISIONER_NAME
from lab import copying
from lab.copying import Place, copy
from lab.lab import Lab
from lab.provisioner_record import ProvisionerMode, ProvisionerRecord, write_record
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, NotFoundError, UsageError
from tests.integration.lab_ssh.conftest import TARGET_IP, MarkRunning, StartServer


@pytest.fixture
def reachable(
    lab: Lab, start_server: StartServer, provisioner_port: int, provisioner_key: str, mark_running: MarkRunning
) -> Lab:
    """A lab whose machine answers."""
    start_server("127.0.0.1", provisioner_port, provisioner_key)
    start_server(TARGET_IP, 22, DefinitionStore(lab).load("web1").ssh_host_key.private)
    mark_running("web1")
    mark_running(PROVISIONER_NAME)
    return lab


@pytest.mark.parametrize("name", ["plain", "with blank", "$HOME", "a:b", "quo'te\"s", "-r", "*", "ünï"])
def test_a_file_there_and_back(reachable: Lab, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    (folder / "back").mkdir(parents=True)
    monkeypatch.chdir(folder)
    path = Path(f"./{name}")
    path.write_bytes(b"\0content")
    path.chmod(0o750)
    os.utime(path, (1e9, 1e9))
    there = tmp_path / "there"
    there.mkdir()
    local = f"./{name}"  # a:b would be a machine's
    assert copy(reachable, local, f"web1:{there}/", recursive=False) == 0
    copied = there / name
    assert (copied.read_bytes(), copied.stat().st_mode & 0o777, copied.stat().st_mtime) == (b"\0content", 0o750, 1e9)
    if name != "*":  # the far side's names are patterns
        assert copy(reachable, f"web1:{there}/{name}", "back/", recursive=False) == 0
        assert (folder / "back" / name).read_bytes() == b"\0content"


def test_folders_want_recursive(reachable: Lab, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/b").write_text("deep")
    assert copy(reachable, str(tree), f"web1:{tmp_path}/new", recursive=False) != 0
    assert copy(reachable, str(tree), f"web1:{tmp_path}/new", recursive=True) == 0
    assert (tmp_path / "new/a/b").read_text() == "deep"
    assert copy(reachable, f"web1:{tmp_path}/new/", f"{tmp_path}/back", recursive=True) == 0
    assert (tmp_path / "back/a/b").read_text() == "deep"


def test_what_is_not_there_fails(reachable: Lab, tmp_path: Path) -> None:
    assert copy(reachable, str(tmp_path / "nope"), "web1:", recursive=False) != 0
    assert copy(reachable, "web1:/nope", str(tmp_path), recursive=False) != 0


@pytest.mark.parametrize(("source", "destination", "what"), [("a", "b", "none is"), ("web1:a", "web2:b", "both are")])
def test_exactly_one_side_is_a_machines(lab: Lab, source: str, destination: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"one of the two paths has to be a machine's, and {what}"):
        copy(lab, source, destination, recursive=False)


def test_machines_that_are_not_there_off_or_none_at_all_are_refused(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="there is no machine 'nope'"):
        copy(lab, "nope:a", "b", recursive=False)
    with pytest.raises(ConflictError, match="web1 is off"):
        copy(lab, "web1:a", "b", recursive=False)
    with pytest.raises(UsageError, match="an empty path"):
        copy(lab, "", "web1:", recursive=False)
    write_record(lab.home, ProvisionerRecord(uuid="00000000-0000-4000-8000-000000000002", mode=ProvisionerMode.HOST))
    with pytest.raises(ConflictError, match=r"its services run on this host \(host mode\)"):
        copy(lab, f"{PROVISIONER_NAME}:a", "b", recursive=False)


def test_places() -> None:
    assert Place.parse("web1:") == Place("web1", ".")
    assert Place.parse("web1:a:b") == Place("web1", "a:b")
    for path in ("./web1:a", "/web1:a", "Web1:a", "a b:c", "-web:a"):
        assert Place.parse(path) == Place(None, path)
    words = copying.copy_arguments(Path("/c f"), Place(None, "dir/."), Place("web1", "x y"), recursive=True)
    assert words[-4:] == ["-r", "--", f"{Path.cwd()}/dir/.", "web1:x y"]
