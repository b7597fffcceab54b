"""What is in the cache, how big it is, how it stands and who needs it: for people as a table, for programs as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.graph import Graph
from pipeline.reporting.wording import counted, format_size
from pipeline.sidecar import files_of, read_sidecar
from pipeline.upkeep.inventory import Found, Kind, named_downloads, take_inventory
from pipeline.workspace import Cache

_NOT_BUILT, _UP_TO_DATE, _OUT_OF_DATE, _FORMER = "not built", "up to date", "out of date", "no task makes it any more"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileView:
    """An artifact file.

    :ivar size: with its sidecar and documents. :ivar state: in words. :ivar reason: why it is out of date, or None.
    :ivar needed_by: tasks that read it. :ivar machines: machines of the lab that are installed or run from it.
    """

    task: str
    path: str
    size: int
    state: str
    reason: str | None = None
    needed_by: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheView:
    """A whole cache. :ivar unused: how many downloads no manifest names. :ivar size: of all of it."""

    files: tuple[FileView, ...]
    downloads: tuple[Found, ...]
    unused: int
    logs: tuple[Found, ...]
    leftovers: tuple[Found, ...]
    unknown: tuple[Found, ...]
    size: int


def view_cache(
    graph: Graph, cache: Cache, machines: Mapping[str, Iterable[str]], *, expected: Collection[str]
) -> CacheView:
    """Return what there is.

    :param machines: the tasks that each machine of the lab is installed or run from.
    :param expected: tasks to speak of even if they are not built; of the others there are too many.
    """
    inventory = take_inventory(graph, cache)
    built = {found.task for found in inventory if found.in_graph}
    shown = [artifact for name, artifact in graph.artifacts.items() if name in built or name in expected]
    current = [view for artifact in shown for view in _views(artifact, graph, machines)]
    former = [
        FileView(task=str(found.task), path=_name(found.path, cache), size=found.size, state=_FORMER)
        for found in inventory
        if found.kind is Kind.ARTIFACT and not found.in_graph
    ]
    downloads, named = _of(inventory, Kind.DOWNLOAD), named_downloads(inventory)
    return CacheView(
        files=(*current, *former),
        downloads=downloads,
        unused=sum(found.path.parent.name not in named for found in downloads),
        logs=_of(inventory, Kind.LOG),
        leftovers=tuple(found for found in inventory if found.kind.is_leftover),
        unknown=_of(inventory, Kind.UNKNOWN),
        size=sum(found.size for found in inventory),
    )


def table_of(view: CacheView, cache: Cache) -> list[Sequence[str]]:
    """Return the table for people."""
    rows = [(file.task, file.path, _size(file.size), _state(file), _users(file)) for file in view.files]
    if view.downloads:
        unused = f", {view.unused} of them unused" if view.unused else ""
        rows.append(("", "downloads/", _total(view.downloads), f"{counted(len(view.downloads), 'file')}{unused}", ""))
    if view.logs:
        rows.append(("", "logs/", _total(view.logs), counted(len(view.logs), "file"), ""))
    rows += [("", _name(found.path, cache), _size(found.size), found.kind.value, "") for found in view.leftovers]
    rows += [("", _name(found.path, cache), _size(found.size), "not made by pvmlab", "") for found in view.unknown]
    return [("TASK", "FILE", "SIZE", "STATE", "NEEDED BY"), *rows, ("", "in all", _size(view.size), "", "")]


def data_of(view: CacheView, cache: Cache) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "cache": str(cache.root),
        "size": view.size,
        "artifacts": view.files,
        "downloads": _summary(view.downloads) | {"unused": view.unused},
        "logs": _summary(view.logs),
        "leftovers": [
            {"path": _name(found.path, cache), "kind": found.kind, "size": found.size} for found in view.leftovers
        ],
        "unknown": [{"path": _name(found.path, cache), "size": found.size} for found in view.unknown],
    }


def _views(artifact: Artifact, graph: Graph, machines: Mapping[str, Iterable[str]]) -> list[FileView]:
    """Return how the files of an artifact stand."""
    reason = artifact.reason()
    readers = [reader for reader in graph.artifacts.values() if artifact in graph.needed_by(reader)]
    views = []
    for target in artifact.targets:
        built = target.is_file() and read_sidecar(target) is not None
        views.append(
            FileView(
                task=artifact.name,
                path=_name(target, artifact.cache),
                size=sum(path.stat().st_size for path in files_of(target) if path.is_file()),
                state=_NOT_BUILT if not built else _UP_TO_DATE if reason is None else _OUT_OF_DATE,
                reason=reason if built else None,
                needed_by=tuple(reader.name for reader in readers if target in reader.inputs),
                machines=tuple(name for name, tasks in machines.items() if artifact.name in tasks),
            )
        )
    return views


def _of(inventory: Iterable[Found], kind: Kind) -> tuple[Found, ...]:
    return tuple(found for found in inventory if found.kind is kind)


def _state(file: FileView) -> str:
    return f"{file.state}: {file.reason}" if file.reason else file.state


def _users(file: FileView) -> str:
    return ", ".join([*file.needed_by, *(f"machine {name}" for name in file.machines)])


def _size(size: int) -> str:
    return format_size(size) if size else ""


def _total(found: Iterable[Found]) -> str:
    return _size(sum(each.size for each in found))


def _summary(found: Sequence[Found]) -> dict[str, int]:
    return {"count": len(found), "size": sum(each.size for each in found)}


def _name(path: Path, cache: Cache) -> str:
    return path.relative_to(cache.root).as_posix()
