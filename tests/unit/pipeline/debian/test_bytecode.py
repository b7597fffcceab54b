"""Compiled files in a tar are valid for the times of their sources, and are taken by Python."""

from __future__ import annotations

import io
import os
import py_compile
import tarfile
from pathlib import Path

import pytest

from pipeline.debian.bytecode import bind_to_times

EPOCH = 1_700_000_000
CACHED = "usr/lib/x/__pycache__/module.cpython-313.pyc"


def compiled(tmp_path: Path, mode: py_compile.PycInvalidationMode) -> bytes:
    (tmp_path / "module.py").write_bytes(b"value = 1\n")
    os.utime(tmp_path / "module.py", (EPOCH, EPOCH))
    path = py_compile.compile(str(tmp_path / "module.py"), cfile=str(tmp_path / "c"), invalidation_mode=mode)
    assert path is not None
    return Path(path).read_bytes()


def write_tar(path: Path, files: dict[str, bytes], *, links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mtime = len(data), EPOCH
            archive.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return path


def read(path: Path, name: str) -> bytes:
    with tarfile.open(path) as archive:
        stream = archive.extractfile(f"./{name}")
        assert stream is not None
        return stream.read()


def test_a_linked_source_is_followed(tmp_path: Path) -> None:
    """Debian's sitecustomize.py is a link into /etc, and every start of Python imports it."""
    archive = write_tar(
        tmp_path / "r.tar",
        {CACHED: compiled(tmp_path, py_compile.PycInvalidationMode.CHECKED_HASH), "etc/module.py": b"value = 1\n"},
        links={"usr/lib/x/module.py": "../../../etc/module.py"},
    )
    assert bind_to_times(archive) == 1
    assert read(archive, CACHED) == compiled(tmp_path, py_compile.PycInvalidationMode.TIMESTAMP)


@pytest.mark.parametrize("name", [CACHED, CACHED.replace("313.pyc", "313.opt-1.pyc")])
def test_one_bound_to_a_hash_becomes_one_bound_to_a_time(tmp_path: Path, name: str) -> None:
    by_hash = compiled(tmp_path, py_compile.PycInvalidationMode.CHECKED_HASH)
    archive = write_tar(tmp_path / "r.tar", {name: by_hash, "usr/lib/x/module.py": b"value = 1\n"})
    assert bind_to_times(archive) == 1
    assert read(archive, name) == compiled(tmp_path, py_compile.PycInvalidationMode.TIMESTAMP)


@pytest.mark.parametrize(
    "mode", [py_compile.PycInvalidationMode.UNCHECKED_HASH, py_compile.PycInvalidationMode.TIMESTAMP]
)
def test_others_are_left_alone(tmp_path: Path, mode: py_compile.PycInvalidationMode) -> None:
    archive = write_tar(tmp_path / "r.tar", {CACHED: compiled(tmp_path, mode), "usr/lib/x/module.py": b"value = 1\n"})
    before = archive.read_bytes()
    assert bind_to_times(archive) == 0
    assert archive.read_bytes() == before


def test_one_without_its_source_is_left_alone(tmp_path: Path) -> None:
    by_hash = compiled(tmp_path, py_compile.PycInvalidationMode.CHECKED_HASH)
    archive = write_tar(tmp_path / "r.tar", {CACHED: by_hash, "usr/lib/x/plain.pyc": by_hash, "usr/lib/x/a.py": b""})
    assert bind_to_times(archive) == 0
    assert read(archive, CACHED) == by_hash
