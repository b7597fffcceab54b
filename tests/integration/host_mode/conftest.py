"""Host mode as the lab's own code starts it, and a client that is plugged into the lab's switch like a target."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import document
from lab import processes, provisioner
from lab.host_services import HostServices
from lab.lab import Lab
from lab.machine import MachineState
from lab.network import SwitchNetwork
from lab.processes import ProcessRecord
from lab.provisioner import ProvisionerState
from lab.provisioner_record import ProvisionerMode
from lab.spec import Accelerator, AcceleratorKind
from lab.wait import Deadline
from pipeline.errors import PrerequisiteError, PvmlabError
from pipeline.run import Popen, run, spawn
from pipeline.workspace import REPOSITORY, Cache, Home, Workspace
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import RunFiles
from tests.fakes import networks
from tests.fakes.lab_files import make_settings, write_artifacts
from tests.fakes.namespaces import CLIENT, Inside
from tests.fakes.supervisor_log import find_last_pid
from tests.fakes.web_client import end, wait_for

NO_ACCELERATOR = Accelerator(AcceleratorKind.TCG, "max", "not used in host mode", 1.0)
KNOWN_THERE = "52:54:00:bb:00:01"
_RELAY = """
import sys
from pathlib import Path
from lab.host_mode_relay import Card, Relay, disable_offloads
disable_offloads(sys.argv[1])
Relay(Card(sys.argv[2]), Path(sys.argv[3])).run()
"""


class Ending:
    """The services as a process: signals go to the first one in there, the end is that of all."""

    def __init__(self, services: HostServices, whole: Popen[bytes]) -> None:
        self._services, self._whole = services, whole

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self._services.require_inner_pid(), number)

    def wait(self, timeout: float) -> int:
        with contextlib.suppress(Exception):  # the time is over: told below, with what is left
            return self._whole.wait(timeout)
        left = "\n".join(describe_tree(self._whole.pid))
        pytest.fail(f"host mode does not end within {timeout:g} s; what is left of it:\n{left}")

    def kill(self) -> None:
        """Kill what all of it depends on, from outside."""
        self._whole.kill()


@dataclasses.dataclass(frozen=True)
class HostStack:
    """What the tests of the services want (``tests/integration/pxeboot_stack``), of services in host mode."""

    lab: Lab
    process: Ending
    settings: Settings
    files: RunFiles
    client: Inside

    @property
    def log(self) -> Path:
        return self.lab.provisioner.logs.serial

    @property
    def text(self) -> str:
        return self.log.read_text()

    def find_pid(self, service: str) -> int:
        """Return our number of the process that the supervisor, in there, calls by another."""
        return outer_pid(services_of(self.lab).require_inner_pid(), find_last_pid(self.text, service))

    def restart_after_crash(self) -> HostStack:
        """End all of it at once by SIGKILL, and start it anew: what was in memory is lost."""
        self.process.kill()
        wait_for("all has ended", lambda: self.lab.provisioner.state() is MachineState.CRASHED)
        return make_stack(self.lab, self.client)


def services_of(lab: Lab) -> HostServices:
    """Return the provisioner of a lab in host mode."""
    services = lab.provisioner
    assert isinstance(services, HostServices)
    return services


def describe_tree(pid: int) -> Iterator[str]:
    """Yield a line on the process *pid* and on each below it: what it waits for, and which signals wait for it."""
    folder = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):  # it ends meanwhile
        said = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        keys = ("Name", "State", "SigPnd", "ShdPnd", "SigBlk", "SigCgt")
        told = ", ".join(f"{key} {said[key].strip()}" for key in keys)
        yield f"{pid}: {told}, in {(folder / 'wchan').read_text() or '?'}"
    for child in " ".join(path.read_text() for path in folder.glob("task/*/children")).split():
        yield from describe_tree(int(child))


def outer_pid(first: int, inner: int) -> int:
    """Return our number of the process that is *inner* in the namespace of the process *first*; 0 if it is gone."""
    space = Path(f"/proc/{first}/ns/pid").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            numbers = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("NSpid:"))
            if numbers.split()[-1] == str(inner) and (folder / "ns/pid").readlink() == space:
                return int(folder.name)
    return 0


@pytest.fixture
def host_lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab in host mode with all that an install needs; it is ended afterwards. Home and cache are one folder."""
    with made_host_lab(tmp_path / "lab") as lab:
        yield lab


@contextlib.contextmanager
def made_host_lab(root: Path) -> Iterator[Lab]:
    """Make such a lab at *root*."""
    root.mkdir()
    settings = make_settings(root)
    write_artifacts(settings)
    (root / "ipxe").mkdir()
    (root / "ipxe" / "ipxe-x86_64.efi").write_bytes(bytes(range(256)) * 4096)  # 1 MiB
    (root / "config").mkdir(mode=0o700)
    (root / "config" / "lab.json").write_text(document.dumps(settings.lan))
    lab = Lab(Workspace(Cache(root), Home(root)))
    try:
        provisioner.create(lab, ProvisionerMode.HOST)
    except PrerequisiteError as error:
        pytest.skip(f"{error.brief}: {error.details}")
    try:
        yield lab
    finally:
        lab.provisioner.kill()
        lab.network.stop()


def start_services(lab: Lab) -> ProcessRecord:
    """Start them and wait until they are ready; return the record of their process."""
    provisioner.start(lab, NO_ACCELERATOR)
    provisioner.wait_until(lab, ProvisionerState.READY, deadline=Deadline(30))
    record = processes.find_record(lab.home.run / "provisioner.json")
    assert record is not None
    return record


@pytest.fixture
def client(host_lab: Lab) -> Iterator[networks.Inside]:
    """A network namespace on the lab's switch, with the card ``cli0`` and the addresses .11 and .12."""
    name = f"pvmlab-{secrets.token_hex(3)}-cli"
    with contextlib.ExitStack() as stack:
        try:
            run(["ip", "netns", "add", name], timeout=10)
        except PvmlabError as error:
            pytest.skip(f"no network namespaces here: {error.brief}: {error.details.splitlines()[-1:]}")
        stack.callback(run, ["ip", "netns", "delete", name], timeout=10)
        commands = [
            "link set lo up", f"link add {CLIENT} type veth peer name other",
            f"address add 192.168.100.11/24 dev {CLIENT}",
            f"address add 192.168.100.12/24 dev {CLIENT}", "link set other up", f"link set {CLIENT} up",
        ]  # fmt: skip
        switch = SwitchNetwork(host_lab.home.run).ensure_started()
        run(["ip", "-n", name, "-batch", "-"], timeout=10, input="\n".join(commands))
        argv = ["ip", "netns", "exec", name, sys.executable, "-c", _RELAY, CLIENT, "other", str(switch)]
        stack.callback(end, spawn(argv, env={"PYTHONPATH": str(REPOSITORY)}))
        inside = networks.Inside(name, threads=2)
        stack.callback(inside.close)
        yield inside


@dataclasses.dataclass(frozen=True)
class Office:
    """A host on a LAN of its own: the bridge br0, whose DHCP server is 192.168.100.1, and a client of that LAN.

    :ivar host: calls functions on that host. :ivar client: calls them at the other end of a cable, with the card
        ``cli0`` and the address .11.
    """

    name: str
    host: networks.Inside
    client: networks.Inside

    def cards(self) -> dict[str, str]:
        """Return the MAC addresses of the host's interfaces by name."""
        said = run(["ip", "-json", "-n", self.name, "link"], timeout=10).stdout
        return {card["ifname"]: card["address"] for card in json.loads(said)}


@pytest.fixture
def office() -> Iterator[Office]:
    """A LAN that has a DHCP server already, which gives 192.168.100.20 to the machine KNOWN_THERE."""
    with networks.make_namespaces("host", "cli") as (host, client), contextlib.ExitStack() as undo:
        networks.ip(host, "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        networks.cable(host, "desk", client, CLIENT)
        networks.ip(host, "link", "set", "desk", "master", "br0")
        networks.ip(host, "link", "set", "br0", "up")
        networks.ip(host, "address", "add", "192.168.100.1/24", "dev", "br0")
        networks.ip(client, "address", "add", "192.168.100.11/24", "dev", CLIENT)
        argv = ["ip", "netns", "exec", host, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
                "--interface=br0", "--no-ping", "--dhcp-authoritative", "--log-facility=-", "--leasefile-ro",
                "--no-resolv", "--no-hosts", "--dhcp-range=192.168.100.50,192.168.100.60,1h", "--pid-file=",
                f"--dhcp-host={KNOWN_THERE},192.168.100.20"]  # fmt: skip
        undo.callback(end, spawn(argv))
        made = Office(host, networks.Inside(host), networks.Inside(client))
        undo.callback(made.host.close)
        undo.callback(made.client.close)
        yield made


@pytest.fixture
def stack(host_lab: Lab, client: Inside) -> HostStack:
    """The services in host mode, ready, asked by *client* through the lab's switch."""
    return make_stack(host_lab, client)


def make_stack(host_lab: Lab, client: Inside) -> HostStack:
    """Start the services; return once *client* is answered."""
    record = start_services(host_lab)
    assert record.pid is not None
    inner = services_of(host_lab).require_inner_pid()
    ending = Ending(services_of(host_lab), processes._children[record.pid])
    files = RunFiles(Path(f"/proc/{inner}/root/mnt/run"))
    wait_for("the client is plugged in", lambda: client.ask("/healthz").status == 200)
    wait_for("dnsmasq runs", files.dnsmasq_pid.exists)
    return HostStack(host_lab, ending, make_settings(host_lab.home.root), files, client)
