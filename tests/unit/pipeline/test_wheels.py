"""Wheels are unpacked as they are."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import PvmlabError
from pipeline.wheels import unpack_wheels, wheel_fact


def write_wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_files_lie_where_they_are_imported(tmp_path: Path) -> None:
    wheels = [write_wheel(tmp_path / f"{name}-1-py3-none-any.whl", f"{name}/__init__.py") for name in ("one", "two")]
    unpack_wheels(wheels, tmp_path / "site")
    assert (tmp_path / "site/one/__init__.py").read_text() == "one/__init__.py"
    assert (tmp_path / "site/two/__init__.py").exists()


def test_one_that_is_not_pure_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "x-1-py3-none-any.whl", "x.py", "x-1.data/scripts/x")
    with pytest.raises(PvmlabError, match=r"x-1-py3-none-any\.whl is no pure wheel"):
        unpack_wheels([wheel], tmp_path / "site")


def test_what_a_sidecar_says_of_one(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "typing_extensions-4.16.0-py3-none-any.whl", "x.py")
    assert wheel_fact(wheel) == {
        "type": "pypi", "name": "typing-extensions", "version": "4.16.0",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
    }  # fmt: skip
