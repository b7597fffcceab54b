"""Making the environment on hosts that lack something, with a lock of one small package."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from cli import environment
from cli.bootstrap import is_current
from pipeline.errors import PrerequisiteError
from pipeline.workspace import REPOSITORY


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    found = re.search(
        r"^iniconfig==.*(?:\n    --hash.*)+", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE
    )
    assert found is not None
    (tmp_path / "requirements.lock").write_text(found[0].rstrip("\\ ") + "\n")
    return tmp_path / "requirements.lock"


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of fake programs, first on the PATH; there is no uv."""
    shutil.copytree(REPOSITORY / "tests/fakes/host", tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return tmp_path / "bin"


def test_debian_without_the_venv_package_gets_it_and_a_lost_python_is_noticed(
    tmp_path: Path, lock: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    environment.make(tmp_path / ".venv", lock)
    package = f"python3.{sys.version_info.minor}-venv"
    assert (fakes / "calls").read_text().split("\n")[0].endswith(f"install --no-install-recommends --yes {package}")
    assert f"installing to make .venv: {package}" in capsys.readouterr().err
    assert is_current(tmp_path / ".venv", lock)

    (tmp_path / ".venv/bin/python").unlink()  # the system's Python was replaced by a newer one
    (tmp_path / ".venv/bin/python").symlink_to("/no/such/python3.9")
    assert not is_current(tmp_path / ".venv", lock)


def test_other_systems_without_venv_are_told(
    tmp_path: Path, lock: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    monkeypatch.setattr(environment, "find_program", lambda name: None)
    with pytest.raises(PrerequisiteError, match="venv and ensurepip are missing"):
        environment.make(tmp_path / ".venv", lock)
    assert not (tmp_path / ".venv").exists()


def test_where_uv_fails_pip_is_used(
    tmp_path: Path, lock: Path, fakes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uv = fakes / "uv"
    uv.write_text("#!/bin/sh\necho no such index >&2\nexit 2\n")
    uv.chmod(0o755)
    environment.make(tmp_path / ".venv", lock)
    assert "uv failed with exit status 2; using pip instead" in capsys.readouterr().err
    assert is_current(tmp_path / ".venv", lock)


def test_an_empty_folder_is_no_environment(tmp_path: Path, lock: Path) -> None:
    (tmp_path / ".venv").mkdir()
    assert not is_current(tmp_path / ".venv", lock)


@pytest.mark.parametrize("damage", ["binary", "folder"])
def test_a_damaged_stamp_is_no_environment(tmp_path: Path, lock: Path, damage: str) -> None:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    stamp = venv / "pvmlab-stamp"
    if damage == "binary":
        stamp.write_bytes(b"\xff\xfe")
    else:
        stamp.mkdir()
    assert not is_current(venv, lock)
