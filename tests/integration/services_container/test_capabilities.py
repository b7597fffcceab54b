"""Of the capabilities that the container is granted, each is needed: without it, something fails and says so."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

import pytest

from contracts import document
from contracts.lan import Lan
from pipeline.run import run
from pxeboot_stack import container
from tests.fakes import wire
from tests.fakes.lab_files import make_machine, write_definition
from tests.fakes.namespaces import CLIENT
from tests.integration.services_container.conftest import MACHINE, Host

pytestmark = [pytest.mark.artifacts, pytest.mark.nightly]

SAYS = {
    "NET_BIND_SERVICE": "bind() to 192.168.100.1:80 failed (13: Permission denied)",
    "NET_ADMIN": "dnsmasq: process is missing required capability NET_ADMIN",
    "NET_RAW": "dnsmasq: cannot create ICMPv6 socket: Operation not permitted",
    "SETUID": "setuid(33) failed (1: Operation not permitted)",
    "SETGID": "setgid(33) failed (1: Operation not permitted)",
    "CHOWN": 'nginx/body", 33) failed (1: Operation not permitted)',
    "KILL": "PermissionError: [Errno 1] Operation not permitted",
    "DAC_OVERRIDE": "Permission denied: '/mnt/host/status/",
}
LATER = make_machine(
    name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid="00000000-0000-4000-8000-000000000002"
)


@pytest.fixture
def ipv6_host(host: Host) -> Iterator[Host]:
    """The host, on a private network with IPv6."""
    before = host.shares.lab.read_text()
    host.shares.lab.write_text(document.dumps(Lan(ipv6_subnet="fd00:1:2:3::/64")))
    run(["ip", "-n", host.namespace, "address", "replace", "fd00:1:2:3::1/64", "dev", "lan0", "nodad"], timeout=10)
    yield host
    host.remove()
    host.shares.lab.write_text(before)


def start(host: Host, *, without: str | None) -> None:
    host.run([word for word in container.docker_run_arguments() if word not in {"--rm", f"--cap-add={without}"}])


def test_every_capability_has_its_line_here() -> None:
    assert set(SAYS) == set(container.CAPABILITIES)


@pytest.mark.parametrize("name", container.CAPABILITIES)
def test_without_it_something_fails(ipv6_host: Host, name: str) -> None:
    start(ipv6_host, without=name)
    if name == "KILL":  # needed when something changes, and at the end
        ipv6_host.wait("the services answer", ipv6_host.answers)
        write_definition(ipv6_host.shares.vms, LATER)
        time.sleep(2)  # twice what a change may take
        assert ipv6_host.client.call(wire.dns, "192.168.100.1", "web2.pvmlab.local") == []
        ipv6_host.engine.docker(["stop", container.NAME])
    ipv6_host.wait(f"a word about {name}", lambda: SAYS[name] in ipv6_host.logs(), seconds=30)


def test_with_all_of_them_nothing_does(ipv6_host: Host) -> None:
    start(ipv6_host, without=None)
    ipv6_host.wait("DHCP answers", functools.partial(ipv6_host.client.call, wire.dhcp, CLIENT, MACHINE.mac))
    ipv6_host.wait("the services answer", ipv6_host.answers)
    said = ipv6_host.logs()
    assert not [text for text in SAYS.values() if text in said]
