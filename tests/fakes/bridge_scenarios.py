"""What is tried with bridges and taps: ``python -m tests.fakes.bridge_scenarios NAME DIR``.

Each is in a network of its own: the test starts it under ``unshare``, so the interfaces of the machine that the tests
run on are never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import socket
import struct
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.lan import Lan
from contracts.machine import DiskBus
from lab import bridge
from lab.accelerator import choose_accelerator
from lab.bridge import BridgeNetwork
from lab.disks import create_empty_disk
from lab.lab import Lab
from lab.machine import Machine
from lab.network import NetworkKind
from lab.network_settings import NetworkSettings, find_overlaps, write_settings
from lab.network_view import stray_interfaces
from lab.spec import Bios, Disk, LanCard, MachineSpec
from pipeline.errors import PrerequisiteError
from pipeline.run import run, spawn
from pipeline.workspace import Cache, Home, Workspace

BROADCAST = b"\xff" * 6
ONE, TWO = b"\x52\x54\x00\x00\x00\x01", b"\x52\x54\x00\x00\x00\x02"
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_NOBODY = 65534


def lab_on_a_bridge(folder: Path, *, host_address: str = "", taps: int = 2) -> tuple[Lab, BridgeNetwork]:
    lab = Lab(Workspace(Cache(folder / "cache"), Home(folder / "home")))
    lab.ensure_folders()
    settings = NetworkSettings(kind=NetworkKind.BRIDGE, host_address=host_address, taps=taps)
    write_settings(lab.home, settings, Lan(subnet="192.168.77.0/24"))
    network = lab.network
    assert isinstance(network, BridgeNetwork)
    return lab, network


def links() -> str:
    """What there is on this host: interfaces, addresses, routes."""
    return "".join(run(["ip", *words], timeout=5).stdout for words in (["-br", "link"], ["-br", "address"], ["route"]))


@contextlib.contextmanager
def opened_tap(name: str) -> Iterator[int]:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
        yield descriptor
    finally:
        os.close(descriptor)


def heard(descriptor: int, wanted: bytes, *, seconds: float) -> bool:
    """Tell whether a frame with *wanted* in it comes out of the tap."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0] and wanted in os.read(descriptor, 65536):
            return True
    return False


def taps_are_kept(folder: Path) -> None:
    """Made at the first machine, the same ones at its next start, gone without a trace after the last (threat N3)."""
    before = links()
    lab, network = lab_on_a_bridge(folder)
    for name in ("web1", "web2"):
        (lab.home.vms / f"{name}.json").write_text("{}")
    one, two = network.attach("web1", 2), network.attach("web2", 1)
    assert len({*one.names, *two.names}) == 3
    assert network.attach("web1", 2) == one
    assert network.attach("web1", 1).names == one.names[:1]
    assert network.is_running()
    assert [port.machine for port in network.ports()] == ["web1", "web2"]
    (lab.home.vms / "web1.json").unlink()
    assert network.attach("web3", 1).names == one.names[:1], "a machine that is gone gives its tap back"
    network.stop()
    network.stop()
    assert not network.is_running()
    assert links() == before


def many_at_once(folder: Path) -> None:
    """Eight commands that start a machine each: every one gets a tap of its own, and nothing is made twice."""
    lab, network = lab_on_a_bridge(folder)
    names = [f"web{number}" for number in range(8)]
    for name in names:
        (lab.home.vms / f"{name}.json").write_text("{}")
    with ThreadPoolExecutor(8) as threads:
        taps = list(threads.map(lambda name: network.attach(name, 1), names))
    assert len({tap for each in taps for tap in each.names}) == 8
    assert len(network.ports()) == 8
    network.stop()
    assert not network.is_running()


def a_tap_in_use_is_nobody_elses(folder: Path) -> None:
    _, network = lab_on_a_bridge(folder)
    first = network.attach("web1", 1)
    with opened_tap(first.names[0]):
        assert network.attach("web2", 1) != first
    network.stop()


def frames(folder: Path) -> None:
    """Machines hear each other, soon: no spanning tree makes the first 30 seconds silent."""
    _, network = lab_on_a_bridge(folder)
    left, right = network.attach("web1", 2).names
    with opened_tap(left) as one, opened_tap(right) as two:
        begun = time.monotonic()
        while not heard(two, b"who is there", seconds=0.1):  # the kernel takes a moment to see that a port is up
            os.write(one, BROADCAST + ONE + b"\x88\xb5" + b"who is there".ljust(50))
            assert time.monotonic() - begun < 5
        os.write(two, ONE + TWO + b"\x88\xb5" + b"me".ljust(50))
        assert heard(one, b"me", seconds=3)
        ports = {port.name: port for port in network.ports()}
        assert ports[left].addresses == (ONE.hex(":"),)
        assert ports[left].connected
        assert ports[left].received % 64 == 0
        assert ports[left].received > 0
        assert network.leftovers() == []
    assert network.leftovers() == [left, right, network.plan.name], "as after a crash: nobody is at them"
    network.stop()


def the_host_stays_out(folder: Path) -> None:
    """No address, no answer, and no route by a machine's router advertisement (threat N4)."""
    run(["ip", "address", "add", "10.9.9.9/32", "dev", "lo"], timeout=5)
    _, network = lab_on_a_bridge(folder)
    (tap,) = network.attach("web1", 1).names
    before = addresses()
    with opened_tap(tap) as port:
        there = b"\x0a\x09\x09\x09"
        question = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, ONE, b"\x0a\x09\x09\x01", b"\0" * 6, there)
        for _ in range(15):
            os.write(port, router_advertisement())
            os.write(port, (BROADCAST + ONE + b"\x08\x06" + question).ljust(60, b"\0"))
            assert not heard(port, there + ONE, seconds=0.1), "the host answers for an address of another card"
        assert addresses() == before
        assert network.ports()[0].received > 1000, "the bridge was deaf, so this shows nothing"
    network.stop()


def addresses() -> str:
    """The host's addresses and routes."""
    words = (["-o", "address"], ["-4", "route", "show", "table", "all"], ["-6", "route", "show", "table", "all"])
    return "".join(run(["ip", *each], timeout=5).stdout for each in words)


def router_advertisement() -> bytes:
    """A router that gives out 2001:db8:: (RFC 4861, section 4.2)."""
    source, target = socket.inet_pton(socket.AF_INET6, "fe80::1"), socket.inet_pton(socket.AF_INET6, "ff02::1")
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8::")
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
    pseudo = source + target + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + target
    return b"\x33\x33\0\0\0\x01" + ONE + b"\x86\xdd" + header + body


def host_address(folder: Path) -> None:
    _, network = lab_on_a_bridge(folder, host_address="192.168.77.5")
    network.attach("web1", 1)
    assert "192.168.77.5/24" in run(["ip", "-br", "address", "show", network.plan.name], timeout=5).stdout
    network.stop()


def after_a_crash(folder: Path) -> None:
    """What a lab left that is gone is found and told by another one; so is what this one left."""
    lab, network = lab_on_a_bridge(folder / "gone")
    names = {*network.attach("web1", 1).names, network.plan.name}
    other, _ = lab_on_a_bridge(folder / "other")
    assert stray_interfaces(other) == [], "the other lab is there"
    assert set(bridge.ours(lab.home.root)) == names
    lab.home.root.rename(folder / "moved")
    assert set(stray_interfaces(other)) == names
    (folder / "moved").rename(lab.home.root)
    write_settings(lab.home, NetworkSettings(), lab.lan)
    assert set(stray_interfaces(lab)) == names, "the lab is on a switch now"


def ordinary_user(folder: Path) -> None:
    """He is told the commands; run as root they give him what he needs; nothing of it is his to remove."""
    folder.chmod(0o755)
    lab, network = lab_on_a_bridge(folder)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY)
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    told = _told(network.require_usable)
    assert _told(lambda: network.attach("web1", 1)) == told, "after a reboot, a start has him ask for all of it at once"
    _as_root(told)
    network.require_usable()
    (tap,) = network.attach("web1", 1).names
    with opened_tap(tap):
        assert network.ports()[0].connected
    network.stop()
    assert network.is_running(), "what root made for him stays"
    with pytest.raises(PrerequisiteError, match="needs root") as refused:
        network.remove()
    assert f"sudo ip link delete dev {network.plan.name}" in refused.value.resolution
    assert lab.network.is_running()


def _told(use: Callable[[], object]) -> list[str]:
    """Return the commands that an ordinary user is told when *use* needs root."""
    with pytest.raises(PrerequisiteError, match="needs root, once") as refused:
        use()
    lines = refused.value.details.splitlines()[1:]
    assert all(line.startswith("sudo ") for line in lines)
    return [line.removeprefix("sudo ") for line in lines]


def _as_root(commands: list[str]) -> None:
    os.seteuid(0)
    for command in commands:
        run(["sh", "-c", command], timeout=5)
    os.seteuid(_NOBODY)


def ordinary_users_address(folder: Path) -> None:
    """The host's address on a bridge that root made is the one that was asked for, also when that changes."""
    folder.chmod(0o755)
    for address in ("192.168.77.5", "192.168.77.6", ""):
        lab, network = lab_on_a_bridge(folder, host_address=address)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY)
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
        _as_root(_told(network.require_usable))
        network.require_usable()
        shown = run(["ip", "-br", "-4", "address", "show", "dev", network.plan.name], timeout=5).stdout
        assert shown.split()[2:] == ([f"{address}/24"] if address else [])
        overlaps = find_overlaps(lab.lan, besides=bridge.ours(lab.home.root))
        assert overlaps == [], "the lab's own bridge is in nobody's way"
        assert not address or find_overlaps(lab.lan) != []
        os.seteuid(0)
        os.setegid(0)


def labs_of_others(folder: Path) -> None:
    """Whether another user's lab is gone may not be for us to see; who is plugged in keeps his tap."""
    folder.chmod(0o755)
    closed, gone = folder / "closed", folder / "gone"
    for home in (closed / "home", gone / "home"):
        _, network = lab_on_a_bridge(home.parent)
        network.attach("web1", 1)
    closed.chmod(0o700)
    taps = [name for name in bridge.ours() if bridge.home_of(name) == gone / "home"]
    assert len(taps) == 2
    shutil.rmtree(gone)
    lab = Lab(Workspace(Cache(folder / "cache"), Home(folder / "mine")))
    os.seteuid(_NOBODY)
    assert stray_interfaces(lab) == taps
    assert bridge.how_to_remove(taps) == f"to remove them: {' && '.join(f'sudo ip link delete dev {t}' for t in taps)}"
    os.seteuid(0)
    assert bridge.how_to_remove(taps) == "./pvmlab gc removes them"
    with opened_tap(taps[-1]):
        assert stray_interfaces(lab) == []


def two_machines(folder: Path) -> None:
    """Two QEMUs whose cards boot by iPXE in their ROMs: each gets its address from a server on the bridge."""
    before = links()
    lab, network = lab_on_a_bridge(folder, host_address="192.168.77.5")
    specs = [_bios_spec(lab, network, name, number) for number, name in enumerate(("web1", "web2"), 1)]
    leases = folder / "leases"
    server = spawn(
        ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", f"--interface={network.plan.name}",
         "--bind-dynamic", "--dhcp-range=192.168.77.10,192.168.77.20,1h", f"--dhcp-leasefile={leases}", "--user=root",
         "--dhcp-authoritative"],
        stdout=2, stderr=2,
    )  # fmt: skip
    machines = [(Machine(spec.name, home=lab.home), spec) for spec in specs]
    try:
        for machine, spec in machines:
            machine.start(spec)
        deadline = time.monotonic() + 60
        macs = {spec.lan.mac for spec in specs}
        while not macs <= set(leases.read_text().split() if leases.exists() else ()):
            assert time.monotonic() < deadline, "no lease for both within 60 s"
            time.sleep(0.2)
        ports = {port.machine: port for port in network.ports()}
        for spec in specs:
            assert ports[spec.name].addresses == (spec.lan.mac,)
            assert ports[spec.name].received > 300, "it asked"
            assert ports[spec.name].sent > 300, "it was answered"
            assert ports[spec.name].dropped == 0
    finally:
        for machine, _ in machines:
            machine.kill()
        server.terminate()
        server.wait(10)
    network.stop()
    assert links() == before


def _bios_spec(lab: Lab, network: BridgeNetwork, name: str, number: int) -> MachineSpec:
    (lab.home.vms / f"{name}.json").write_text("{}")
    machine = Machine(name, home=lab.home)
    disk = lab.home.disks / f"{name}.qcow2"
    create_empty_disk(disk, 1)
    return MachineSpec(
        name=name, uuid=str(uuid.uuid4()), arch=Arch.X86_64, cpus=1, memory_mib=64,
        accelerator=choose_accelerator(Arch.X86_64, state=lab.home.run), boot=Bios(),
        disks=(Disk(disk, DiskBus.VIRTIO, boot_index=1),),
        lan=LanCard(mac=f"52:54:00:00:00:{number:02x}", boot_index=0),
        lan_socket=network.attach(name, 1), serial_log=machine.logs.serial, qmp_socket=machine.qmp_socket,
    )  # fmt: skip


SCENARIOS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (taps_are_kept, many_at_once, a_tap_in_use_is_nobody_elses, frames, the_host_stays_out,
                     host_address, after_a_crash, ordinary_user, ordinary_users_address, labs_of_others, two_machines)
}  # fmt: skip


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
