"""The boot handler as a process of its own, behind a real nginx; each machine has an address of loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import document
from contracts.lan import Lan
from contracts.machine import VmDefinition
from pipeline.run import spawn
from pipeline.workspace import REPOSITORY
from pxeboot_stack import services
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import HostShares
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts
from tests.fakes.web_client import Reply, end, find_free_port, request, wait_for

SUBNET = "127.0.0.0/16"  # all of it is this host


@dataclasses.dataclass(frozen=True)
class Served:
    """What runs. :ivar address: nginx's ``host:port``. :ivar handler: the boot handler's own."""

    address: str
    handler: str
    settings: Settings
    log: Path

    def ask(self, path: str, **more: Any) -> Reply:
        """Send a request to nginx."""
        return request(self.address, path, **more)

    def machine(self, number: int) -> VmDefinition:
        """Return the definition of a machine, without writing it."""
        return machine_of(number)

    def define(self, count: int) -> list[VmDefinition]:
        """Write *count* definitions; return them when all are known."""
        machines = [machine_of(number) for number in range(count)]
        for machine in machines:
            (self.settings.vms / f"{machine.name}.json").write_text(document.dumps(machine))
        wait_for("all are known", lambda: f"\npvmlab_definitions {count}\n" in request(self.handler, "/metrics").text)
        return machines

    def events(self, machine: VmDefinition) -> list[dict[str, Any]]:
        """Return what the handler wrote of a machine so far."""
        path = self.settings.status / f"{machine.name}.events.json"
        data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"events": []}
        events: list[dict[str, Any]] = data["events"]
        return events


def machine_of(number: int) -> VmDefinition:
    """Return the definition of a machine with an address of its own on loopback."""
    return make_machine(
        name=f"m{number}",
        mac=f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}",
        ip=str(ipaddress.IPv4Address("127.0.1.0") + number),
        uuid=str(uuid.UUID(int=number + 1)),
    )


@pytest.fixture
def served() -> Iterator[Served]:
    """The boot handler and nginx, without dnsmasq."""
    with tempfile.TemporaryDirectory(prefix="pvmlab-bh-") as folder, contextlib.ExitStack() as stack:
        settings = make_settings(Path(folder), Lan(subnet=SUBNET))
        write_artifacts(settings)
        run, log = settings.run, Path(folder) / "log"
        sink = stack.enter_context(log.open("ab"))
        ports = [find_free_port(), find_free_port()]
        handler, front = (f"127.0.0.1:{port}" for port in ports)
        argv = [sys.executable, "-m", "tests.fakes.handler_process", folder, str(ports[0]), SUBNET]
        stack.callback(end, spawn(argv, cwd=REPOSITORY, stdout=sink, stderr=sink))
        run.nginx.mkdir()
        user = "root" if os.geteuid() == 0 else "www-data"
        shares = HostShares(Path(folder))
        run.nginx_conf.write_text(services.render_nginx(shares, run, listen=front, handler=handler, user=user))
        stack.callback(end, spawn(services.nginx_command(run), stdout=sink, stderr=sink))
        wait_for("the boot handler answers", lambda: request(front, "/healthz").status == 200)
        yield Served(front, handler, settings, log)
