"""The services container, made without a Docker daemon.

::

    container-rootfs (Debian layer) ─┐
    ipxe ────────────────────────────┴─> container  (Debian layer + our layer)
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.arch import Arch
from pipeline.artifact import Artifact, Making
from pipeline.debian.mmdebstrap import RootFilesystem
from pipeline.debian.package_set import PackageSet
from pipeline.debian.rootfs import decompress
from pipeline.digests import json_digest, source_digest
from pipeline.disk_image import NO_DEVICES, as_root
from pipeline.documents.sbom import spdx_document
from pipeline.documents.subject import Build, ContainedPackage, Subject
from pipeline.oci import HealthCheck, ImageConfig, compress_layer, rfc3339, write_image
from pipeline.recipes import ipxe
from pipeline.recipes.debian_rootfs import debian_rootfs
from pipeline.recipes.packages import inherited_facts
from pipeline.run import run
from pipeline.sidecar import require_digest
from pipeline.tree_tar import TreeTar
from pipeline.wheels import fetch_wheels, unpack_wheels, wheel_fact
from pipeline.workspace import REPOSITORY, Cache, in_repository
from pxeboot_stack import container as definition

_LOCK = REPOSITORY / "pxeboot_stack/requirements.lock"
_TIMEOUT = 600.0
_SERVED = tuple(Arch)  # architectures of the machines that boot from it
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
    base, programs, version = _rootfs_path(arch, cache), _programs(cache), _project_version()

    def make(making: Making) -> Mapping[str, Any]:
        plain, ours = making.scratch / "base.tar", making.scratch / "ours.tar"
        decompress(base, plain)
        python = definition.PYTHON_VERSION
        wheels = fetch_wheels(_LOCK, making.scratch / "wheels", python_version=python, arch=arch, making=making)
        unpack_wheels(wheels, making.scratch / "site")
        facts = inherited_facts(base, *programs, others=[wheel_fact(wheel) for wheel in wheels])
        sbom = _inner_sbom(f"container:{arch}", cache.container(arch), facts, cache=cache, inputs=(base, *programs))
        _write_our_layer(plain, programs, ours, sbom=sbom, making=making)
        layers = [compress_layer(path, path.with_suffix(".tar.gz")) for path in (plain, ours)]
        image = write_image(making.output, _config(version, created=facts["epoch"]), arch, layers)
        return {"image": image, **facts}

    return Artifact(
        name=f"container:{arch}",
        doc=f"services container (docker load, OCI layout), {arch}",
        cache=cache,
        targets=(cache.container(arch),),
        inputs=(base, *programs),
        sources=in_repository(
            "contracts",
            "pxeboot_stack",
            "pipeline/compression.py",
            "pipeline/debian/rootfs.py",
            "pipeline/documents/sbom.py",
            "pipeline/oci.py",
            "pipeline/recipes/container.py",
            "pipeline/tree_tar.py",
            "pipeline/wheels.py",
        ),
        options={"version": version},
        tools=("py:isal", "tar"),
        make=make,
    )


def _programs(cache: Cache) -> list[Path]:
    """Return the network boot programs that a provisioner offers."""
    return [target for arch in _SERVED for target in ipxe.ipxe(arch, cache).targets]


def _project_version() -> str:
    """Return pvmlab's version."""
    version: str = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def _config(version: str, *, created: int) -> ImageConfig:
    digests = [source_digest(REPOSITORY / package) for package in definition.SOURCES]
    return ImageConfig(
        tag=definition.TAG,
        entrypoint=definition.ENTRYPOINT,
        environment=definition.ENVIRONMENT,
        labels=definition.labels(version=version, source=json_digest(digests), created=rfc3339(created)),
        health_check=HealthCheck(
            definition.HEALTH_COMMAND,
            interval=definition.HEALTH_INTERVAL,
            timeout=definition.HEALTH_TIMEOUT,
            retries=definition.HEALTH_RETRIES,
        ),
        created=created,
    )


def _inner_sbom(task: str, target: Path, facts: Mapping[str, Any], *, cache: Cache, inputs: Sequence[Path]) -> bytes:
    """Return the bill of materials that goes into the image: the one beside it without files and the image's digest."""
    build = Build(
        task=task,
        inputs={path.relative_to(cache.root).as_posix(): require_digest(path) for path in inputs},
        sources={},
        options={},
        tools={},
        packages=tuple(sorted(map(ContainedPackage.from_fact, facts["packages"]))),
        epoch=facts["epoch"],
    )
    return spdx_document(Subject(target.relative_to(cache.root).as_posix(), "", 0, build), ())


def _write_our_layer(base: Path, programs: Sequence[Path], layer: Path, *, sbom: bytes, making: Making) -> None:
    """Write the layer with our packages, their libraries and iPXE, compiled by the container's own interpreter."""
    files, tree, top = making.scratch / "files.tar", making.scratch / "tree", definition.ROOT.parts[1]
    _write_files(files, programs, site=making.scratch / "site", sbom=sbom)
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


def _write_files(output: Path, programs: Sequence[Path], *, site: Path, sbom: bytes) -> None:
    with TreeTar(output) as tar:
        for package in definition.SOURCES:
            for path in sorted((REPOSITORY / package).rglob("*")):
                relative = path.relative_to(REPOSITORY / package).as_posix()
                left_out = package == definition.NAME and relative.split("/")[0] in definition.NOT_COPIED
                if path.is_file() and path.suffix in _SOURCE_SUFFIXES and not left_out:
                    tar.file(f"{definition.ROOT}/{package}/{relative}".lstrip("/"), path.read_bytes())
        tar.tree(site, str(definition.SITE).lstrip("/"))
        for program in programs:
            tar.file(f"{definition.IPXE}/{program.name}".lstrip("/"), program.read_bytes())
        tar.file(str(definition.SBOM).lstrip("/"), sbom)


def _as_root(argv: Sequence[str | Path], making: Making) -> None:
    run(as_root(argv), timeout=_TIMEOUT, log=making.log)
