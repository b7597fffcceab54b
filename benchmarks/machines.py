"""What living with machines costs: ``python benchmarks/machines.py [--runs N] [--machine NAME [--mark TEXT]]``.

- ``vm.clone`` as a whole process, from its start to its end, of a machine with a small ext4 root (made here, nothing is
  booted); beside ``qemu-img create`` of one overlay, which is the least that any linked clone costs, and beside a full
  copy of a disk that holds 1 GiB.
- ``vm.snapshot`` of the same machine off, and of a running machine of 512 MiB with its memory (no guest in it).
- With ``--machine``, an installed machine that is off, in the lab that ``PVMLAB_HOME`` names, its provisioner running:
  seconds from the command to the word *mark* on its console; in turns ``vm.start`` and QEMU's bare command line, the
  very words that ``vm.start`` runs.

Ends with a table and one JSON document on standard output.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from contracts import nocloud  # noqa: E402 (the benchmark is run as a script)
from lab import processes, target  # noqa: E402
from lab.lab import Lab  # noqa: E402
from pipeline.run import run, spawn  # noqa: E402
from tests.fakes.idle_machines import IdleLab  # noqa: E402
from tests.fakes.installed_disks import system_files, write_installed_disk  # noqa: E402

_LIMIT = 600.0  # seconds
_GIB = 1 << 30


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that *work* takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def pvmlab(lab: Lab, *words: str) -> None:
    """Run a verb in *lab*, as a process."""
    env = {"PVMLAB_HOME": str(lab.home.root), "PVMLAB_CACHE": str(lab.cache.root), "PVMLAB_ACCEL": "tcg"}
    run([REPOSITORY / "pvmlab", *words], timeout=_LIMIT, env=env, cwd=REPOSITORY)


def measure_clones(folder: Path, runs: int) -> dict[str, list[float]]:
    """Return the seconds of clones, snapshots and their peers."""
    idle = IdleLab(folder)
    lab = idle.lab
    definition = idle.make("web1")
    files = system_files("web1", {kind: make(definition, lab.lan) for kind, make in nocloud.DOCUMENTS.items()})
    disk = target.disk_path(lab, "web1")
    write_installed_disk(disk, files)
    full = folder / "full.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", full, "8G"], timeout=_LIMIT)
    run(["qemu-io", "-f", "qcow2", "-c", f"write -P 7 0 {_GIB}", full], timeout=_LIMIT)
    figures: dict[str, list[float]] = {}
    try:
        for number in range(runs):
            overlay: list[str | Path] = [
                "qemu-img",
                "create",
                "-q",
                "-f",
                "qcow2",
                "-b",
                full,
                "-F",
                "qcow2",
                folder / f"o{number}",
            ]
            copy: list[str | Path] = ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", full, folder / "copy"]
            for name, work in (
                ("vm.clone", functools.partial(pvmlab, lab, "vm.clone", "web1", f"clone{number}")),
                ("qemu-img create, one overlay", functools.partial(run, overlay, timeout=_LIMIT)),
                ("qemu-img convert, a copy of 1 GiB", functools.partial(run, copy, timeout=_LIMIT)),
                ("vm.snapshot, off", functools.partial(pvmlab, lab, "vm.snapshot", "web1", f"s{number}")),
            ):
                figures.setdefault(name, []).append(timed(work))
        idle.start("web1", runs=True)
        for number in range(runs):
            work = functools.partial(pvmlab, lab, "vm.snapshot", "web1", f"live{number}")
            figures.setdefault("vm.snapshot, with memory", []).append(timed(work))
    finally:
        idle.end()
    return figures


def wait_for_mark(log: Path, mark: str) -> None:
    """Return when *mark* is on the console. :raises TimeoutError: if it does not come."""
    deadline = time.monotonic() + _LIMIT
    while not log.exists() or mark.encode() not in log.read_bytes():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{mark!r} did not come: {log}")
        time.sleep(0.02)


def measure_starts(lab: Lab, name: str, mark: str, runs: int) -> dict[str, list[float]]:
    """Return the seconds to *mark* by ``vm.start`` and by QEMU alone."""
    machine, figures = lab.machine(name), dict[str, list[float]]()
    for _ in range(runs):

        def ours() -> None:
            pvmlab(lab, "vm.start", name)
            wait_for_mark(machine.logs.serial, mark)

        figures.setdefault("vm.start", []).append(timed(ours))
        record = machine.process()
        assert record is not None  # noqa: S101 (it has just said something)
        words = processes.arguments(record)
        machine.kill()
        machine.logs.serial.unlink()
        (lab.home.run / f"{name}.pid").unlink(missing_ok=True)

        def bare(words: list[str] = words) -> None:
            process = spawn(words, cwd=lab.home.run)
            try:
                wait_for_mark(machine.logs.serial, mark)
            finally:
                process.kill()
                process.wait()

        figures.setdefault("bare QEMU", []).append(timed(bare))
        for left in itertools.chain(lab.home.run.glob(f"{name}.*"), [machine.logs.serial]):
            if left.suffix != ".lock":
                left.unlink(missing_ok=True)
    return figures


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--machine", default="")
    parser.add_argument("--mark", default="login:")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pvmlab-bench-") as folder:
        figures = measure_clones(Path(folder), arguments.runs)
    if arguments.machine:
        os.environ.setdefault("PVMLAB_ACCEL", "tcg")
        figures |= measure_starts(Lab.from_environment(), arguments.machine, arguments.mark, arguments.runs)
    for name, values in figures.items():
        sys.stderr.write(
            f"{name:36} median {statistics.median(values):7.3f} s   {min(values):.3f} to {max(values):.3f}\n"
        )
    if arguments.machine:
        ratio = statistics.median(figures["vm.start"]) / statistics.median(figures["bare QEMU"])
        sys.stderr.write(f"vm.start takes {100 * (ratio - 1):+.1f} % more than the bare command line\n")
    print(json.dumps(figures, indent=2))  # noqa: T201 (the result)


if __name__ == "__main__":
    main()
