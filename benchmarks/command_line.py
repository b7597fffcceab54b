"""How long the command line takes: its first page, an empty list, a list of 500 machines, an answer to TAB.

Beside plain invoke listing the same verbs (``invoke --list`` in the same environment: what it would be without ours
around it), and a Python that only reads the files of those 500 machines. All commands take turns, so that a busy moment
meets each of them; the least, the median and the greatest time are shown, of whole processes, and the median of the
processor's time, which another load changes less.

``.venv/bin/python benchmarks/command_line.py [--rounds N] [--machines N]``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from contracts import document
from contracts.arch import Arch
from contracts.machine import SshHostKey, VmDefinition
from contracts.report import InstallState, MachineStatus
from contracts.timeline import Event, EventKind, Timeline
from pipeline.run import run
from pipeline.workspace import REPOSITORY

EVENTS = 40  # of each machine: an install leaves about so many
_READ = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("[vs]*/*.json"):
    json.loads(path.read_bytes())
"""


@dataclasses.dataclass(frozen=True)
class Contender:
    """A command to be timed."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str]


def make_lab(home: Path, machines: int) -> None:
    """Make a lab with installed machines that are off."""
    for folder in ("vms", "status", "config"):
        (home / folder).mkdir(parents=True)
    (home / "config/identity").write_text("benchmark\n")
    (home / "config/lab.json").write_text(json.dumps({"subnet": "10.77.0.0/16"}))
    key = SshHostKey(private="-----BEGIN OPENSSH PRIVATE KEY-----\n" + "x" * 350, public="ssh-ed25519 AAAA")
    for number in range(machines):
        name, place = f"web{number}", (number // 200, number % 200 + 2)
        machine = VmDefinition(
            name=name, arch=Arch.X86_64, distro="debian-12", mac=f"52:54:00:00:{place[0]:02x}:{place[1]:02x}",
            ip=f"10.77.{place[0]}.{place[1]}", uuid=str(uuid.uuid4()), ssh_authorized_keys=("ssh-ed25519 AAAA",),
            ssh_host_key=key,
        )  # fmt: skip
        status = MachineStatus(name=name, uuid=machine.uuid, state=InstallState.INSTALLED, installs=1)
        events = tuple(Event(time=time.time() - age, text=f"event {age}", kind=EventKind.ACK) for age in range(EVENTS))
        (home / f"vms/{name}.json").write_text(document.dumps(machine))
        (home / f"status/{name}.json").write_text(document.dumps(status))
        timeline = Timeline(name=name, uuid=machine.uuid, events=events)
        (home / f"status/{name}.events.json").write_text(document.dumps(timeline))


def contenders(empty: Path, full: Path, machines: int) -> list[Contender]:
    """Return what is timed."""
    ours, venv = REPOSITORY / "pvmlab", REPOSITORY / ".venv/bin"
    of = {"empty": {"PVMLAB_HOME": str(empty)}, "full": {"PVMLAB_HOME": str(full)}}
    return [
        Contender("./pvmlab --help", [ours, "--help"], of["empty"]),
        Contender("plain invoke --list, the same verbs", [venv / "python", "-m", "invoke", "--list"], of["empty"]),
        Contender("./pvmlab vm.list, no machine", [ours, "vm.list"], of["empty"]),
        Contender(f"./pvmlab vm.list, {machines} machines", [ours, "vm.list"], of["full"]),
        Contender(f"python reading those {machines} machines' files", [venv / "python", "-c", _READ, full], {}),
        Contender("./pvmlab __complete ./pvmlab vm.logs w", [ours, "__complete", ours, "vm.logs", "w"], of["full"]),
        Contender("python -c pass", [venv / "python", "-c", "pass"], {}),
    ]


def measure(all_of_them: Sequence[Contender], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds that each took, round by round, on the clock and of the processor."""
    times: dict[str, list[tuple[float, float]]] = {each.name: [] for each in all_of_them}
    for number in range(rounds + 1):
        for each in all_of_them:
            begun, used = time.perf_counter(), _processor_time()
            run(each.argv, timeout=60, env=each.env, cwd=REPOSITORY)
            if number:  # the first round compiles and warms up
                times[each.name].append((time.perf_counter() - begun, _processor_time() - used))
    return times


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--machines", type=int, default=500)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        make_lab(full, wanted.machines)
        times = measure(contenders(empty, full, wanted.machines), wanted.rounds)
    sys.stdout.write(f"{'seconds, of whole processes':48}   least  median  greatest  processor\n")
    for name, both in times.items():
        taken, used = zip(*both, strict=True)
        figures = f"{min(taken):6.3f}  {statistics.median(taken):6.3f}  {max(taken):8.3f}"
        sys.stdout.write(f"{name:48}  {figures}  {statistics.median(used):9.3f}\n")


if __name__ == "__main__":
    main()
