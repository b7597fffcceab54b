"""A distribution's tarball becomes rootfs.tar.zst by its recipe, whatever it is compressed by."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from contracts.arch import Arch
from distros.family import Family
from distros.release import MediumKind, Release, Sources
from pipeline.artifact import Making
from pipeline.documents.contents import files_in
from pipeline.errors import PvmlabError
from pipeline.media.archive import read_archive
from pipeline.recipes.media import medium_path
from pipeline.recipes.rootfs_tarball import tarball_rootfs
from pipeline.workspace import Cache
from tests.fakes.trees import OS_RELEASE

SOURCES = {Arch.X86_64: Sources(rootfs=MediumKind.ROOTFS_TARBALL)}
RELEASE = Release(name="toy", title="Toy Linux", family=Family.ALPINE, sources=SOURCES)
APK = b"P:musl\nV:1.2.5-r0\nA:x86_64\no:musl\n\n"


def tarball() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in {
            "./etc/os-release": OS_RELEASE,
            "./lib/apk/db/installed": APK,
            "./usr/bin/x": b"x",
        }.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(content), 1_700_000_000, "builder"
            archive.addfile(member, io.BytesIO(content))
        device = tarfile.TarInfo("./dev/null")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        archive.addfile(device)
    return raw.getvalue()


def make(folder: Path, content: bytes) -> tuple[Path, dict[str, object]]:
    cache = Cache(folder / "cache")
    medium = medium_path(RELEASE, Arch.X86_64, MediumKind.ROOTFS_TARBALL, cache)
    medium.parent.mkdir(parents=True)
    medium.write_bytes(content)
    artifact = tarball_rootfs(RELEASE, Arch.X86_64, cache)
    assert (artifact.name, artifact.inputs) == ("rootfs:toy:x86_64", (medium,))
    output = folder / "rootfs.tar.zst"
    facts = artifact.make(Making({artifact.targets[0]: output}, folder, folder / "log"))
    return output, dict(facts or {})


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, zstandard.compress])
def test_a_tarball_becomes_a_root_filesystem(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    output, facts = make(tmp_path, compress(tarball()))
    assert facts == {
        "os": {"ID": "toy", "VERSION_ID": "1", "PRETTY_NAME": "Toy Linux 1 (o'clock)"},
        "kernels": [],
        "epoch": 1_700_000_000,
        "dropped": {"below /dev": 1},
        "package_manager": "apk",
        "packages": [
            {"type": "apk", "name": "musl", "version": "1.2.5-r0", "arch": "x86_64", "source": "musl", "vendor": "toy"}
        ],
    }
    assert [file.path for file in files_in(output)] == ["etc/os-release", "lib/apk/db/installed", "usr/bin/x"]
    assert [member.path for member in read_archive(output) if member.path.startswith("dev")] == ["dev"]


def test_a_tarball_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PvmlabError):
        make(tmp_path, gzip.compress(tarball())[:-100])
    assert not (tmp_path / "rootfs.tar.zst").exists()


def test_all_sources_of_the_recipe_are_there(tmp_path: Path) -> None:
    assert all(path.exists() for path in tarball_rootfs(RELEASE, Arch.X86_64, Cache(tmp_path)).sources)
