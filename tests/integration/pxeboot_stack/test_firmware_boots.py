"""Machines that boot from the network, each by another firmware, up to the first line of their kernel.

The services are the real dnsmasq and nginx with our configuration; a stand-in for the boot handler has the scripts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.lan import Lan
from contracts.machine import FirmwareKind, NicModel
from lab.accelerator import choose_accelerator
from lab.firmware import find_firmware
from lab.host_mode_relay import Card, Relay, disable_offloads
from lab.journey import DEFAULT_DISTRO
from lab.machine import Machine
from lab.network import SwitchNetwork
from lab.spec import Bios, Firmware, LanCard, MachineSpec
from pipeline.run import spawn
from pipeline.workspace import Cache, Home
from pxeboot_stack import services
from pxeboot_stack.boot_handler import scripts as ipxe_scripts
from pxeboot_stack.paths import HostShares
from tests.fakes import networks
from tests.fakes.lab_files import make_machine
from tests.fakes.namespaces import CLIENT
from tests.fakes.networks import SERVER, Inside, Server
from tests.fakes.web_client import PATIENCE, end

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]
LAN = Lan(ipv6_subnet="fd12:3456:789a::/64")  # as every new lab has it: firmware must not wait for it
FIRST_LINE = "] Linux version "
MACHINES = [
    make_machine(
        name=f"boot{number}",
        mac=f"52:54:00:bb:00:0{number}",
        ip=f"192.168.100.2{number}",
        ipv6=f"fd12:3456:789a::2{number}",
        uuid=str(uuid.UUID(int=number)),
    )
    for number in range(1, 5)
]
KERNEL = f"""#!ipxe
kernel {LAN.base_url}/images/{DEFAULT_DISTRO}/x86_64/vmlinuz console=ttyS0,115200 panic=0
boot
"""
CHAIN = f"""#!ipxe
chain tftp://{LAN.provisioner}/undionly.kpxe
"""


@dataclasses.dataclass
class Boots:
    """What machines boot from, and the machines. :ivar scripts: what the next ones that ask get; the last one stays."""

    home: Home
    server: Server
    switch: Path
    access_log: Path
    scripts: list[str]

    def start(self, number: int, kind: FirmwareKind, *, model: NicModel = NicModel.VIRTIO) -> Machine:
        """Start a machine without a disk."""
        definition = MACHINES[number]
        machine = Machine(definition.name, home=self.home)
        accelerator = choose_accelerator(Arch.X86_64, state=self.home.run)
        machine.start(
            MachineSpec(
                name=definition.name, uuid=definition.uuid, arch=Arch.X86_64, cpus=1, memory_mib=512,
                accelerator=accelerator, boot=self._firmware(definition.name, kind), disks=(),
                lan=LanCard(definition.mac, boot_index=0, model=model), lan_socket=self.switch,
                serial_log=machine.logs.serial, qmp_socket=machine.qmp_socket,
            )
        )  # fmt: skip
        return machine

    def _firmware(self, name: str, kind: FirmwareKind) -> Firmware | Bios:
        if kind is FirmwareKind.BIOS:
            return Bios()
        firmware = find_firmware(Arch.X86_64)
        variables = self.home.disks / f"{name}.vars.fd"
        shutil.copyfile(firmware.variables, variables)
        return Firmware(firmware.code, variables, http=kind is FirmwareKind.UEFI_HTTP)

    def wait_for_kernel(self, machine: Machine, seconds: float) -> None:
        """Wait until the kernel has said its first line."""
        deadline = time.monotonic() + seconds
        while FIRST_LINE not in (said := _read(machine.logs.serial)):
            if time.monotonic() > deadline or not machine.is_running():
                pytest.fail(f"no kernel, the console said last:\n{said[-1500:]}\ndnsmasq:\n{self.server.text[-2000:]}")
            time.sleep(0.1)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture
def boots(artifacts: Cache, tmp_path: Path) -> Iterator[Boots]:
    """The services on a network that the machines' switch is joined with."""
    home = Home(tmp_path / "home")
    for folder in (home.run, home.disks):
        folder.mkdir(parents=True)
    programs = {path.name: path.read_bytes() for path in (artifacts.ipxe(Arch.X86_64), artifacts.ipxe_bios)}
    programs["autoexec.ipxe"] = ipxe_scripts.render_chain(LAN.base_url).encode()
    network = SwitchNetwork(home.run)
    with contextlib.ExitStack() as undo:
        server = undo.enter_context(networks.served(LAN, MACHINES, programs=programs))
        services_end = undo.enter_context(contextlib.closing(Inside(server.namespace)))
        services_end.call(disable_offloads, SERVER)
        undo.callback(network.stop)
        switch = network.ensure_started()
        undo.enter_context(_joined(server, switch))
        scripts = [KERNEL]
        undo.enter_context(_handler(services_end, scripts))
        _start_nginx(undo, server, artifacts, tmp_path)
        made = Boots(home, server, switch, tmp_path / "nginx.log", scripts)
        for machine in MACHINES:
            undo.callback(Machine(machine.name, home=home).kill)
        yield made


@contextlib.contextmanager
def _joined(server: Server, switch: Path) -> Iterator[None]:
    """Join the clients' end of the network with the switch, as host mode does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(str(switch))
        link.settimeout(0)

        def relay() -> None:
            with contextlib.closing(Card(CLIENT)) as card, contextlib.suppress(OSError):
                Relay(card, switch).relay(link)

        running = server.client.start(relay)
        try:
            yield
        finally:
            link.shutdown(socket.SHUT_RDWR)
            running.result(timeout=PATIENCE)


@contextlib.contextmanager
def _handler(inside: Inside, scripts: list[str]) -> Iterator[None]:
    """Stand in for the boot handler."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
            self.send_response(200)
            self.send_header("Content-Length", str(len(script)))
            self.end_headers()
            self.wfile.write(script.encode())

        def log_message(self, *_: object) -> None:
            pass

    httpd = inside.call(ThreadingHTTPServer, ("127.0.0.1", 8080), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        yield
    finally:
        httpd.shutdown()
        thread.join(timeout=PATIENCE)
        httpd.server_close()


def _start_nginx(undo: contextlib.ExitStack, server: Server, cache: Cache, folder: Path) -> None:
    files = server.files
    files.nginx.mkdir(exist_ok=True)
    shares = HostShares(folder / "host")
    shares.root.mkdir()
    for shared, target in ((shares.images, cache.images), (shares.initrds, cache.initrds)):
        shared.symlink_to(target)
    files.nginx_conf.write_text(
        services.render_nginx(shares, files, listen=f"{LAN.provisioner}:80", handler="127.0.0.1:8080", user="root")
    )
    log = undo.enter_context((folder / "nginx.log").open("wb"))
    process = spawn(["ip", "netns", "exec", server.namespace, *services.nginx_command(files)], stdout=log, stderr=log)
    undo.callback(end, process)


@pytest.mark.parametrize("kind", FirmwareKind)
def test_a_machine_boots_its_kernel_from_the_network(boots: Boots, kind: FirmwareKind) -> None:
    if kind is FirmwareKind.BIOS:  # QEMU's ROM is an iPXE already, an old one; other cards' ROMs load undionly at once
        boots.scripts.insert(0, CHAIN)
    boots.wait_for_kernel(boots.start(0, kind), seconds=150)
    files = [line for line in boots.server.text.splitlines() if "dnsmasq-tftp" in line and " sent " in line]
    by_tftp = {line.split(" sent ")[1].split()[0].rsplit("/", 1)[1] for line in files}
    program = {FirmwareKind.UEFI: {"ipxe-x86_64.efi"}, FirmwareKind.BIOS: {"undionly.kpxe"}}.get(kind, set())
    assert {name for name in by_tftp if name != "autoexec.ipxe"} == program
    assert ("/ipxe/ipxe-x86_64.efi" in boots.access_log.read_text()) == (kind is FirmwareKind.UEFI_HTTP)
    assert len(boots.scripts) == 1


@pytest.mark.parametrize(
    "kind",
    [
        FirmwareKind.UEFI,
        *(pytest.param(kind, marks=pytest.mark.nightly) for kind in (FirmwareKind.UEFI_HTTP, FirmwareKind.BIOS)),
    ],
)
def test_a_machine_boots_from_an_intel_card(boots: Boots, kind: FirmwareKind) -> None:
    """The card's ROM is QEMU's iPXE: no firmware here has a driver for such a card."""
    boots.wait_for_kernel(boots.start(0, kind, model=NicModel.E1000E), seconds=150)


@pytest.mark.nightly  # four emulated machines want four processors
def test_four_machines_boot_at_once(boots: Boots) -> None:
    machines = [boots.start(number, FirmwareKind.UEFI) for number in range(4)]
    for machine in machines:
        boots.wait_for_kernel(machine, seconds=400)
    assert all(f"DHCPACK(lan0) {machine.ip} {machine.mac}" in boots.server.text for machine in MACHINES)
