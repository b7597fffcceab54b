"""Finds and reads the distribution files."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from contracts.arch import Arch
from distros.debian import DebianRelease
from pipeline.errors import NotFoundError, PvmlabError, UsageError

_FOLDER = Path(__file__).parent
_KEYS = {"name", "title", "family", "suite", "kernel_package"}


class _StrictLoader(yaml.CSafeLoader):
    """Refuses repeated keys: PyYAML's own loaders silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is repeated", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_release(text: str, *, file: str) -> DebianRelease:
    """Parse a distribution file.

    :raises PvmlabError: naming the file and what is wrong in it.
    """
    try:
        data = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a subclass of the safe loader)
        return _release(data)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise PvmlabError(f"the distribution file {file} is broken", details=str(error)) from error


def _release(data: Any) -> DebianRelease:
    if not isinstance(data, Mapping):
        raise TypeError("it is not a mapping")
    if data.keys() != _KEYS:
        raise ValueError(f"its keys must be {sorted(_KEYS)}, they are {sorted(map(str, data))}")
    if data["family"] != "debian":
        raise ValueError(f"family {data['family']!r} is unknown, known are: debian")
    kernels = {Arch(arch): str(package) for arch, package in data["kernel_package"].items()}
    return DebianRelease(name=data["name"], title=data["title"], suite=data["suite"], kernel_package=kernels)


@functools.cache
def releases() -> Mapping[str, DebianRelease]:
    """Return all known releases by name.

    :raises PvmlabError: if a file is broken.
    """
    found = {}
    for file in sorted(_FOLDER.glob("*.yaml")):
        release = parse_release(file.read_text(), file=file.name)
        if release.name != file.stem:
            raise PvmlabError(f"the distribution file {file.name} is broken", details=f"its name is {release.name!r}")
        found[release.name] = release
    return found


def require_release(name: str, arch: Arch) -> DebianRelease:
    """Return the release called *name*, buildable for *arch*.

    :raises NotFoundError: if there is no such release. :raises UsageError: if it has no such architecture.
    """
    if name not in releases():
        raise NotFoundError(f"there is no distribution {name!r}", resolution=f"known are: {', '.join(releases())}")
    release = releases()[name]
    if arch not in release.arches:
        raise UsageError(f"{name} cannot be built for {arch}", resolution=f"it can for: {', '.join(release.arches)}")
    return release
