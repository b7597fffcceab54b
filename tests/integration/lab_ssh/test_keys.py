from __future__ import annotations

from pathlib import Path

import pytest

from lab.keys import ensure_key_pair, make_key
from lab.lab import Lab
from lab.store import DefinitionStore, MachineRequest
from lab.target import clean, create
from pipeline import commit
from pipeline.errors import ConflictError
from pipeline.run import run
from pipeline.workspace import Cache, Home, Workspace


def test_pair_is_made_once_and_belongs_together(tmp_path: Path) -> None:
    pair = ensure_key_pair(tmp_path / "ssh/id", comment="pvmlab")
    private = pair.private.read_bytes()
    assert pair.private.stat().st_mode & 0o777 == 0o600
    derived = run(["ssh-keygen", "-y", "-f", pair.private], timeout=10).stdout
    assert pair.read_public().split()[:2] == derived.split()[:2]
    assert ensure_key_pair(tmp_path / "ssh/id", comment="pvmlab").private.read_bytes() == private
    assert sorted(path.name for path in (tmp_path / "ssh").iterdir()) == ["id", "id.pub"]


def test_killed_between_the_two_files_leaves_no_half_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, text: str, *, mode: int = 0o644) -> None:
        if path.suffix != ".pub":
            raise KeyboardInterrupt
        publish(path, text, mode=mode)

    publish = commit.publish_text
    with monkeypatch.context() as patch:
        patch.setattr(commit, "publish_text", killed)
        with pytest.raises(KeyboardInterrupt):
            ensure_key_pair(tmp_path / "id", comment="pvmlab")
    assert not (tmp_path / "id").exists()
    pair = ensure_key_pair(tmp_path / "id", comment="pvmlab")
    derived = run(["ssh-keygen", "-y", "-f", pair.private], timeout=10).stdout
    assert pair.read_public().split()[:2] == derived.split()[:2]


def test_lost_public_key_comes_back_and_the_private_one_stays(tmp_path: Path) -> None:
    pair = ensure_key_pair(tmp_path / "id", comment="pvmlab")
    private, public = pair.private.read_bytes(), pair.read_public()
    pair.public.unlink()
    again = ensure_key_pair(tmp_path / "id", comment="pvmlab")
    assert again.private.read_bytes() == private
    assert again.read_public().split()[:2] == public.split()[:2]


def test_file_that_is_no_key_is_told_and_kept(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("precious")
    with pytest.raises(ConflictError, match=r"id is not a usable SSH key"):
        ensure_key_pair(tmp_path / "id", comment="pvmlab")
    assert (tmp_path / "id").read_text() == "precious"


def test_keys_of_machines_differ_and_leave_nothing_behind(tmp_path: Path) -> None:
    first, second = (make_key("web", scratch=tmp_path) for _ in range(2))
    assert first != second
    assert list(tmp_path.iterdir()) == []


def test_machine_is_created_and_cleaned_for_real(tmp_path: Path) -> None:
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    definition = create(lab, MachineRequest(name="web1", distro="debian-12", disk_gib=3))
    assert DefinitionStore(lab).load("web1") == definition
    assert (lab.home.disks / "web1.qcow2").stat().st_mode & 0o777 == 0o600
    assert (lab.home.ssh / "known_hosts").read_text().startswith("web1 ssh-ed25519 ")
    with pytest.raises(ConflictError):
        create(lab, MachineRequest(name="web1", distro="debian-12"))
    clean(lab, "web1")
    assert (lab.home.ssh / "known_hosts").read_text() == ""
    assert create(lab, MachineRequest(name="web1", distro="debian-12")).uuid != definition.uuid
