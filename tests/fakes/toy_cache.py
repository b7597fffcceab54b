"""A small graph for tests of what is done with whole caches: one task reads another's file, one makes two files.

::

    base:toy ──> pair:toy (one, two)      packages:toy (names a download)      lonely:toy
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from pipeline.artifact import Artifact, Making
from pipeline.commit import publish_bytes
from pipeline.graph import Graph
from pipeline.workspace import Cache

DEB = b"a package, as it were"
DEB_NAME = f"downloads/{hashlib.sha256(DEB).hexdigest()}/toy_1.0+b1~rc_all.deb"


def toy_graph(cache: Cache, text: str = "", *, tools: tuple[str, ...] = ()) -> Graph:
    """Return the graph. :param text: an option and content of ``base``, so that another one makes others files."""

    def artifact(name: str, *targets: str, inputs: tuple[str, ...] = ()) -> Artifact:
        return Artifact(
            name=name, doc=name, cache=cache, make=_write(name + text), tools=tools, options={"text": text},
            targets=tuple(cache.root / target for target in targets),
            inputs=tuple(cache.root / path for path in inputs),
        )  # fmt: skip

    return Graph([
        artifact("base:toy", "images/toy/base"),
        artifact("pair:toy", "images/toy/one", "images/toy/two", inputs=("images/toy/base",)),
        artifact("packages:toy", "packages/toy/list"),
        artifact("lonely:toy", "lonely/file"),
    ])  # fmt: skip


def with_recipe(graph: Graph, task: str, text_of: Callable[[Making], str]) -> Graph:
    """Return the graph with another recipe for *task*, that it does not know of: it stays up to date."""

    def make(making: Making) -> None:
        making.output.write_text(text_of(making))

    changed = dataclasses.replace(graph.artifacts[task], make=make)
    return Graph(changed if name == task else artifact for name, artifact in graph.artifacts.items())


def build_all(graph: Graph) -> None:
    """Build every artifact, and fetch the download that the manifest names."""
    for artifact in graph.closure(graph.artifacts):
        artifact.build()
    publish_bytes(next(iter(graph.artifacts.values())).cache.root / DEB_NAME, DEB)


def files_in(cache: Cache) -> dict[str, bytes]:
    """Return what is in a cache, but the cache's own files, logs and empty folders."""
    found = {path.relative_to(cache.root).as_posix(): path for path in cache.root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items()) if not name.startswith((".", "logs/"))}


def _write(text: str) -> Callable[[Making], None]:
    def make(making: Making) -> None:
        making.note(text)
        for target, output in making.outputs.items():
            if text.startswith("packages:"):
                output.write_text(f"Package: toy\nSHA256: {hashlib.sha256(DEB).hexdigest()}\nText: {text}\n")
            else:
                output.write_text(f"{text}, {target.name}\n" + "".join(p.read_text() for p in _inputs(target)))

    return make


def _inputs(target: Path) -> list[Path]:
    return [target.with_name("base")] if target.name in {"one", "two"} else []
