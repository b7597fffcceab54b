"""Recipes of root filesystems that others made: which code is a reason to make them again."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.arch import Arch
from distros.family import Family
from distros.release import Medium, MediumKind, Release, Sources
from pipeline.artifact import Artifact
from pipeline.recipes.cloud_image import cloud_rootfs
from pipeline.recipes.live_rootfs import live_rootfs
from pipeline.recipes.rootfs_tarball import tarball_rootfs
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
# How the appliance runs, and what it is made of: its kernel and initrd are inputs.
APPLIANCE = {
    "pipeline/appliance/accelerator.py", "pipeline/appliance/boot.py", "pipeline/appliance/contents.py",
    "pipeline/cpio.py", "pipeline/debian/deb_file.py", "pipeline/debian/package_set.py", "pipeline/emulation.py",
    "pipeline/recipes/packages.py",
}  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "kind", "module", "passed_over", "besides"),
    [
        (live_rootfs, MediumKind.ISO, "live_rootfs", set[str](), {"pipeline/media/live-system.sh"}),
        (cloud_rootfs, MediumKind.CLOUD_IMAGE, "cloud_image", APPLIANCE, set[str]()),
        (tarball_rootfs, MediumKind.ROOTFS_TARBALL, "rootfs_tarball", set[str](), set[str]()),
    ],
)
def test_all_code_that_makes_it_is_a_reason_to_make_it_again(
    tmp_path: Path,
    recipe: Callable[[Release, Arch, Cache], Artifact],
    kind: MediumKind,
    module: str,
    passed_over: set[str],
    besides: set[str],
) -> None:
    medium = Medium(kind=kind, mirrors=("https://example.org/",), file="x")
    sources = {Arch.X86_64: Sources(media={kind: medium}, rootfs=kind)}
    release = Release(name="toy-1", title="Toy 1", family=Family.UBUNTU, sources=sources)
    said = {path.relative_to(REPOSITORY).as_posix() for path in recipe(release, Arch.X86_64, Cache(tmp_path)).sources}
    needed = imported(f"pipeline/recipes/{module}.py", {"pipeline/recipes/media.py", *passed_over})
    assert said == needed | besides


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
