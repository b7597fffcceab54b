"""A dodo file with slow little artifacts, for tests that interrupt builds: ``TOY_CACHE`` is its cache."""

import os
from pathlib import Path

from pipeline.artifact import Artifact, Making
from pipeline.engine.settings import doit_settings
from pipeline.graph import Graph
from pipeline.run import run
from pipeline.workspace import Cache

CACHE = Cache(Path(os.environ["TOY_CACHE"]))
NAMES = ("a", "b", "c")


def make(making: Making) -> None:
    """Write half of the output, let a program take its time, write the rest."""
    making.output.write_text("half ")
    run(["sleep", os.environ.get("TOY_SECONDS", "0")], timeout=60, log=making.log)
    with making.output.open("a") as stream:
        stream.write("whole")


def artifact(name: str) -> Artifact:
    """Return an artifact; ``c`` needs the two others."""
    needs = tuple(CACHE.root / need for need in NAMES[:2]) if name == "c" else ()
    return Artifact(name=f"toy:{name}", doc=name, cache=CACHE, targets=(CACHE.root / name,), inputs=needs, make=make)


GRAPH = Graph(artifact(name) for name in NAMES)
DOIT_CONFIG = doit_settings(CACHE)


def task_toy():  # type: ignore[no-untyped-def]  # doit's task creators have no types
    """Make the toys."""
    yield from GRAPH.tasks("toy")
