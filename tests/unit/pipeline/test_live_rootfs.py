"""The recipe of root filesystems from live-server discs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from contracts.arch import Arch
from distros.family import Family
from distros.release import Medium, MediumKind, Release, Sources
from pipeline.recipes.live_rootfs import live_rootfs
from pipeline.workspace import REPOSITORY, Cache

# What they say does not change a byte, or they are read for everything (pipeline.artifact).
NOT_DECISIVE = {
    "artifact",
    "commit",
    "digests",
    "errors",
    "progress",
    "reasons",
    "run",
    "sidecar",
    "state",
    "workspace",
}


@pytest.fixture
def release() -> Release:
    medium = Medium(kind=MediumKind.ISO, mirrors=("https://example.org/",), file="x-*.iso")
    sources = {Arch.X86_64: Sources(media={MediumKind.ISO: medium}, rootfs=MediumKind.ISO)}
    return Release(name="ubuntu-99.04", title="Ubuntu 99.04", family=Family.UBUNTU, sources=sources)


def test_it_is_made_of_the_iso_where_all_others_look_for_it(release: Release, tmp_path: Path) -> None:
    artifact = live_rootfs(release, Arch.X86_64, Cache(tmp_path))
    assert artifact.name == "rootfs:ubuntu-99.04:x86_64"
    assert artifact.inputs == (tmp_path / "media/ubuntu-99.04/x86_64/installer.iso",)
    assert artifact.targets == (tmp_path / "images/ubuntu-99.04/x86_64/rootfs.tar.zst",)
    assert artifact.options == {"source": None}


def test_another_source_of_the_disc_is_another_artifact(release: Release, tmp_path: Path) -> None:
    artifact = live_rootfs(release, Arch.X86_64, Cache(tmp_path), source="ubuntu-server-minimal")
    assert artifact.options == {"source": "ubuntu-server-minimal"}


def test_all_code_that_makes_it_is_a_reason_to_make_it_again(release: Release, tmp_path: Path) -> None:
    sources = {
        path.relative_to(REPOSITORY).as_posix() for path in live_rootfs(release, Arch.X86_64, Cache(tmp_path)).sources
    }
    needed = {
        "pipeline/media/live-system.sh",
        *imported("pipeline/recipes/live_rootfs.py", {"pipeline/recipes/media.py"}),
    }
    assert sources == needed


def imported(name: str, passed_over: set[str]) -> set[str]:
    """Return *name* and the modules of pipeline that it imports, those too that these import."""
    found, waiting = set[str](), [name]
    while waiting:
        path = waiting.pop()
        found.add(path)
        for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline."):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                for module in (node.module, *names):
                    other = module.replace(".", "/") + ".py"
                    is_decisive = module.rpartition(".")[2] not in NOT_DECISIVE
                    if is_decisive and (REPOSITORY / other).is_file() and other not in found | passed_over:
                        waiting.append(other)
    return found
