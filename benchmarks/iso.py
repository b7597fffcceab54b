"""What taking files out of a disc costs beside its peers: ``python benchmarks/iso.py [--runs N] [--mib N]``.

Two questions about one ISO 9660 of about 1 GB (Rock Ridge, Joliet, 2,000 small files, one large), answered in turns
(ours, peer, ours, peer ...) on this machine, in this run, with the disc in the page cache; medians.

- Two files, kernel and initrd, as ``kernel:`` tasks do.
- All files.

The peers: ``xorriso -osirrox``, ``7zz``, ``bsdtar`` if it is there, and ``cp`` of the same files from a folder. Ours
includes starting Python and finding out what the disc is; without that it is "ours, in a running process". Each run
writes into a new folder, whose removal is not measured.

Ends with a table and one JSON document on standard output.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from pipeline.media.disc import inspect  # noqa: E402 (the benchmark is run as a script)
from pipeline.run import find_program, run  # noqa: E402

_TIMEOUT = 900.0
_SMALL_FILES = 2000
_TWO = {"casper/vmlinuz": 15 << 20, "casper/initrd": 75 << 20}  # bytes, as on Ubuntu's disc
_OURS = """
import sys
from pathlib import Path
from pipeline.media.disc import inspect
disc = inspect(Path(sys.argv[1]))
folder, names = Path(sys.argv[2]), sys.argv[3:] or disc.members
for parent in {(folder / name).parent for name in names}:
    parent.mkdir(parents=True, exist_ok=True)
disc.extract({name: folder / name for name in names})
"""

Action = Callable[[Path], object]


def make_disc(folder: Path, mib: int) -> tuple[Path, Path]:
    """Make a tree of *mib* MiB that do not compress, and a disc of it; return both paths."""
    tree, generator = folder / "tree", random.Random(1)  # noqa: S311 (noise, no secret)
    files = {**_TWO, "casper/filesystem.squashfs": (mib << 20) - sum(_TWO.values()) - _SMALL_FILES * 20_000}
    files |= {f"pool/main/{number % 40}/package_{number}.deb": 20_000 for number in range(_SMALL_FILES)}
    for name, size in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for start in range(0, size, 8 << 20):
                stream.write(generator.randbytes(min(8 << 20, size - start)))
    disc = folder / "disc.iso"
    run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-joliet-long", "-V", "BENCHMARK", "-o", disc, tree],
        timeout=_TIMEOUT)  # fmt: skip
    return tree, disc


def two_files(tree: Path, disc: Path) -> dict[str, Action]:
    """Return who takes kernel and initrd out, by name."""
    names = list(_TWO)
    xorriso: list[str | Path] = ["xorriso", "-osirrox", "on", "-indev", disc]
    pairs = [word for name in names for word in ("-extract", f"/{name}", name)]
    return {
        "cp": lambda folder: run(["cp", "--parents", *names, folder], timeout=_TIMEOUT, cwd=tree),
        "ours": lambda folder: run([sys.executable, "-c", _OURS, disc, folder, *names], timeout=_TIMEOUT,
                                   env={"PYTHONPATH": str(REPOSITORY)}),
        "ours, in a running process": lambda folder: in_process(disc, folder, names),
        "xorriso": lambda folder: run([*xorriso, *pairs], timeout=_TIMEOUT, cwd=folder),
        "7zz": lambda folder: run(["7zz", "x", "-bd", "-y", disc, *names], timeout=_TIMEOUT, cwd=folder),
        "bsdtar": lambda folder: run(["bsdtar", "-xf", disc, *names], timeout=_TIMEOUT, cwd=folder),
    }  # fmt: skip


def all_files(tree: Path, disc: Path) -> dict[str, Action]:
    """Return who takes everything out, by name."""
    xorriso: list[str | Path] = ["xorriso", "-osirrox", "on", "-indev", disc]
    return {
        "cp": lambda folder: run(["cp", "--recursive", f"{tree}/.", folder], timeout=_TIMEOUT),
        "ours": lambda folder: run([sys.executable, "-c", _OURS, disc, folder], timeout=_TIMEOUT,
                                   env={"PYTHONPATH": str(REPOSITORY)}),
        "ours, in a running process": lambda folder: in_process(disc, folder, list(inspect(disc).members)),
        "xorriso": lambda folder: run([*xorriso, "-extract", "/", "."], timeout=_TIMEOUT, cwd=folder),
        "7zz": lambda folder: run(["7zz", "x", "-bd", "-y", disc], timeout=_TIMEOUT, cwd=folder),
        "bsdtar": lambda folder: run(["bsdtar", "-xf", disc], timeout=_TIMEOUT, cwd=folder),
    }  # fmt: skip


def in_process(disc: Path, folder: Path, names: list[str]) -> None:
    """Take *names* out of *disc* without starting a program."""
    for parent in {(folder / name).parent for name in names}:
        parent.mkdir(parents=True, exist_ok=True)
    inspect(disc).extract({name: folder / name for name in names})


def in_turns(actions: Mapping[str, Action], runs: int, scratch: Path) -> dict[str, float]:
    """Return the median seconds of each action, measured one after the other, *runs* times after one to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(runs + 1):
        for name, action in actions.items():
            folder = Path(tempfile.mkdtemp(dir=scratch))
            start = time.perf_counter()
            action(folder)
            if number:
                taken[name].append(time.perf_counter() - start)
            shutil.rmtree(folder)
    return {name: statistics.median(values) for name, values in taken.items()}


def same_bytes(tree: Path, disc: Path, scratch: Path) -> None:
    """Take all files out once and compare them with the tree."""
    folder = scratch / "compared"
    in_process(disc, folder, list(inspect(disc).members))
    run(["diff", "--recursive", tree, folder], timeout=_TIMEOUT)
    shutil.rmtree(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each command")
    parser.add_argument("--mib", type=int, default=1000, help="size of the disc, MiB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        tree, disc = make_disc(scratch, arguments.mib)
        same_bytes(tree, disc, scratch)
        questions = {"two files": two_files(tree, disc), "all files": all_files(tree, disc)}
        figures = {}
        for question, actions in questions.items():
            there = {peer: action for peer, action in actions.items() if peer != "bsdtar" or find_program("bsdtar")}
            seconds = in_turns(there, arguments.runs, scratch)
            figures[question] = {
                peer: {"seconds": round(value, 3), "times cp": round(value / seconds["cp"], 2)}
                for peer, value in seconds.items()
            }
    for question, peers in figures.items():
        sys.stdout.write(f"{question:<28} seconds  times cp\n")
        for peer, figure in peers.items():
            sys.stdout.write(f"  {peer:<26} {figure['seconds']:7.3f}  {figure['times cp']:8.2f}\n")
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
