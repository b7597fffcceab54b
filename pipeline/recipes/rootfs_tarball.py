"""Root filesystems that a distribution publishes as a tarball.

::

    fetch:<distro>:<arch>:rootfs_tarball ──> rootfs  (rootfs.tar.zst)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.arch import Arch
from distros.release import MediumKind, Release
from pipeline.artifact import Artifact, Making
from pipeline.media.archive import read_archive
from pipeline.media.rootfs_tar import write_rootfs
from pipeline.recipes.foreign_rootfs import SOURCES
from pipeline.recipes.media import medium_path
from pipeline.workspace import Cache, in_repository


def tarball_rootfs(release: Release, arch: Arch, cache: Cache) -> Artifact:
    """Return the root filesystem in the tarball, whatever it is compressed by.

    Times stay as they are: they are the distribution's, and equal tarballs give equal bytes.
    """
    medium = medium_path(release, arch, MediumKind.ROOTFS_TARBALL, cache)

    def make(making: Making) -> Mapping[str, Any]:
        members = read_archive(medium)
        return write_rootfs(members, making.output, epoch=None, listener=making.listener).facts()

    return Artifact(
        name=f"rootfs:{release.name}:{arch}",
        doc=f"root filesystem of {release.title}, {arch}, out of its tarball",
        cache=cache,
        targets=(cache.image(release.name, arch, "rootfs.tar.zst"),),
        inputs=(medium,),
        sources=(*SOURCES, *in_repository("pipeline/recipes/rootfs_tarball.py")),
        tools=("py:zstandard",),
        make=make,
    )
