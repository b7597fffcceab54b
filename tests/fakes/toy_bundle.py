"""Bundles of a small cache, good ones and nonsense, for tests."""

from __future__ import annotations

import hashlib
import io
import itertools
import tarfile
from collections.abc import Sequence

from pipeline.graph import Graph
from pipeline.progress import ignore_progress
from pipeline.upkeep.bundle import TRAILER, Entry, header, padding, plan_bundle, render_index, write_bundle
from pipeline.upkeep.bundle_import import Imported, import_bundle
from pipeline.workspace import Cache
from tests.fakes.toy_cache import toy_graph

ALL = ("base:toy", "pair:toy", "packages:toy", "lonely:toy")


def exported(cache: Cache, tasks: Sequence[str] = ALL) -> bytes:
    """Return a bundle of *tasks*."""
    sink = io.BytesIO()
    write_bundle(plan_bundle(toy_graph(cache), tasks, cache), cache, sink, ignore_progress)
    return sink.getvalue()


def imported(data: bytes, cache: Cache, *, replace: bool = False, graph: Graph | None = None) -> Imported:
    """Import a bundle."""
    return import_bundle(
        io.BytesIO(data), graph or toy_graph(cache), cache, replace=replace, listener=ignore_progress
    )  # fmt: skip


def reasons(graph: Graph) -> dict[str, str | None]:
    """Return for each task why it is out of date, or None."""
    return {name: artifact.reason() for name, artifact in graph.artifacts.items()}


def members(data: bytes) -> dict[str, bytes]:
    """Read a bundle as anybody would."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive}


def packed(files: Sequence[tuple[str, bytes]], index: bytes | None = None) -> bytes:
    """Return a bundle of *files*, which may be nonsense."""
    if index is None:
        index = render_index([Entry(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in files])
    parts = [(header(name, len(data)), data, padding(len(data))) for name, data in [("bundle.json", index), *files]]
    return b"".join(itertools.chain(*parts)) + TRAILER


def content(data: bytes) -> list[tuple[str, bytes]]:
    """Return the files of a bundle but its index, as :func:`packed` takes them."""
    return [(name, text) for name, text in members(data).items() if name != "bundle.json"]
