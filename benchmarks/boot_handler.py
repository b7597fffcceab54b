"""What a boot script costs with 1, 1000 and 10,000 definitions: ``python benchmarks/boot_handler.py [--seconds N]``.

The boot handler as it runs in the container (uvicorn on loopback, statuses and tokens written to a disk), beside a
handler that looks for the machine in the files at each request: the same server, the same scripts, the same writes,
and instead of the index a loop over ``vms/*.json`` that parses one after the other until the MAC address is found.
Asked in turns by a client of its own over kept connections; medians of requests per second, and the milliseconds of
the slowest in a hundred. Then, through nginx, what a thousand machines see, each with a connection and an address of
its own: from its request's first byte to its answer's last one, when all ask at once and when 50 do at a time; machines
that are new, that ask again, and that boot from their disks. The client takes its share of the processors. Last: how
long it takes until changes among 10,000 definitions are known.

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
from contracts.report import InstallState, MachineStatus  # noqa: E402
from pipeline.run import run, spawn  # noqa: E402
from pxeboot_stack import services  # noqa: E402
from pxeboot_stack.boot_handler import app, server  # noqa: E402
from pxeboot_stack.boot_handler.handler import BootHandler  # noqa: E402
from pxeboot_stack.boot_handler.settings import Settings  # noqa: E402
from pxeboot_stack.boot_handler.write_behind import JOURNAL  # noqa: E402
from pxeboot_stack.definitions import DefinitionStore, Machines  # noqa: E402
from pxeboot_stack.paths import HostShares, RunFiles  # noqa: E402
from pxeboot_stack.watcher import Watcher  # noqa: E402
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts, write_definition  # noqa: E402

COUNTS = (1, 1000, 10_000)
CONNECTIONS = 8
ROUNDS = 5
LAN = Lan(subnet="10.0.0.0/16")
LOOPBACK = Lan(subnet="127.0.0.0/16")  # all of it is this machine
STORM = 1000
WIDTHS = (STORM, 50)


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
    lan = LOOPBACK if kind == "front" else LAN
    server.make_server(Settings.of_shares(HostShares(root), lan, RunFiles(root / "run")), port=port).run()


def machine_of(number: int, first: str = "10.0.0.10") -> VmDefinition:
    """Return a definition like any other. :param first: address of the machine number 0."""
    return make_machine(
        name=f"m{number}",
        mac=f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}",
        ip=str(ipaddress.IPv4Address(first) + number),
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


def front(first_port: int) -> dict[str, dict[str, float]]:
    """Return what a thousand machines see through nginx."""
    with tempfile.TemporaryDirectory(prefix="pvmlab-bench-") as folder, tempfile.TemporaryFile() as log:
        Path(folder).chmod(0o755)
        settings = make_settings(Path(folder), LOOPBACK)
        write_artifacts(settings)
        machines = [machine_of(number, "127.0.1.0") for number in range(STORM)]
        for machine in machines:
            (settings.vms / f"{machine.name}.json").write_text(document.dumps(machine))
        handler, listen = (f"127.0.0.1:{port}" for port in (first_port, first_port + 1))
        settings.run.nginx.mkdir()
        settings.run.nginx_conf.write_text(
            services.render_nginx(HostShares(Path(folder)), settings.run, listen=listen, handler=handler)
        )
        argv = [sys.executable, __file__, "--serve", "front", folder, str(first_port)]
        both = [
            spawn(each, cwd=REPOSITORY, stdout=log, stderr=log) for each in (argv, services.nginx_command(settings.run))
        ]
        try:
            for port in (first_port, first_port + 1):
                asyncio.run(started(port))
            return {
                f"{kind}_{width}": storms(kind, width, machines, settings.status, first_port + 1)
                for width in WIDTHS
                for kind in ("new", "again", "disk")
            }
        finally:
            for each in both:
                each.terminate()
                each.wait()


def storms(kind: str, width: int, machines: list[VmDefinition], status: Path, port: int) -> dict[str, float]:
    """Return the medians of some storms. :param kind: of machine. :param width: how many ask at a time."""
    asked = json.dumps([{"name": each.name, "mac": each.mac, "ip": each.ip} for each in machines])
    found: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        while any(status.glob(f"{JOURNAL}*")):  # what was kept before is in place
            time.sleep(0.05)
        for machine in machines if kind != "again" else ():
            path = status / f"{machine.name}.json"
            path.unlink(missing_ok=True)
            if kind == "disk":
                state = MachineStatus(name=machine.name, uuid=machine.uuid, state=InstallState.INSTALLED, installs=1)
                path.write_text(document.dumps(state))
        time.sleep(1)  # the boot handler has seen it
        argv = [sys.executable, "-m", "tests.fakes.machine_storm", "127.0.0.1", str(port), str(width)]
        outcome = json.loads(run(argv, cwd=REPOSITORY, input=asked, timeout=120).stdout)
        if outcome["wrong"]:
            raise SystemExit(outcome["wrong"][0])
        took = sorted(outcome["milliseconds"])
        found.append((STORM / outcome["seconds"], took[STORM // 2], took[STORM * 99 // 100]))
    names = ("per_second", "p50_ms", "p99_ms")
    return {
        name: round(statistics.median(values), 1) for name, values in zip(names, zip(*found, strict=True), strict=True)
    }


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
    parser.add_argument("--storm", action="store_true", help="only what a thousand machines see through nginx")
    parser.add_argument("--port", type=int, default=18080, help="the first of two free ports")
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "ROOT", "PORT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve[0], Path(chosen.serve[1]), int(chosen.serve[2]))
        return
    run(["sync"], timeout=60)
    if chosen.storm:
        print(json.dumps({"storm": front(chosen.port)}, indent=2))  # noqa: T201
        return
    scripts = {str(count): compare(count, chosen.seconds, chosen.port) for count in COUNTS}
    storm = front(chosen.port)
    print(json.dumps({"scripts": scripts, "storm": storm, "reload": reload_times(COUNTS[-1])}, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
