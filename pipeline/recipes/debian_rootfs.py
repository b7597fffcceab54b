"""What all root filesystems have in common, whatever they are for: packages in, one compressed tar out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact, Making
from pipeline.debian.mmdebstrap import RootFilesystem, make_rootfs
from pipeline.recipes.packages import fetch, manifest_path, package_facts
from pipeline.workspace import Cache, in_repository

_SOURCES = in_repository(
    "pipeline/debian/bytecode.py", "pipeline/debian/deb_file.py", "pipeline/debian/mmdebstrap.py",
    "pipeline/debian/package_set.py", "pipeline/recipes/debian_rootfs.py",
)  # fmt: skip
_TOOLS = ("apt-get", "dpkg", "mmdebstrap", "py:zstandard", "tar")


def debian_rootfs(name: str, wanted: RootFilesystem, *, doc: str, target: Path, cache: Cache) -> Artifact:
    """Return the task *name* that makes the root filesystem *wanted* of the packages in its set's manifest."""

    def make(making: Making) -> Mapping[str, Any]:
        packages, debs = fetch(wanted.packages, cache, making)
        return package_facts(packages, make_rootfs(wanted, packages, debs, making=making))

    return Artifact(
        name=name,
        doc=doc,
        cache=cache,
        targets=(target,),
        inputs=(manifest_path(wanted.packages, cache),),
        sources=_SOURCES,
        options=wanted.options(),
        tools=_TOOLS,
        make=make,
    )
