"""``./pvmlab clean --purge``: what a lab and a cache leave behind when all of pvmlab is to go."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cli.output import say
from lab import bridge
from lab.network import Network
from pipeline.engine.lock import hold, lock_wait
from pipeline.engine.session import remove_scratch
from pipeline.errors import PvmlabError
from pipeline.recipes import graph as recipes
from pipeline.upkeep.inventory import Found, Kind, take_inventory
from pipeline.workspace import Cache


def cache_contents(cache: Cache) -> list[Found]:
    """Return all that pvmlab made in *cache*; what is not named as ours is left out, as is the committed README."""
    if not cache.root.is_dir():
        return []
    contents = take_inventory(recipes.graph(), cache)
    return [found for found in contents if found.kind is not Kind.UNKNOWN and found.path.name != "README.md"]


def purge_cache(cache: Cache) -> int:
    """Remove all that pvmlab made in *cache*, then the folders that this empties; return the bytes freed.

    :raises ConflictError: if a build works on it.
    """
    if not cache.root.is_dir():
        return 0
    with hold(cache, wait=lock_wait(), tell=say):
        contents = cache_contents(cache)
        remove_scratch(cache, [found.path for found in contents if found.kind is Kind.SCRATCH])
        for found in contents:
            if found.kind is not Kind.SCRATCH:
                for path in found.files or (found.path,):
                    path.unlink(missing_ok=True)
    _remove_empty_folders(cache.root)
    return sum(found.size for found in contents)


def remove_network(network: Network) -> None:
    """Remove what the network of a lab, which may be gone, has on the host. What needs root is told instead."""
    try:
        if isinstance(network, bridge.BridgeNetwork):
            network.remove()
    except PvmlabError as error:
        say(f"{error.brief}: {error.resolution}")


def _remove_empty_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        with contextlib.suppress(OSError):  # it is not empty: something of a person's is in it
            Path(folder).rmdir()
