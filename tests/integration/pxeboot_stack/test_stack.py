"""All services of the container, started by its entry point, asked by a client on the other end of the network."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from pathlib import Path
from typing import Any, Protocol

import pytest

from contracts import document
from contracts.report import Outcome, Phase, Report
from contracts.tokens import RECORDS, record_name
from pipeline.run import Popen
from pxeboot_stack.boot_handler import scripts
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import RunFiles
from tests.fakes import wire
from tests.fakes.lab_files import make_machine, write_definition
from tests.fakes.web_client import wait_until_in_place

CARD, SERVER = "cli0", "192.168.100.1"
MACHINE = make_machine()
LATER = make_machine(
    name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid="00000000-0000-4000-8000-000000000002"
)
STRANGER = "52:54:00:99:99:99"
ENDING = 30.0  # seconds; less than two are usual, and a disk that is busy keeps who waits for it


class Stack(Protocol):
    """What the fixture gives."""

    process: Popen[bytes]
    settings: Settings
    files: RunFiles
    client: Any
    text: str

    def find_pid(self, service: str) -> int:
        """Return a service's process id."""

    def restart_after_crash(self) -> Stack:
        """Kill all of it, and start it with an empty run directory."""


@pytest.fixture
def lab(stack: Stack) -> Stack:
    """The services, with web1 defined while they run. dnsmasq reads reservations and names in one go."""
    write_definition(stack.settings.vms, MACHINE)
    wait_until("web1 is known", lambda: knows(stack, MACHINE.name, MACHINE.ip))
    return stack


def wait_until(what: str, condition: Any, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def lease(lab: Stack, mac: str, **more: Any) -> wire.Lease:
    got: wire.Lease | None = lab.client.call(wire.dhcp, CARD, mac, **more)
    assert got is not None, f"no lease for {mac}: {lab.text[-2000:]}"
    assert got.kind == wire.ACK
    return got


def test_a_machine_boots_from_the_network(lab: Stack) -> None:
    firmware = lease(lab, MACHINE.mac, arch=7, client_id=b"\0firmware")
    assert (firmware.address, firmware.next_server, firmware.bootfile) == (MACHINE.ip, SERVER, "ipxe-x86_64.efi")
    assert len(lab.client.call(wire.tftp, SERVER, firmware.bootfile)) == 1 << 20
    assert lab.client.call(wire.tftp, SERVER, "autoexec.ipxe").decode() == scripts.render_chain(f"http://{SERVER}")

    ipxe = lease(lab, MACHINE.mac, arch=7, user_class="iPXE", client_id=b"\0ipxe")
    assert (ipxe.address, ipxe.bootfile) == (MACHINE.ip, f"http://{SERVER}/boot.ipxe")
    assert "/ipxe?mac=${netX/mac}" in lab.client.ask("/boot.ipxe").text
    assert "web1 installs debian-12" in lab.client.ask(f"/ipxe?mac={MACHINE.mac}", source=MACHINE.ip).text

    system = lease(lab, MACHINE.mac)  # without a client-id
    assert system.address == MACHINE.ip
    assert system.options[3] == system.options[6] == bytes([192, 168, 100, 1])
    assert system.options[12] == b"web1"
    assert b"pvmlab" in system.options[119]


def test_firmware_gets_its_program_or_none(lab: Stack) -> None:
    for arch, bootfile in {7: "ipxe-x86_64.efi", 9: "ipxe-x86_64.efi", 11: "", 0: "", 6: ""}.items():
        assert lease(lab, STRANGER, arch=arch).bootfile == bootfile


def test_a_stranger_gets_an_address_of_the_pool_and_no_name(lab: Stack) -> None:
    stranger = lease(lab, STRANGER, name="provisioner2")
    assert int(stranger.address.rsplit(".", 1)[1]) >= 128
    assert lab.client.call(wire.dns, SERVER, "provisioner2.pvmlab.local") == []
    assert f"./pvmlab vm.adopt {STRANGER}" in lab.client.ask(f"/ipxe?mac={STRANGER}").text


def test_an_address_goes_to_the_machine_that_has_it_now(lab: Stack) -> None:
    assert lease(lab, MACHINE.mac).address == MACHINE.ip
    (lab.settings.vms / f"{MACHINE.name}.json").unlink()
    write_definition(lab.settings.vms, dataclasses.replace(LATER, ip=MACHINE.ip))
    wait_until("web2 is known", lambda: knows(lab, LATER.name, MACHINE.ip))
    wait_until("the old lease is gone", lambda: MACHINE.mac not in lab.files.leases.read_text())
    assert lease(lab, LATER.mac).address == MACHINE.ip
    assert lease(lab, MACHINE.mac).address not in (MACHINE.ip, LATER.ip)  # a stranger by now
    assert f"{MACHINE.mac} gives back {MACHINE.ip}" in lab.text


def test_names_are_known_before_any_lease(lab: Stack) -> None:
    for name, addresses in {"web1": [MACHINE.ip], "provisioner": [SERVER], "web9": []}.items():
        assert lab.client.call(wire.dns, SERVER, f"{name}.pvmlab.local") == addresses


def test_a_machine_defined_later_has_its_reservation_within_a_second_or_two(lab: Stack) -> None:
    before = lab.find_pid("dnsmasq")
    write_definition(lab.settings.vms, LATER)
    wait_until("web2 is known", lambda: knows(lab, LATER.name, LATER.ip), seconds=5)
    assert lease(lab, LATER.mac, arch=7).address == LATER.ip
    assert lab.find_pid("dnsmasq") == before  # read again, not restarted


def test_tftp_serves_its_root_only(lab: Stack) -> None:
    for name in ("../dnsmasq.conf", "/etc/passwd", "../../etc/passwd", "nothing"):
        with pytest.raises(OSError, match=r"."):
            lab.client.call(wire.tftp, SERVER, name)


@pytest.mark.parametrize("service", ["dnsmasq", "nginx", "boot_handler", "watcher"])
def test_a_service_that_is_killed_comes_back(lab: Stack, service: str) -> None:
    old = lab.find_pid(service)
    os.kill(old, signal.SIGKILL)
    wait_until(f"{service} is started again", lambda: lab.find_pid(service) != old)

    wait_until("HTTP answers again", lambda: healthy(lab))
    write_definition(lab.settings.vms, LATER)
    wait_until("web2 is known", lambda: knows(lab, LATER.name, LATER.ip))
    assert lease(lab, LATER.mac).address == LATER.ip


def test_an_install_goes_on_after_the_provisioner_has_crashed(lab: Stack) -> None:
    write_definition(lab.settings.vms, LATER)
    wait_until("web2 is known", lambda: knows(lab, LATER.name, LATER.ip))
    script = lab.client.ask(f"/ipxe?mac={MACHINE.mac}", source=MACHINE.ip).text
    token = re.findall(r"/m/([0-9a-f]{32})/", script)[0]
    assert lab.client.ask(f"/m/{token}/config", source=MACHINE.ip).status == 200
    # A boot that was under way beside it, and what a crash of the host may leave of a record.
    folder = lab.settings.status / RECORDS
    assert "/m/" in lab.client.ask(f"/ipxe?mac={LATER.mac}", source=LATER.ip).text
    wait_until_in_place(lab.settings.status)
    (folder / record_name(LATER.uuid)).write_bytes(b"\0" * 100)

    lab = lab.restart_after_crash()
    for path in ("config", "cloud-init/user-data"):
        assert lab.client.ask(f"/m/{token}/{path}", source=MACHINE.ip).status == 200
        assert lab.client.ask(f"/m/{token}/{path}", source=LATER.ip).status == 403
    report = Report(phase=Phase.SYSTEM, outcome=Outcome.RUNNING, percent=40, message="unpacking")
    for source, status in ((LATER.ip, 403), (MACHINE.ip, 200)):
        body = document.dumps(report).encode()
        answer = lab.client.ask(f"/m/{token}/report", method="POST", body=body, source=source)
        assert answer.status == status
    wait_until_in_place(lab.settings.status)
    assert "unpacking" in (lab.settings.status / "web1.json").read_text()
    assert f"the token in {record_name(LATER.uuid)} cannot be read; its machine has to boot again" in lab.text
    assert "/m/" in lab.client.ask(f"/ipxe?mac={LATER.mac}", source=LATER.ip).text


def healthy(lab: Stack) -> bool:
    """Tell whether HTTP works; while it does not, nginx must say so or be away."""
    try:
        answer = lab.client.ask("/healthz")
    except OSError:
        return False
    assert answer.status == 200 or (answer.status == 502 and "does not answer" in answer.text)
    return bool(answer.status == 200)


def knows(lab: Stack, name: str, address: str) -> bool:
    """Tell whether dnsmasq runs and has read the definition of *name*."""
    try:
        return bool(lab.client.call(wire.dns, SERVER, f"{name}.pvmlab.local") == [address])
    except OSError:
        return False


def test_sigterm_ends_all_of_it(lab: Stack) -> None:
    pids = [lab.find_pid(name) for name in ("dnsmasq", "nginx", "boot_handler", "watcher")]
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait(timeout=ENDING) == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    with pytest.raises(OSError, match="refused"):
        lab.client.ask("/healthz")
