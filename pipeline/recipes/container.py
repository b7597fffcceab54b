"""The services container, made without a Docker daemon.

::

    container-rootfs (Debian layer) ─┐
    ipxe ────────────────────────────┴─> container  (Debian layer + our layer)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.arch import Arch
from pipeline.artifact import Artifact, Making
from pipeline.debian.mmdebstrap import RootFilesystem
from pipeline.debian.package_set import PackageSet
from pipeline.debian.rootfs import decompress
from pipeline.disk_image import NO_DEVICES, as_root
from pipeline.oci import ImageConfig, compress_layer, write_image
from pipeline.recipes.debian_rootfs import debian_rootfs
from pipeline.recipes.packages import inherited_facts
from pipeline.run import run
from pipeline.tree_tar import TreeTar
from pipeline.wheels import fetch_wheels, unpack_wheels, wheel_fact
from pipeline.workspace import REPOSITORY, Cache, in_repository
from pxeboot_stack import container as definition

_LOCK = REPOSITORY / "pxeboot_stack/requirements.lock"
_TIMEOUT = 600.0
_SOURCE_SUFFIXES = (".py", ".conf", ".j2")


def _rootfs_path(arch: Arch, cache: Cache) -> Path:
    return cache.root / "containers" / f"rootfs_{arch}.tar.zst"


def package_set(arch: Arch) -> PackageSet:
    """Return the packages of the container's Debian."""
    return PackageSet(name=definition.NAME, suite=definition.SUITE, arch=arch, packages=definition.PACKAGES)


def rootfs(arch: Arch, cache: Cache) -> Artifact:
    """Return the container's Debian layer."""
    return debian_rootfs(
        f"container-rootfs:{arch}",
        RootFilesystem(packages=package_set(arch)),
        doc=f"the services container's Debian, {arch}",
        target=_rootfs_path(arch, cache),
        cache=cache,
    )


def container(arch: Arch, cache: Cache) -> Artifact:
    """Return the container image, for ``docker load`` and as an OCI layout."""
    base, programs = _rootfs_path(arch, cache), [(a, cache.ipxe(a)) for a in (arch,)]
    config = ImageConfig(
        tag=definition.TAG,
        entrypoint=definition.ENTRYPOINT,
        environment=definition.ENVIRONMENT,
        labels=definition.LABELS,
    )

    def make(making: Making) -> Mapping[str, Any]:
        plain, ours = making.scratch / "base.tar", making.scratch / "ours.tar"
        decompress(base, plain)
        wheels = fetch_wheels(_LOCK, making.scratch / "wheels", python_version=definition.PYTHON_VERSION, making=making)
        unpack_wheels(wheels, making.scratch / "site")
        _write_our_layer(plain, programs, ours, making=making)
        layers = [compress_layer(path, path.with_suffix(".tar.gz")) for path in (plain, ours)]
        image = write_image(making.output, config, arch, layers)
        python = [wheel_fact(wheel) for wheel in wheels]
        return {"image": image, **inherited_facts(base, *(path for _, path in programs), others=python)}

    return Artifact(
        name=f"container:{arch}",
        doc=f"services container (docker load, OCI layout), {arch}",
        cache=cache,
        targets=(cache.container(arch),),
        inputs=(base, *(path for _, path in programs)),
        sources=in_repository(
            "contracts",
            "pxeboot_stack",
            "pipeline/compression.py",
            "pipeline/debian/rootfs.py",
            "pipeline/oci.py",
            "pipeline/recipes/container.py",
            "pipeline/tree_tar.py",
            "pipeline/wheels.py",
        ),
        tools=("py:isal", "tar"),
        make=make,
    )


def _write_our_layer(base: Path, programs: Sequence[tuple[Arch, Path]], layer: Path, *, making: Making) -> None:
    """Write the layer with our packages, their libraries and iPXE, compiled by the container's own interpreter."""
    files, tree, top = making.scratch / "files.tar", making.scratch / "tree", definition.ROOT.parts[1]
    _write_files(files, programs, site=making.scratch / "site")
    try:
        tree.mkdir()
        for archive in (base, files):
            _as_root(
                ["tar", "--extract", "--file", archive, "--directory", tree, "--numeric-owner", NO_DEVICES], making
            )
        _as_root(["chroot", tree, *definition.COMPILE], making)
        _as_root(
            ["tar", "--create", "--file", layer, "--directory", tree, "--sort=name", "--mtime=@0", "--numeric-owner",
             "--owner=0", "--group=0",
             "--mode=u=rwX,go=rX",  # compiled files have what the umask left of it
             "--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", top],
            making,
        )  # fmt: skip
    finally:
        run(as_root(["rm", "--recursive", "--force", tree]), timeout=_TIMEOUT, cleanup=True)


def _write_files(output: Path, programs: Sequence[tuple[Arch, Path]], *, site: Path) -> None:
    with TreeTar(output) as tar:
        for package in definition.SOURCES:
            for path in sorted((REPOSITORY / package).rglob("*")):
                relative = path.relative_to(REPOSITORY / package).as_posix()
                left_out = package == definition.NAME and relative.split("/")[0] in definition.NOT_COPIED
                if path.is_file() and path.suffix in _SOURCE_SUFFIXES and not left_out:
                    tar.file(f"{definition.ROOT}/{package}/{relative}".lstrip("/"), path.read_bytes())
        tar.tree(site, str(definition.SITE).lstrip("/"))
        for arch, program in programs:
            tar.file(f"{definition.IPXE}/{arch.ipxe_binary}".lstrip("/"), program.read_bytes())


def _as_root(argv: Sequence[str | Path], making: Making) -> None:
    run(as_root(argv), timeout=_TIMEOUT, log=making.log)
