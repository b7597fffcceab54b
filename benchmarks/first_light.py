"""How long the main job takes, stage by stage, and what it needs: ``python benchmarks/first_light.py [--cold]``.

Runs the real command line in a fresh home (and, with ``--cold``, a fresh cache): ``up`` to a login, ``up`` again, an
empty ``doit``; samples the memory of the machines; lists the sizes of the artifacts. Ends with one JSON document on
standard output. Figures of one run: compare runs of one machine only.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from pipeline.run import run  # noqa: E402 (the benchmark is run as a script)

_STAGE = re.compile(r"\[\s*([\d.]+) s\] (.*)")
_UP_TIMEOUT = 3600.0
_SAMPLE_PAUSE = 0.5


class MemorySampler(threading.Thread):
    """Samples the proportional set size of the lab's processes until stopped."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self._home, self._stop_asked = str(home), threading.Event()
        self.peak_kib = 0

    def run(self) -> None:
        """Sample until asked to stop."""
        while not self._stop_asked.wait(_SAMPLE_PAUSE):
            self.peak_kib = max(self.peak_kib, sum(self._sizes()))

    def stop(self) -> None:
        """End sampling."""
        self._stop_asked.set()
        self.join()

    def _sizes(self) -> list[int]:
        sizes = []
        for folder in Path("/proc").iterdir():
            try:
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
                if folder.name.isdigit() and self._home in command and "qemu-system" in command:
                    lines = (folder / "smaps_rollup").read_text().splitlines()
                    sizes += [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
            except OSError:  # ended in between
                continue
        return sizes


def timed(*argv: str | Path, environment: dict[str, str]) -> tuple[float, str]:
    """Run a command; return its wall time in seconds and what it said."""
    begun = time.monotonic()
    done = run(argv, timeout=_UP_TIMEOUT, env=environment, network=True, cwd=REPOSITORY)
    return time.monotonic() - begun, done.stdout + done.stderr


def measure(*, cold: bool, scratch: Path) -> dict[str, Any]:
    """Return all figures; seconds, bytes and MiB, as the names say."""
    home = scratch / "home"
    environment = {"PVMLAB_HOME": str(home)} | ({"PVMLAB_CACHE": str(scratch / "cache")} if cold else {})
    cache = scratch / "cache" if cold else REPOSITORY / "cache"
    pvmlab, doit = REPOSITORY / "pvmlab", REPOSITORY / ".venv/bin/doit"
    sampler = MemorySampler(home)
    sampler.start()
    try:
        first, text = timed(pvmlab, "up", environment=environment)
        sampler.stop()
        second, _ = timed(pvmlab, "up", environment=environment)
        empty = min(
            timed(doit, "provisioner:x86_64", "modules:debian-12:x86_64", environment=environment)[0] for _ in range(3)
        )
    finally:
        down, _ = timed(pvmlab, "down", environment=environment)
        timed(pvmlab, "clean", "--yes", environment=environment)
    return {
        "up_seconds": round(first, 1),
        "stages": {found[2]: float(found[1]) for line in text.splitlines() if (found := _STAGE.match(line))},
        "second_up_seconds": round(second, 2),
        "empty_doit_seconds": round(empty, 2),
        "down_seconds": round(down, 1),
        "peak_memory_mib": sampler.peak_kib // 1024,
        "artifact_bytes": {
            path.relative_to(cache).as_posix().removesuffix(".json"): json.loads(path.read_text())["size"]
            for path in sorted(cache.rglob("*.json"))
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cold", action="store_true", help="also build every artifact, in a cache of its own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pvmlab-benchmark-") as scratch:
        print(json.dumps(measure(cold=arguments.cold, scratch=Path(scratch)), indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
