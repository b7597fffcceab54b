"""What the build engine costs beside its peers: ``python benchmarks/engine.py [--runs N]``.

Three questions, each measured in turns (ours, peer, ours, peer ...) on this machine, in this run; medians.

- A run that finds nothing to do: the whole graph of this repository if all of it is built, and a made-up graph of as
  many small tasks, beside plain doit (its own database and checks), make and ninja on that same made-up graph.
- What one executed task costs: 200 tasks that write a byte, beside plain doit. Ours writes each file and what goes with
  it (sidecar, bill of materials, provenance) so that a power cut cannot tear it: four files, each flushed to the disk.
- Reading a file for its digest, beside ``sha256sum`` and ``openssl``.

Ends with one JSON document on standard output. Wants the programs make and ninja.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from pipeline.digests import file_digest  # noqa: E402 (the benchmark is run as a script)
from pipeline.run import run  # noqa: E402

_TIMEOUT = 600.0
_CACHE = {name: os.environ[name] for name in ("PVMLAB_CACHE",) if name in os.environ}
_EXECUTED = 200
_HASHED = 512 << 20  # bytes

_OURS = """
from pathlib import Path
from pipeline.artifact import Artifact
from pipeline.engine.settings import doit_settings
from pipeline.graph import Graph
from pipeline.workspace import Cache

CACHE = Cache(Path("cache").absolute())

def make(making):
    making.output.write_bytes(b"x")

GRAPH = Graph(
    Artifact(name=f"toy:{{n}}", doc="", cache=CACHE, targets=(CACHE.root / f"{{n}}",), make=make,
             inputs=tuple(CACHE.root / f"{{m}}" for m in {{n // 2}} if m < n))
    for n in range({count})
)
DOIT_CONFIG = doit_settings(CACHE)

def task_toy():
    yield from GRAPH.tasks("toy")
"""
_PLAIN = """
from pathlib import Path

def make(path):
    Path(path).write_bytes(b"x")

def task_toy():
    Path("plain").mkdir(exist_ok=True)
    for n in range({count}):
        yield {{"name": str(n), "targets": [f"plain/{{n}}"], "actions": [(make, [f"plain/{{n}}"])],
               "file_dep": [f"plain/{{m}}" for m in {{n // 2}} if m < n] or [__file__]}}
"""


def write_peers(folder: Path, count: int) -> None:
    """Write the same graph for every peer: task n makes a file from that of n // 2."""
    (folder / "ours.py").write_text(_OURS.format(count=count))
    (folder / "plain.py").write_text(_PLAIN.format(count=count))
    needs = {number: [f"peer/{number // 2}"] if number else [] for number in range(count)}
    rules = "".join(f"peer/{n}: {' '.join(need)}\n\t@printf x >$@\n" for n, need in needs.items())
    (folder / "Makefile").write_text(f"all: {' '.join(f'peer/{n}' for n in needs)}\n{rules}")
    edges = "".join(f"build nin/{n}: touch {' '.join(need).replace('peer', 'nin')}\n" for n, need in needs.items())
    (folder / "build.ninja").write_text(f"rule touch\n  command = printf x >$out\n{edges}")
    for name in ("peer", "nin"):
        (folder / name).mkdir()


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the peers' commands by name."""
    doit = [sys.executable, "-m", "doit", "-f"]
    return {
        "ours": [*doit, str(folder / "ours.py")],
        "plain doit": [*doit, str(folder / "plain.py"), "--db-file", str(folder / "plain.db")],
        "make": ["make", "--silent"],
        "ninja": ["ninja", "--quiet"],
    }


def seconds(action: Callable[[], object]) -> float:
    """Return how long *action* takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(actions: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Return the median seconds of each action, measured one after the other, *runs* times."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            taken[name].append(seconds(action))
    return {name: round(statistics.median(values), 4) for name, values in taken.items()}


def starter(argv: list[str], folder: Path) -> Callable[[], object]:
    """Return what runs *argv* in *folder*."""
    return lambda: run(argv, timeout=_TIMEOUT, cwd=folder, env={"PYTHONPATH": str(REPOSITORY), **_CACHE})


def nothing_to_do(runs: int, count: int) -> dict[str, float]:
    """Measure runs that find everything up to date."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_peers(folder, count)
        actions = {peer: starter(argv, folder) for peer, argv in commands(folder).items()}
        for action in actions.values():
            action()
        if repository_is_built():
            actions = {"this repository": starter([sys.executable, "-m", "doit"], REPOSITORY), **actions}
        actions["python -c pass"] = starter([sys.executable, "-c", "pass"], folder)
        return in_turns(actions, runs)


def repository_is_built() -> bool:
    """Return whether all artifacts of this repository are up to date."""
    output = run([sys.executable, "-m", "doit", "list", "--all", "--status", "--quiet"], timeout=_TIMEOUT,
                 cwd=REPOSITORY, env=_CACHE).stdout  # fmt: skip
    return all(line.startswith("U") for line in output.splitlines() if ":" in line)


def executed_tasks(runs: int) -> dict[str, float]:
    """Return the milliseconds that one executed task costs."""

    def build(peer: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_peers(folder, _EXECUTED)
            starter(commands(folder)[peer], folder)()

    taken = in_turns({peer: lambda peer=peer: build(peer) for peer in ("ours", "plain doit")}, runs)  # type: ignore[misc]
    return {peer: round(value / _EXECUTED * 1000, 2) for peer, value in taken.items()}


def hashing(runs: int) -> dict[str, float]:
    """Return the MB a second at which a file in the page cache is read for its digest."""
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(_HASHED >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        path = Path(file.name)
        taken = in_turns(
            {
                "ours": lambda: file_digest(path),
                "sha256sum": starter(["sha256sum", str(path)], path.parent),
                "openssl": starter(["openssl", "dgst", "-sha256", str(path)], path.parent),
            },
            runs,
        )
    return {name: round(_HASHED / 1e6 / value) for name, value in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each command")
    arguments = parser.parse_args()
    count = len(json.loads(run([sys.executable, "-c", _COUNT], timeout=_TIMEOUT, cwd=REPOSITORY).stdout))
    figures = {
        "nothing to do, seconds": {"tasks": count, **nothing_to_do(arguments.runs, count)},
        "an executed task, milliseconds": executed_tasks(max(1, arguments.runs // 3)),
        "hashing, MB/s": hashing(max(1, arguments.runs // 3)),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


_COUNT = "import json; from pipeline.recipes.graph import graph; print(json.dumps(list(graph().artifacts)))"

if __name__ == "__main__":
    main()
