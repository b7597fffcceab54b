"""What all root filesystems have in common, whatever they are for: packages in, one compressed tar out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.apt_sources import host_mirror
from pipeline.artifact import Artifact, Making
from pipeline.mmdebstrap import PackageSet, make_tar_zst
from pipeline.workspace import Cache


def debian_rootfs(name: str, wanted: PackageSet, *, doc: str, target: Path, cache: Cache) -> Artifact:
    """Return the task *name* that makes the root filesystem *wanted* from the host's mirror."""

    def make(making: Making) -> Mapping[str, Any]:
        return make_tar_zst(wanted, host_mirror(), making=making)

    return Artifact(name=name, doc=doc, cache=cache, targets=(target,), options=wanted.options(), make=make)
