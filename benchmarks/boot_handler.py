"""What a boot script costs with 1, 1000 and 10,000 definitions: ``python benchmarks/boot_handler.py [--seconds N]``.

The boot handler as it runs in the container (uvicorn on loopback, statuses and tokens written to a disk), beside a
handler that looks for the machine in the files at each request: the same server, the same scripts, the same writes,
and instead of the index a loop over ``vms/*.json`` that parses one after the other until the MAC address is found.
Asked in turns by a client of its own over kept connections; medians of requests per second, and the milliseconds of
the slowest in a hundred. Then: how long it takes until changes among 10,000 definitions are known.

Ends with one JSON document on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import ipaddress
import itertools
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from contracts import document  # noqa: E402 (the benchmark is run as a script)
from contracts.lan import Lan  # noqa: E402
from contracts.machine import VmDefinition  # noqa: E402
from pipeline.run import run, spawn  # noqa: E402
from pxeboot_stack.boot_handler import app, server  # noqa: E402
from pxeboot_stack.boot_handler.handler import BootHandler  # noqa: E402
from pxeboot_stack.boot_handler.settings import Settings  # noqa: E402
from pxeboot_stack.definitions import DefinitionStore, Machines  # noqa: E402
from pxeboot_stack.paths import HostShares, RunFiles  # noqa: E402
from pxeboot_stack.watcher import Watcher  # noqa: E402
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts, write_definition  # noqa: E402

COUNTS = (1, 1000, 10_000)
CONNECTIONS = 8
ROUNDS = 5
LAN = Lan(subnet="10.0.0.0/16")


class ScannedMachines(dict[str, VmDefinition]):
    """Finds a machine by its MAC address in the files themselves."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def get(self, mac: str, _: object = None) -> VmDefinition | None:  # type: ignore[override]
        """Return the machine; only the file that is the right one is checked in full."""
        for path in self._folder.glob("*.json"):
            data = json.loads(path.read_bytes())
            if data.get("mac") == mac:
                return document.decode(VmDefinition, data)
        return None


class ScanningStore(DefinitionStore):
    """Knows nothing by itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, lan=LAN)
        self._scanned = Machines(by_mac=ScannedMachines(folder))

    def current(self) -> Machines:
        """Return what looks at the files when it is asked."""
        return self._scanned


class ScanningHandler(BootHandler):
    """The peer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.definitions = ScanningStore(settings.vms)


def serve(kind: str, root: Path, port: int) -> None:
    """Run one of both until SIGTERM."""
    if kind == "peer":
        vars(app)["BootHandler"] = ScanningHandler
    server.make_server(Settings.of_shares(HostShares(root), LAN, RunFiles(root / "run")), port=port).run()


def machine_of(number: int) -> VmDefinition:
    """Return a definition like any other."""
    return make_machine(
        name=f"m{number}",
        mac=f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}",
        ip=str(ipaddress.IPv4Address("10.0.0.10") + number),
        uuid=str(uuid.UUID(int=number + 1)),
    )


async def ask(port: int, machines: Iterator[VmDefinition], until: float, took: list[float]) -> None:
    """Ask for scripts over one connection, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        machine, begun = next(machines), time.perf_counter()
        writer.write(f"GET /ipxe?mac={machine.mac} HTTP/1.1\r\nHost: x\r\nX-Real-IP: {machine.ip}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        body = await reader.readexactly(length)
        took.append(time.perf_counter() - begun)
        if f"pvmlab: {machine.name} installs".encode() not in body:
            raise SystemExit(f"{machine.name} got {body!r}")
    writer.close()


async def measure(port: int, machines: list[VmDefinition], seconds: float) -> tuple[float, float]:
    """Return requests per second, and the 99th percentile of their milliseconds."""
    took: list[float] = []
    order, begun = itertools.cycle(machines), time.perf_counter()
    await asyncio.gather(*(ask(port, order, begun + seconds, took) for _ in range(CONNECTIONS)))
    spent = time.perf_counter() - begun
    return len(took) / spent, 1000 * sorted(took)[int(len(took) * 0.99)]


async def started(port: int) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise SystemExit(f"nothing answers on port {port}")


def compare(count: int, seconds: float, first_port: int) -> dict[str, float]:
    """Measure both with *count* definitions."""
    with tempfile.TemporaryDirectory(prefix="pvmlab-bench-") as folder, tempfile.TemporaryFile() as log:
        roots, servers, machines = {}, [], [machine_of(number) for number in range(count)]
        for number, kind in enumerate(("ours", "peer")):
            settings = make_settings(Path(folder) / kind, LAN)
            write_artifacts(settings)
            for machine in machines:
                (settings.vms / f"{machine.name}.json").write_text(document.dumps(machine))
            roots[kind] = first_port + number
            argv = [sys.executable, __file__, "--serve", kind, str(settings.vms.parent), str(first_port + number)]
            servers.append(spawn(argv, cwd=REPOSITORY, stdout=log, stderr=log))
        try:
            rates: dict[str, list[tuple[float, float]]] = {kind: [] for kind in roots}
            for port in roots.values():
                asyncio.run(started(port))
                asyncio.run(measure(port, machines, seconds / 2))  # warm
            for _ in range(ROUNDS):
                for kind, port in roots.items():
                    rates[kind].append(asyncio.run(measure(port, machines, seconds)))
        finally:
            for each in servers:
                each.terminate()
                each.wait()
    found = {}
    for kind, measured in rates.items():
        found[f"{kind}_per_second"] = round(statistics.median(rate for rate, _ in measured), 1)
        found[f"{kind}_p99_ms"] = round(statistics.median(slow for _, slow in measured), 1)
    return found


def reload_times(count: int) -> dict[str, float]:
    """Return milliseconds until *count* definitions, and changes among them, are known."""
    with tempfile.TemporaryDirectory(prefix="pvmlab-bench-") as folder:
        settings = make_settings(Path(folder), LAN)
        machines = [machine_of(number) for number in range(count)]
        for machine in machines:
            (settings.vms / f"{machine.name}.json").write_text(document.dumps(machine))
        store, watcher = DefinitionStore(settings.vms, lan=LAN), Watcher(settings.vms, lan=LAN, run=settings.run)
        found = {"all_ms": _milliseconds(store.current), "watcher_all_ms": _milliseconds(watcher.look)}
        time.sleep(1)  # what follows the last change is over
        store.current()
        watcher.look()
        found["nothing_ms"] = _milliseconds(store.current)
        write_definition(settings.vms, dataclasses.replace(machines[-1], cpus=4))
        found["one_ms"] = _milliseconds(store.current)
        if store.current().by_name[machines[-1].name].cpus != 4:
            raise SystemExit("the change was not seen")
        write_definition(settings.vms, dataclasses.replace(machines[-1], ip="10.0.100.1"))
        found["watcher_one_ms"] = _milliseconds(watcher.look)
        for machine in machines[:1000]:
            write_definition(settings.vms, dataclasses.replace(machine, cpus=8))
        found["thousand_ms"] = _milliseconds(store.current)
        time.sleep(1)
        found["look_with_sweep_ms"] = _milliseconds(store.current)
    return found


def _milliseconds(call: object) -> float:
    begun = time.perf_counter()
    call()  # type: ignore[operator]
    return round(1000 * (time.perf_counter() - begun), 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of five measurements")
    parser.add_argument("--port", type=int, default=18080, help="the first of two free ports")
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "ROOT", "PORT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve[0], Path(chosen.serve[1]), int(chosen.serve[2]))
        return
    run(["sync"], timeout=60)
    scripts = {str(count): compare(count, chosen.seconds, chosen.port) for count in COUNTS}
    print(json.dumps({"scripts": scripts, "reload": reload_times(COUNTS[-1])}, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
