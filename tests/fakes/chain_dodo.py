"""Twenty small artifacts that need each other, and two tasks of plain doit, for tests that kill builds.

``TOY_CACHE`` is the cache, ``TOY_SALT`` an option of all artifacts. Run as a program it is a nursery: for each line on
standard input, a number of parallel tasks, it forks a process that builds all, and prints its id, then how it ended.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from pipeline.artifact import Artifact, Making
from pipeline.engine.settings import doit_settings
from pipeline.graph import Graph
from pipeline.run import run
from pipeline.workspace import Cache

CACHE = Cache(Path(os.environ["TOY_CACHE"]))
SALT = os.environ.get("TOY_SALT", "")
COUNT = 20
JOURNAL = CACHE.root.with_name(f"{CACHE.root.name}.journal")  # one line for each action that has done its work
PLAIN = CACHE.root / "plain.txt", CACHE.root / "plainer.txt"
_PAUSE = 0.0005  # seconds between two pieces of an output, so that kills hit half-written files


def note(text: str) -> None:
    """Append a line to the journal, in one write."""
    with JOURNAL.open("a") as stream:
        stream.write(f"{text}\n")


def target(number: int, part: str) -> Path:
    """Return a target of the artifact *number*."""
    return CACHE.root / f"{number:02}" / part


def artifact(number: int) -> Artifact:
    """Return one of the artifacts: it needs up to two of those before it, and has two targets."""
    needs = tuple(target(before, "a") for before in {number // 2, number - 3} if 0 <= before < number)

    def make(making: Making) -> None:
        content = b"".join(path.read_bytes() for path in needs) + f"{number} {SALT}".encode()
        for name, output in making.outputs.items():
            data = hashlib.sha512(content + name.name.encode()).hexdigest().encode() * 50
            with output.open("wb", buffering=0) as stream:
                for start in range(0, len(data), 2000):
                    stream.write(data[start : start + 2000])
                    time.sleep(_PAUSE)
        if number % 5 == 0:
            run(["sleep", "0.01"], timeout=60, log=making.log)
        note(f"toy:{number:02}")

    return Artifact(
        name=f"toy:{number:02}", doc=f"toy {number}", cache=CACHE, targets=(target(number, "a"), target(number, "b")),
        inputs=needs, options={"salt": SALT}, make=make,
    )  # fmt: skip


GRAPH = Graph(artifact(number) for number in range(COUNT))
DOIT_CONFIG = doit_settings(CACHE)


def task_toy() -> Iterator[dict[str, Any]]:
    """Make the toys."""
    yield from GRAPH.tasks("toy")


def copy(source: Path, name: str, destination: Path) -> None:
    """What somebody writes into a dodo file: no care for kills at all."""
    with destination.open("wb", buffering=0) as stream:
        for byte in source.read_bytes()[:3000:100]:
            stream.write(bytes([byte]) * 100)
            time.sleep(_PAUSE / 4)
    note(name)


def task_plain() -> dict[str, Any]:
    """Copy a toy."""
    source = target(3, "a")
    return {
        "file_dep": [str(source)], "targets": [str(PLAIN[0])], "task_dep": ["toy:03"],
        "actions": [(copy, [source, "plain", PLAIN[0]])],
    }  # fmt: skip


def task_plainer() -> dict[str, Any]:
    """Copy the copy."""
    return {
        "file_dep": [str(PLAIN[0])], "targets": [str(PLAIN[1])], "actions": [(copy, [PLAIN[0], "plainer", PLAIN[1]])],
    }  # fmt: skip


def main() -> None:
    """Fork a build for each line on standard input."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            # the exit of a killed build is not to be tidied: no flush, no handlers
            os._exit(DoitMain(ModuleTaskLoader(globals())).run(["-n", line.strip()]))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
