"""What a download costs beside curl: ``python benchmarks/fetch.py [--runs N] [--size MIB]``.

A file from a server on the loopback into the store, so that the disk and the processor are what is measured: ours
(hashed while it comes, flushed to the disk, named when its digest is right) beside curl alone (neither), and beside
curl with sha256sum and sync after it (the same guarantees). Measured in turns; medians; seconds of time and of
processor.

Ends with one JSON document on standard output. Wants the program curl.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from pipeline.fetch.asset import Algorithm, Asset, Digest  # noqa: E402 (the benchmark is run as a script)
from pipeline.fetch.store import Store, obtain  # noqa: E402
from pipeline.run import PIPE, run, spawn  # noqa: E402
from pipeline.workspace import Cache  # noqa: E402

_TIMEOUT = 600.0
_NAME = "medium.iso"


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server knows it by this name)
        """Say nothing."""


def serve(folder: Path) -> None:
    """Serve *folder* until standard input ends; tell the port first."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


def write_file(path: Path, mebibytes: int) -> str:
    """Write random bytes; return their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for _ in range(mebibytes):
            piece = os.urandom(1 << 20)
            digest.update(piece)
            stream.write(piece)
    return digest.hexdigest()


def processor_seconds() -> float:
    """Return what this process and the programs it waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(action: Callable[[Path], object], folder: Path) -> tuple[float, float]:
    """Return the seconds, and those of the processor, that *action* takes in an empty folder."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        start, used = time.perf_counter(), processor_seconds()
        action(Path(name))
        return time.perf_counter() - start, processor_seconds() - used


def compare(url: str, sha256: str, folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Measure all in turns."""
    asset = Asset(name=_NAME, urls=(url,), digests=(Digest(Algorithm.SHA256, sha256),))

    def ours(place: Path) -> None:
        obtain(asset, store=Store(Cache(place)))

    def curl(place: Path) -> None:
        run(["curl", "--silent", "--fail", "--output", place / _NAME, url], timeout=_TIMEOUT)

    def curl_and_check(place: Path) -> None:
        curl(place)
        run(["sha256sum", place / _NAME], timeout=_TIMEOUT)
        run(["sync", place / _NAME], timeout=_TIMEOUT)

    peers = {"ours": ours, "curl": curl, "curl, sha256sum, sync": curl_and_check}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for _ in range(runs):
        for name, action in peers.items():
            taken[name].append(measure(action, folder))
    return {
        name: {
            "seconds": round(statistics.median(each[0] for each in values), 2),
            "processor seconds": round(statistics.median(each[1] for each in values), 2),
        }
        for name, values in taken.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "www").mkdir()
        sha256 = write_file(folder / "www" / _NAME, arguments.size)
        server = spawn([sys.executable, __file__, "--serve", folder / "www"], stdin=PIPE, stdout=PIPE)
        try:
            assert server.stdout is not None  # noqa: S101 (it is a pipe)
            port = int(server.stdout.readline())
            figures = compare(f"http://127.0.0.1:{port}/{_NAME}", sha256, folder, arguments.runs)
        finally:
            server.communicate(timeout=_TIMEOUT)
    sys.stdout.write(json.dumps({f"a download of {arguments.size} MiB": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
