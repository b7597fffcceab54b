"""What a distribution's own installer is booted from: ``images/<distro>/<arch>/native/``.

::

    packages (debian-installer's netboot images) ─┬─> native  (vmlinuz, initrd, and what the installer loads by itself)
    fetch:<distro>:<arch>:iso ────────────────────┘

debian-installer loads the rest of itself from the mirror: modules for its very kernel, and components of its own
release. A mirror keeps those of the last few kernels; from an installer that is older, nothing can be installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.answers import BOOT_FILES
from contracts.arch import Arch
from distros.family import NativeInstaller
from distros.release import MediumKind, Release
from pipeline.artifact import Artifact, Making
from pipeline.commit import give_second_name
from pipeline.debian.deb_file import newest_time, unpack_debs
from pipeline.debian.package_set import PackageSet
from pipeline.errors import PvmlabError
from pipeline.recipes.media import medium_path
from pipeline.recipes.packages import fetch, inherited_facts, manifest_path, package_facts
from pipeline.workspace import Cache, in_repository

_ISO = "install.iso"
_DEB_FILES = {"vmlinuz": "linux", "initrd": "initrd.gz"}  # ours to debian-installer's


def has_native(release: Release, arch: Arch) -> bool:
    """Tell whether there is something to boot the own installer of *release* from."""
    sources = release.sources[arch]
    return release.family.native is not None and (
        sources.installer_package is not None or MediumKind.ISO in sources.media
    )


def package_sets(release: Release, arch: Arch) -> Iterator[PackageSet]:
    """Yield the set of the package that holds the installer, if it comes in one."""
    package = release.sources[arch].installer_package
    if package is not None and has_native(release, arch):
        yield PackageSet(
            name=f"{release.name}-installer", suite=release.suite, arch=arch, packages=(package,), base=False
        )


def native(release: Release, arch: Arch, cache: Cache) -> Artifact:
    """Return what the own installer of *release* is booted from.

    :raises ValueError: if there is nothing: ask :func:`has_native` before.
    """
    installer = release.family.native
    if installer is None or not has_native(release, arch):
        raise ValueError(f"{release.name} has no installer of its own for {arch}")
    for wanted in package_sets(release, arch):
        return _from_package(release, installer, wanted, cache)
    return _from_iso(release, installer, arch, cache)


def _from_package(release: Release, installer: NativeInstaller, wanted: PackageSet, cache: Cache) -> Artifact:
    targets = {name: _target(release, wanted.arch, name, cache) for name in BOOT_FILES[installer.kind]}

    def make(making: Making) -> Mapping[str, Any]:
        packages, debs = fetch(wanted, cache, making)
        tree = making.scratch / "tree"
        unpack_debs(debs, tree, making=making)
        for name, target in targets.items():
            shutil.copyfile(_find_in_package(tree, wanted, _DEB_FILES[name]), making.outputs[target])
        return package_facts(packages, newest_time(debs))

    return Artifact(
        name=f"native:{release.name}:{wanted.arch}",
        doc=f"the own installer of {release.title}, {wanted.arch}",
        cache=cache,
        targets=tuple(targets.values()),
        inputs=(manifest_path(wanted, cache),),
        sources=in_repository("pipeline/debian/deb_file.py", "pipeline/recipes/native.py"),
        tools=("dpkg-deb",),
        make=make,
    )


def _find_in_package(tree: Path, wanted: PackageSet, name: str) -> Path:
    arch = wanted.arch.debian
    pattern = f"usr/lib/debian-installer/images/*/{arch}/text/debian-installer/{arch}/{name}"
    found = list(tree.glob(pattern))
    if len(found) != 1:
        raise PvmlabError(
            f"the package {wanted.packages[0]} has {len(found)} files {name}",
            details=f"looked for {pattern}",
            resolution="name another package as `installer` in the distribution's definition",
        )
    return found[0]


def _from_iso(release: Release, installer: NativeInstaller, arch: Arch, cache: Cache) -> Artifact:
    iso = medium_path(release, arch, MediumKind.ISO, cache)
    members = {_target(release, arch, name, cache): names for name, names in installer.members.items()}
    whole = (_target(release, arch, _ISO, cache),) if installer.wants_iso else ()

    def make(making: Making) -> Mapping[str, Any]:
        from pipeline.media.disc import inspect  # noqa: PLC0415 (imports pycdlib and libarchive)

        disc = inspect(iso)
        chosen = {target: next(filter(disc.find, names), names[0]) for target, names in members.items()}
        disc.extract({name: making.outputs[target] for target, name in chosen.items()}, listener=making.listener)
        for target in whole:
            give_second_name(iso, making.outputs[target])  # the provisioner shares it; a copy would cost gigabytes
        return inherited_facts(iso)

    return Artifact(
        name=f"native:{release.name}:{arch}",
        doc=f"the own installer of {release.title}, {arch}",
        cache=cache,
        targets=(*members, *whole),
        inputs=(iso,),
        sources=in_repository("pipeline/media", "pipeline/recipes/native.py"),
        options={"members": {name: list(names) for name, names in installer.members.items()}},
        make=make,
    )


def _target(release: Release, arch: Arch, name: str, cache: Cache) -> Path:
    return cache.image(release.name, arch, f"native/{name}")
