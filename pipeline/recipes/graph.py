"""The whole graph, and its face towards doit."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

from contracts.arch import Arch
from contracts.machine import Installer
from distros.registry import releases
from pipeline.artifact import Artifact
from pipeline.debian.package_set import PackageSet
from pipeline.engine.reporter import Reporter
from pipeline.engine.settings import doit_settings
from pipeline.errors import UsageError
from pipeline.graph import Graph
from pipeline.recipes import cloud_image, container, initrd, ipxe, packages, provisioner
from pipeline.recipes.release import release_artifacts, release_package_sets
from pipeline.workspace import Cache, Workspace

SERVICE_ARCHES = (Arch.X86_64,)


def artifacts(cache: Cache) -> Iterator[Artifact]:
    """Yield every artifact of the project."""
    yield from packages.package_artifacts(package_sets(), cache)
    for release in releases().values():
        for arch in release.arches:
            yield from release_artifacts(release, arch, cache, modules=modules_selection())
    yield cloud_image.appliance(Arch.of_host(), cache)
    for arch in Arch:  # a provisioner of one architecture serves machines of both
        yield ipxe.ipxe(arch, cache)
    for arch in SERVICE_ARCHES:
        yield initrd.initrd(arch, cache)
        yield container.rootfs(arch, cache)
        yield container.container(arch, cache)
        yield provisioner.rootfs(arch, cache)
        yield provisioner.provisioner(arch, cache)


def package_sets() -> Iterator[PackageSet]:
    """Yield every set of Debian packages that something is made of."""
    for release in releases().values():
        for arch in release.arches:
            yield from release_package_sets(release, arch)
    yield cloud_image.package_set(Arch.of_host())
    yield ipxe.package_set()
    for arch in SERVICE_ARCHES:
        yield from (recipe.package_set(arch) for recipe in (initrd, container, provisioner))


def modules_selection() -> str:
    """Return which modules ``modules.cpio.gz`` holds: ``PVMLAB_MODULES``, ``installer`` (default) or ``all``.

    :raises UsageError: if the variable says anything else.
    """
    selection = os.environ.get("PVMLAB_MODULES", "installer")
    if selection not in {"installer", "all"}:
        raise UsageError(f"PVMLAB_MODULES is {selection!r}", resolution="set it to `installer` or `all`, or unset it")
    return selection


def graph() -> Graph:
    """Return the graph of the cache that the environment names, as that is now."""
    return _graph_of(Workspace.from_environment().cache, modules_selection())


@functools.cache
def _graph_of(cache: Cache, _modules: str) -> Graph:
    return Graph(artifacts(cache))


def reload() -> None:
    """Have the graph made again: a release was added, say."""
    _graph_of.cache_clear()


def default_tasks() -> list[str]:
    """Return what a build makes that names nothing: all that needs no medium (those of all distributions are many)."""
    all_tasks, fetching = graph(), "fetch:"
    return [
        name
        for name in all_tasks.artifacts
        if not any(needed.name.startswith(fetching) for needed in all_tasks.closure([name]))
    ]


def machine_tasks(distro: str, arch: Arch, installer: Installer = Installer.PVMLAB) -> list[str]:
    """Return the tasks whose artifacts an install of *distro* by *installer* needs, provisioner included."""
    if installer.is_native:
        return [f"provisioner:{arch}", f"native:{distro}:{arch}"]
    return [
        f"provisioner:{arch}", f"rootfs:{distro}:{arch}", f"kernel:{distro}:{arch}", f"modules:{distro}:{arch}",
        f"initrd:{arch}",
    ]  # fmt: skip


def doit_namespace(reporter: type[Reporter] | None = None) -> dict[str, Any]:
    """Return the task creators and the configuration, as doit finds them in a dodo module.

    :param reporter: None for the one of the ``doit`` command.
    """
    kinds = dict.fromkeys(name.partition(":")[0] for name in graph().artifacts)
    return {
        "DOIT_CONFIG": doit_settings(Workspace.from_environment().cache, reporter, default_tasks=default_tasks()),
        **{f"task_{kind.replace('-', '_')}": _creator(kind) for kind in kinds},
    }


def _creator(kind: str) -> Callable[[], Iterator[dict[str, Any]]]:
    def create() -> Iterator[dict[str, Any]]:
        yield {"basename": kind, "name": None, "doc": f"all of {kind}"}
        for task in graph().tasks(kind):
            yield {"basename": kind, **task}

    return create
