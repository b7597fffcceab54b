"""Root filesystems that a live-server disc of Ubuntu's layout installs.

::

    fetch:<distro>:<arch>:iso ──> rootfs  (rootfs.tar.zst)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.arch import Arch
from distros.release import MediumKind, Release
from pipeline.artifact import Artifact, Making
from pipeline.media.live_system import make_live_system
from pipeline.recipes.foreign_rootfs import SOURCES
from pipeline.recipes.media import medium_path
from pipeline.workspace import Cache, in_repository


def live_rootfs(release: Release, arch: Arch, cache: Cache, *, source: str | None = None) -> Artifact:
    """Return the root filesystem that the release's ISO installs.

    :param source: which of those in the disc's catalog (``ubuntu-server-minimal``); None for the disc's default.
    """
    medium = medium_path(release, arch, MediumKind.ISO, cache)

    def make(making: Making) -> Mapping[str, Any]:
        made = make_live_system(medium, arch, source=source, making=making)
        return {**made.summary.facts(), "source": made.source, "added": list(made.added)}

    return Artifact(
        name=f"rootfs:{release.name}:{arch}",
        doc=f"root filesystem of {release.title}, {arch}, as its disc installs it",
        cache=cache,
        targets=(cache.image(release.name, arch, "rootfs.tar.zst"),),
        inputs=(medium,),
        sources=(
            *SOURCES,
            *in_repository(
                "pipeline/debian/bytecode.py", "pipeline/debian/deb_file.py", "pipeline/media/disc.py",
                "pipeline/media/disc_7zip.py", "pipeline/media/disc_libarchive.py", "pipeline/media/disc_pycdlib.py",
                "pipeline/media/disc_tree.py", "pipeline/media/disc_volume.py", "pipeline/media/extents.py",
                "pipeline/media/layers.py", "pipeline/media/live-system.sh", "pipeline/media/live_server.py",
                "pipeline/media/live_system.py", "pipeline/media/squashfs.py", "pipeline/recipes/live_rootfs.py",
            ),
        ),
        options={"source": source},
        tools=("mmdebstrap", "py:zstandard", "sqfs2tar", "tar"),
        make=make,
    )  # fmt: skip
