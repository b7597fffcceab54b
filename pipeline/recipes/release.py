"""The artifacts of one release: which recipes make them is read off its definition.

::

    packages ──────────────┐
    fetch ...:iso ─────────┼─> rootfs ─┬─> kernel   (vmlinuz, initrd)
    fetch ...:cloud_image ─┤           └─> modules  (modules.cpio.gz)
    fetch ...:rootfs_tarball
    fetch ...:cloud_image ───> image   (disk.img.zst)
    packages, fetch ...:iso ─> native  (the distribution's own installer)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from contracts.arch import Arch
from distros.release import MediumKind, Release
from pipeline.artifact import Artifact
from pipeline.debian.package_set import PackageSet
from pipeline.recipes import cloud_image, distribution, live_rootfs, media, native, rootfs_tarball
from pipeline.workspace import Cache

_ROOTFS: dict[MediumKind, Callable[[Release, Arch, Cache], Artifact]] = {
    MediumKind.ISO: live_rootfs.live_rootfs,
    MediumKind.CLOUD_IMAGE: cloud_image.cloud_rootfs,
    MediumKind.ROOTFS_TARBALL: rootfs_tarball.tarball_rootfs,
}


def release_artifacts(release: Release, arch: Arch, cache: Cache, *, modules: str) -> Iterator[Artifact]:
    """Yield what can be made of *release* for *arch*. :param modules: which ones ``modules.cpio.gz`` holds."""
    sources = release.sources[arch]
    for kind in sources.media:
        yield media.fetch(release, arch, kind, cache)
    if sources.kernel_package is not None:
        yield distribution.rootfs(release, arch, cache)
    elif sources.rootfs is not None:
        yield _ROOTFS[sources.rootfs](release, arch, cache)
    if sources.kernel_package is not None or sources.rootfs is not None:
        yield distribution.kernel(release, arch, cache)
        yield distribution.modules(release, arch, cache, selection=modules)
    if MediumKind.CLOUD_IMAGE in sources.media:
        yield cloud_image.image(release, arch, cache)
    if native.has_native(release, arch):
        yield native.native(release, arch, cache)


def release_package_sets(release: Release, arch: Arch) -> Iterator[PackageSet]:
    """Yield the sets of Debian packages that something of *release* is made of."""
    if release.sources[arch].kernel_package is not None:
        yield distribution.package_set(release, arch)
    yield from native.package_sets(release, arch)
