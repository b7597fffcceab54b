"""What host mode saves, and what its relay costs: ``python benchmarks/host_mode.py [--runs N] [--vm]``.

- ``provisioner.start`` to ready, in host mode; with ``--vm`` in turns with the provisioner in a machine of its own,
  whose artifacts are built first if they are not.
- A file of 256 MiB fetched from nginx: through our relay, the lab's switch and once more our relay (a target has QEMU
  in place of the second one); beside the same over a cable between two namespaces. Needs root, and curl.

Ends with a table and one JSON document on standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from lab import provisioner  # noqa: E402 (the benchmark is run as a script)
from lab.lab import Lab  # noqa: E402
from lab.provisioner import ProvisionerState  # noqa: E402
from lab.provisioner_record import ProvisionerMode  # noqa: E402
from lab.wait import Deadline  # noqa: E402
from pipeline.recipes.build import ensure  # noqa: E402
from pipeline.run import run, spawn  # noqa: E402
from pipeline.workspace import Cache, Home, Workspace  # noqa: E402

_MIB = 256
_RELAY = """
import sys
from pathlib import Path
from lab.host_mode_relay import Card, Relay, disable_offloads
disable_offloads(sys.argv[1])
Relay(Card(sys.argv[2]), Path(sys.argv[3])).run()
"""


def measure_start(lab: Lab, mode: ProvisionerMode) -> float:
    """Return the seconds from the start of the provisioner to its readiness."""
    provisioner.create(lab, mode)
    accelerator = lab.accelerator(provisioner.ARCH)
    begun = time.monotonic()
    provisioner.start(lab, accelerator)
    try:
        provisioner.wait_until(lab, ProvisionerState.READY, deadline=Deadline(600))
        return time.monotonic() - begun
    finally:
        provisioner.stop(lab)
        lab.network.stop()


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """Yield the name of a network namespace of its own."""
    name = f"pvmlab-{secrets.token_hex(3)}"
    run(["ip", "netns", "add", name], timeout=10)
    try:
        yield name
    finally:
        run(["ip", "netns", "delete", name], timeout=10)


def fetch(name: str) -> float:
    """Return the MB/s of a fetch of the file in the namespace *name*."""
    url = "http://192.168.100.1/images/debian-12/large"
    words = ["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--write-out", "%{speed_download}"]
    return float(run(["ip", "netns", "exec", name, *words, url], timeout=600).stdout) / 1e6


def measure_relay(lab: Lab, runs: int) -> list[float]:
    """Return the MB/s through relay, switch and relay."""
    with namespace() as name, contextlib.ExitStack() as stack:
        provisioner.create(lab, ProvisionerMode.HOST)
        provisioner.start(lab, lab.accelerator(provisioner.ARCH))
        stack.callback(lab.network.stop)
        stack.callback(provisioner.stop, lab)
        provisioner.wait_until(lab, ProvisionerState.READY, deadline=Deadline(60))
        commands = "link add cli0 type veth peer name other\naddress add 192.168.100.11/24 dev cli0\n"
        run(["ip", "-n", name, "-batch", "-"], timeout=10, input=f"{commands}link set other up\nlink set cli0 up\n")
        words = [sys.executable, "-c", _RELAY, "cli0", "other", str(lab.network.ensure_started())]
        relay = spawn(["ip", "netns", "exec", name, *words], env={"PYTHONPATH": str(REPOSITORY)})
        stack.callback(relay.wait)
        stack.callback(relay.kill)
        time.sleep(1)
        return [fetch(name) for _ in range(runs)]


def measure_cable(lab: Lab, runs: int) -> list[float]:
    """Return the MB/s of the same server behind a cable."""
    with namespace() as here, namespace() as there, tempfile.TemporaryDirectory() as folder:
        run(["ip", "link", "add", "lan0", "netns", here, "type", "veth", "peer", "name", "cli0", "netns", there],
            timeout=10)  # fmt: skip
        for name, card, last in ((here, "lan0", 1), (there, "cli0", 11)):
            run(["ip", "-n", name, "address", "add", f"192.168.100.{last}/24", "dev", card], timeout=10)
            run(["ip", "-n", name, "link", "set", card, "up"], timeout=10)
        conf = Path(folder, "nginx.conf")
        conf.write_text(
            f"daemon off;\nuser root;\npid {folder}/pid;\nevents {{}}\nhttp {{ sendfile on; access_log off;\n"
            f"server {{ listen 192.168.100.1:80; location /images/ {{ alias {lab.cache.images}/; }} }} }}\n"
        )
        server = spawn(["ip", "netns", "exec", here, "nginx", "-e", "/dev/null", "-c", conf])
        try:
            time.sleep(1)
            return [fetch(there) for _ in range(runs)]
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--vm", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="pvmlab-bench-") as folder:
        cache = Workspace.from_environment().cache
        if arguments.vm:
            ensure([f"provisioner:{provisioner.ARCH}"])
        modes = [ProvisionerMode.HOST, *([ProvisionerMode.VM] if arguments.vm else [])]
        labs = {mode: Lab(Workspace(cache, Home(Path(folder, mode)))) for mode in modes}
        for _ in range(arguments.runs):
            for mode, lab in labs.items():
                figures.setdefault(f"start, {mode} mode, s", []).append(measure_start(lab, mode))
        if os.geteuid() == 0:
            own = Lab(Workspace(Cache(Path(folder, "cache")), Home(Path(folder, "fetch"))))
            (own.cache.images / "debian-12").mkdir(parents=True)
            (own.cache.images / "debian-12" / "large").write_bytes(os.urandom(1 << 20) * _MIB)
            figures["fetch through relay, switch, relay, MB/s"] = measure_relay(own, arguments.runs)
            figures["fetch over a cable, MB/s"] = measure_cable(own, arguments.runs)
    for name, values in figures.items():
        sys.stderr.write(
            f"{name:45} median {statistics.median(values):9.2f}   {min(values):.2f} to {max(values):.2f}\n"
        )
    print(json.dumps(figures, indent=2))  # noqa: T201 (the result)


if __name__ == "__main__":
    main()
