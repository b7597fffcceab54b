"""Private networks made of network namespaces, and dnsmasq in one of them with the configuration that we render."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from contracts.arch import Arch
from contracts.lan import DhcpMode, Lan
from contracts.machine import VmDefinition
from pipeline.errors import PvmlabError
from pipeline.run import Popen, run, spawn
from pxeboot_stack import services
from pxeboot_stack.paths import RunFiles
from pxeboot_stack.reservations import render_dhcp_hosts, render_dns_hosts
from tests.fakes import namespaces
from tests.fakes.namespaces import CLIENT
from tests.fakes.web_client import PATIENCE, end, wait_for

T = TypeVar("T")
SERVER, OUTSIDE = "lan0", "wan0"
_MEMORY = "/dev/shm"  # the run directory of the container is in memory, too: dnsmasq flushes its leases at each change


class Inside(namespaces.Inside):
    """Calls functions inside a network namespace, several at a time."""

    def __init__(self, namespace: str, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads, initializer=namespaces._enter, initargs=(namespace,))

    def call(self, function: Callable[..., T], *arguments: Any, **more: Any) -> T:
        """Return what *function* returns."""
        return self.start(function, *arguments, **more).result(timeout=2 * PATIENCE)

    def start(self, function: Callable[..., T], *arguments: Any, **more: Any) -> Future[T]:
        """Have *function* run meanwhile."""
        return self._pool.submit(function, *arguments, **more)


@dataclasses.dataclass
class Server:
    """dnsmasq, as in the container. :ivar client: the other end of the network."""

    lan: Lan
    files: RunFiles
    namespace: str
    client_namespace: str
    client: Inside
    log: Path
    process: Popen[bytes]

    @property
    def text(self) -> str:
        """What dnsmasq has logged."""
        return self.log.read_text(errors="replace")

    def reload(self, machines: Iterable[VmDefinition]) -> None:
        """Have it know *machines*, as the watcher does."""
        write_hosts(self.files, self.lan, list(machines))
        before = self.text.count("read /")
        self.process.send_signal(signal.SIGHUP)
        wait_for("dnsmasq has read its files", lambda: self.text.count("read /") >= before + 2)


def write_hosts(files: RunFiles, lan: Lan, machines: Sequence[VmDefinition]) -> None:
    """Write what the watcher writes."""
    files.dhcp_hosts.write_text(render_dhcp_hosts(machines))
    files.dns_hosts.write_text(render_dns_hosts(machines, lan))


@contextlib.contextmanager
def make_namespaces(*ends: str) -> Iterator[list[str]]:
    """Make a network namespace for each of *ends*; skip the test where that is not permitted."""
    with contextlib.ExitStack() as stack:
        names = [f"pvmlab-{secrets.token_hex(3)}-{end}" for end in ends]
        for name in names:
            try:
                run(["ip", "netns", "add", name], timeout=10)
            except PvmlabError as error:
                pytest.skip(f"no network namespaces here: {error.brief}: {error.details.splitlines()[-1:]}")
            stack.callback(run, ["ip", "netns", "delete", name], timeout=10)
            ip(name, "link", "set", "lo", "up")
        yield names


def ip(namespace: str, *words: str) -> None:
    """Call ``ip`` for *namespace*."""
    run(["ip", "-n", namespace, *words], timeout=10)


def cable(here: str, interface: str, there: str, other: str) -> None:
    """Join two namespaces. Addresses are usable at once (no duplicate address detection)."""
    run(
        ["ip", "link", "add", interface, "netns", here, "type", "veth", "peer", "name", other, "netns", there],
        timeout=10,
    )
    for namespace, name in ((here, interface), (there, other)):
        forget_duplicates(namespace, name)
        ip(namespace, "link", "set", name, "up")


def switch(namespace: str, others: dict[str, str]) -> None:
    """Join *namespace*, which has :data:`CLIENT` on it, and *others*, each with its interface, by a bridge."""
    ip(namespace, "link", "add", CLIENT, "type", "bridge", "stp_state", "0", "forward_delay", "0")
    for number, (other, interface) in enumerate(others.items()):
        cable(other, interface, namespace, f"port{number}")
        ip(namespace, "link", "set", f"port{number}", "master", CLIENT)
    ip(namespace, "link", "set", CLIENT, "up")


def become(server: Server, mac: str) -> None:
    """Have the card at the clients' end be *mac*: DHCPv6 servers look at who it is that asks."""
    ip(server.client_namespace, "link", "set", CLIENT, "down")
    ip(server.client_namespace, "link", "set", CLIENT, "address", mac)
    ip(server.client_namespace, "link", "set", CLIENT, "up")
    assert server.lan.ipv6_network is not None
    address = f"{server.lan.ipv6_network[2**32 - 1]}/64"  # lost when the card went down
    ip(server.client_namespace, "address", "replace", address, "dev", CLIENT, "nodad")


def forget_duplicates(namespace: str, interface: str) -> None:
    """Switch duplicate address detection off (RFC 4862): for a second, addresses would not be usable."""
    argv = ["ip", "netns", "exec", namespace, "sysctl", "-q", "-w", f"net.ipv6.conf.{interface}.accept_dad=0"]
    run(argv, timeout=10)


@contextlib.contextmanager
def served(
    lan: Lan, machines: Sequence[VmDefinition] = (), *, programs: dict[str, bytes] | None = None
) -> Iterator[Server]:
    """Run dnsmasq at one end of a network of two; at the other one, :data:`CLIENT`, are addresses for asking it."""
    with make_namespaces("lan", "cli") as (here, there):
        cable(here, SERVER, there, CLIENT)
        # The last address but one is in the pool of no network that has room for a stranger's test.
        ip(there, "address", "add", f"{lan.network[-2]}/{lan.network.prefixlen}", "dev", CLIENT)
        with serving(lan, machines, here, there, programs=programs) as server:
            yield server


@contextlib.contextmanager
def serving(
    lan: Lan,
    machines: Sequence[VmDefinition],
    here: str,
    there: str,
    *,
    programs: dict[str, bytes] | None = None,
) -> Iterator[Server]:
    """Run dnsmasq on :data:`SERVER` of the namespace *here*, for clients in *there*."""
    ip(here, "address", "add", lan.provisioner_interface, "dev", SERVER)
    if lan.provisioner_interface_ipv6:
        ip(here, "address", "add", lan.provisioner_interface_ipv6, "dev", SERVER)
        assert lan.ipv6_network is not None
        ip(there, "address", "add", f"{lan.ipv6_network[2**32 - 1]}/64", "dev", CLIENT)
    # Not below pytest's directory: every pytest that starts makes that 0700, and dnsmasq gives up root.
    with tempfile.TemporaryDirectory(prefix="pvmlab-dhcp-", dir=_MEMORY) as folder, contextlib.ExitStack() as undo:
        Path(folder).chmod(0o755)
        files = RunFiles(Path(folder) / "run")
        files.tftp.mkdir(parents=True)
        for name, data in (programs or {}).items():
            (files.tftp / name).write_bytes(data)
        write_hosts(files, lan, machines)
        files.dnsmasq_conf.write_text(
            services.render_dnsmasq(lan, files, arches=list(Arch), bios=True, resolv_file=Path("/dev/null"))
        )
        log = Path(folder) / "dnsmasq.log"
        sink = undo.enter_context(log.open("ab"))
        process = spawn(["ip", "netns", "exec", here, *services.dnsmasq_command(files)], stdout=sink, stderr=sink)
        undo.callback(end, process)
        client = Inside(there, threads=4)
        undo.callback(client.close)
        ready = "DHCP, proxy" if lan.dhcp is DhcpMode.PROXY else "DHCP, IP range"
        wait_for("dnsmasq serves", lambda: "read /" in log.read_text() and ready in log.read_text())
        yield Server(lan, files, here, there, client, log, process)


def address_at(lan: Lan, number: int) -> str:
    """Return the address *number* of the network."""
    return str(ipaddress.IPv4Address(int(lan.network[0]) + number))
