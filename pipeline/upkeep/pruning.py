"""What of a cache can go. The plan is pure; carrying it out decides nothing."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.engine.session import remove_scratch
from pipeline.graph import Graph
from pipeline.upkeep.inventory import Found, Kind, named_downloads
from pipeline.workspace import Cache


@dataclasses.dataclass(frozen=True)
class Removal:
    """Something that goes. :ivar why: as the reason people read."""

    found: Found
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """What goes, and what would but stays.

    :ivar spared: base images of disks that exist. :ivar unknown: what is not ours.
    """

    removals: tuple[Removal, ...]
    spared: tuple[Path, ...]
    unknown: tuple[Path, ...]

    @property
    def size(self) -> int:
        """The bytes that are freed."""
        return sum(removal.found.size for removal in self.removals)


def plan_prune(
    inventory: Sequence[Found],
    graph: Graph,
    *,
    needed: Collection[str],
    only_needed: bool,
    locked: Collection[str] = (),
    base_images: Collection[Path],
) -> PrunePlan:
    """Return what can go: leftovers, what no task makes any more, downloads that no manifest names.

    :param needed: tasks that machines need, in the graph or no longer.
    :param only_needed: artifacts of all other tasks can go, too.
    :param locked: digests of media in the lock: their downloads stay, they may have come from a file that is gone.
    :param base_images: files that disks of machines are overlays of: they stay, whatever else holds.
    """
    # a machine may have been made from a release that is no longer known
    lasting = {task for task in needed if task not in graph.artifacts}
    reasons: dict[Path, str] = {}
    for found in (each for each in inventory if each.files):
        if found.kind.is_leftover:
            reasons[found.path] = f"{found.kind} of a build that ended"
        elif found.kind in {Kind.ARTIFACT, Kind.LOG} and not found.in_graph and found.task not in lasting:
            reasons[found.path] = "no task makes it any more"
        elif found.kind is Kind.ARTIFACT and only_needed and found.task not in needed:
            reasons[found.path] = "no machine of the lab needs it"
    named = named_downloads(found for found in inventory if found.path not in reasons).union(locked)
    for found in inventory:
        if found.kind is Kind.DOWNLOAD and found.path.parent.name not in named:
            reasons[found.path] = "no manifest names it"
    bases = {path.resolve() for path in base_images}
    going = [found for found in inventory if found.path in reasons]
    spared = [found for found in going if any(base.is_relative_to(found.path.resolve()) for base in bases)]
    return PrunePlan(
        removals=tuple(Removal(found, reasons[found.path]) for found in going if found not in spared),
        spared=tuple(found.path for found in spared),
        unknown=tuple(found.path for found in inventory if found.kind is Kind.UNKNOWN),
    )


def prune(plan: PrunePlan, cache: Cache) -> None:
    """Remove what the plan says; folders that this empties go with it. Call it while holding the cache.

    :raises CommandError: if scratch cannot be removed. :raises OSError: if a file cannot be.
    """
    scratch = [removal.found.path for removal in plan.removals if removal.found.kind is Kind.SCRATCH]
    remove_scratch(cache, scratch)
    for removal in plan.removals:
        if removal.found.kind is not Kind.SCRATCH:
            for path in removal.found.files:
                path.unlink(missing_ok=True)
            _remove_empty(removal.found.path.parent, cache)


def _remove_empty(folder: Path, cache: Cache) -> None:
    """Remove *folder* and those above it that are empty, but none right in the cache: machines share those."""
    while folder.parent != cache.root and folder.is_relative_to(cache.root):
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()
        folder = folder.parent
