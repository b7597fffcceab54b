"""A dodo file whose recipes tell their progress, for tests of what people see.

``TOY_CACHE`` is its cache, ``TOY_SECONDS`` how long each recipe takes, ``TOY_FAILS`` the recipe that fails.
"""

import os
import time
from pathlib import Path

from pipeline.artifact import Artifact, Making
from pipeline.engine.settings import doit_settings
from pipeline.graph import Graph
from pipeline.run import run
from pipeline.workspace import Cache

CACHE = Cache(Path(os.environ["TOY_CACHE"]))
NAMES = ("kernel", "modules", "rootfs", "image")
STEPS = 20
MEBIBYTES = 118


def make(making: Making) -> None:
    """Download, then unpack, then something that nobody can count."""
    pause = float(os.environ.get("TOY_SECONDS", "0")) / STEPS / 2
    for done in range(STEPS + 1):
        making.report("fetching packages", done * MEBIBYTES * 1024**2 // STEPS, MEBIBYTES * 1024**2)
        time.sleep(pause)
    if os.environ.get("TOY_FAILS") == making.output.name.strip(".").partition(".")[0]:
        making.note("reading the archive")
        run(["tar", "--extract", "--file", "no such archive"], timeout=60, log=making.log)
    for done in range(STEPS // 2 + 1):
        making.report("unpacking", done * 31, STEPS // 2 * 31, unit="packages")
        time.sleep(pause)
    making.report("compressing")
    time.sleep(pause * STEPS / 2)
    making.output.write_text("whole")


def artifact(name: str) -> Artifact:
    """Return an artifact; ``image`` needs the others."""
    needs = tuple(CACHE.root / need for need in NAMES[:-1]) if name == "image" else ()
    return Artifact(name=f"toy:{name}", doc=name, cache=CACHE, targets=(CACHE.root / name,), inputs=needs, make=make)


GRAPH = Graph(artifact(name) for name in NAMES)
DOIT_CONFIG = doit_settings(CACHE)


def task_toy():  # type: ignore[no-untyped-def]  # doit's task creators have no types
    """Make the toys."""
    yield from GRAPH.tasks("toy")
