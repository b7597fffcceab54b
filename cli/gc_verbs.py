"""``./pvmlab gc``: shows and removes what nobody needs any more, in the lab and in the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cli.cache_verbs import carry_out_prune, plan_cache_prune
from cli.confirm import require_yes
from cli.output import emit, require_format, say
from lab.garbage import Garbage, GarbagePlan, collect, find_lost_processes, plan_garbage
from lab.lab import Lab
from pipeline.errors import PvmlabError
from pipeline.reporting.wording import format_size
from pipeline.upkeep.pruning import PrunePlan


@dataclasses.dataclass(frozen=True)
class _Row:
    kind: str
    name: str
    size: int
    why: str


def collect_garbage(*, dry_run: bool, yes: bool, output: str) -> None:
    """Remove what nobody needs, after saying what that is.

    :raises ConflictError: if the answer is no, or another command works on the lab or the cache.
    :raises PvmlabError: if something could not be removed.
    """
    require_format(output)
    lab = Lab.from_environment()
    plan, of_cache = plan_garbage(lab), _plan_of_cache(lab)
    rows = _rows(plan.items, of_cache, lab)
    if output != "json":
        _show(rows, plan, dry_run=dry_run, output=output)
    failed: list[str] = []
    if rows and not dry_run:
        require_yes(f"{format_size(_size(rows))} will be removed.", yes=yes)
        gone, failed = collect(lab, plan)
        rows = _rows(gone, of_cache, lab)
        if of_cache is not None and of_cache.removals:
            carry_out_prune(of_cache, lab, keep_used=False)
        if output != "json":
            say(f"freed {format_size(_size(rows))}")
    if output == "json":
        _show(rows, plan, dry_run=dry_run, output=output)
    if failed:
        raise PvmlabError("not all could be removed", details="\n".join(failed), resolution="see why, then gc again")


def _plan_of_cache(lab: Lab) -> PrunePlan | None:
    """Return what of the cache can go, or None if that cannot be told, which is said."""
    if not lab.cache.root.is_dir():
        return None
    try:
        return plan_cache_prune(lab, keep_used=False)
    except PvmlabError as error:
        say(f"the cache is left alone: {error.brief}")
        return None


def _rows(items: Sequence[Garbage], of_cache: PrunePlan | None, lab: Lab) -> list[_Row]:
    removals = of_cache.removals if of_cache is not None else ()
    return [
        *(_Row(item.kind.value, item.name, item.size, item.why) for item in items),
        *(
            _Row("cache", str(each.found.path.relative_to(lab.cache.root)), each.found.size, each.why)
            for each in removals
        ),
    ]


def _size(rows: Sequence[_Row]) -> int:
    return sum(row.size for row in rows)


def _show(rows: list[_Row], plan: GarbagePlan, *, dry_run: bool, output: str) -> None:
    size = _size(rows)
    total = [("in all", "", format_size(size), "")] if rows else []
    table = [("KIND", "NAME", "SIZE", "WHY"), *((r.kind, r.name, format_size(r.size), r.why) for r in rows), *total]
    lost = find_lost_processes()
    data = {
        "dry_run": dry_run, "size": size, "removed": rows, "unknown": [str(path) for path in plan.unknown],
        "lost_processes": [{"pid": pid, "name": name} for pid, name in lost],
    }  # fmt: skip
    emit(data, output=output, table=table)
    if not rows:
        say("there is nothing to remove")
    for pid, name in lost:
        say(f"{name}, process {pid}, runs on for a lab whose folder is gone: kill {pid}")
    for path in plan.unknown:
        say(f"{path} stays: it is not named as pvmlab names things")
