"""The life of the services in host mode: what ends them, what is told of it, what stays behind (nothing)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pwd
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.names import PROVISIONER_NAME
from lab import host_mode_door, processes, provisioner, ssh
from lab.host_services import HostServices
from lab.keys import make_key
from lab.lab import Lab
from lab.machine import MachineState, StopOutcome
from lab.network import SwitchNetwork
from lab.provisioner import ProvisionerState
from lab.provisioner_record import ProvisionerMode
from lab.wait import Deadline
from pipeline.errors import ConflictError, PrerequisiteError, PvmlabError
from pipeline.run import run, spawn
from pipeline.sidecar import publish_sidecar
from tests.e2e.command_line import qemu_processes
from tests.e2e.test_ordinary_user import OrdinaryUser, user  # noqa: F401 (a fixture)
from tests.fakes.frames import FrameMachine
from tests.fakes.lab_files import make_machine, write_definition
from tests.fakes.web_client import end, wait_for
from tests.integration.host_mode.conftest import NO_ACCELERATOR, HostStack, services_of, start_services

MACHINE = make_machine()
SERVER = "192.168.100.1"


@pytest.fixture
def services(host_lab: Lab) -> HostServices:
    """The services, ready."""
    start_services(host_lab)
    return services_of(host_lab)


@contextlib.contextmanager
def plugged_in(switch: Path, mac: str = MACHINE.mac) -> Iterator[FrameMachine]:
    machine = FrameMachine(switch, mac)
    try:
        yield machine
    finally:
        machine.close()


def left_of(lab: Lab) -> dict[int, str]:
    """Return what runs of *lab* besides the switch, by process id."""
    found = qemu_processes(lab.home.root)
    return {pid: " ".join(words) for pid, words in found.items() if "lab.switch" not in words}


def test_a_machine_on_the_switch_gets_its_reservation(host_lab: Lab, services: HostServices) -> None:
    write_definition(host_lab.home.vms, MACHINE)
    wait_for("the definition is read", lambda: "reservations written for 1 " in services.logs.serial.read_text())
    with plugged_in(SwitchNetwork(host_lab.home.run).ensure_started()) as machine:
        wait_for("the reservation is known", lambda: machine.discover(within=5).address == MACHINE.ip)
        offer = machine.discover(within=5)
    assert (offer.address, offer.next_server, offer.bootfile) == (MACHINE.ip, SERVER, "ipxe-x86_64.efi")


def test_stop_leaves_nothing_and_the_next_start_works(host_lab: Lab, services: HostServices) -> None:
    assert services.state() is MachineState.RUNNING
    with pytest.raises(ConflictError, match="already running"):
        provisioner.start(host_lab, NO_ACCELERATOR)
    assert provisioner.stop(host_lab) is StopOutcome.TERMINATED
    assert (services.state(), left_of(host_lab)) == (MachineState.OFF, {})
    assert not services.qmp_socket.exists()
    assert list(Path("/mnt").glob("host")) == []  # what was mounted was seen in there only
    assert provisioner.stop(host_lab) is StopOutcome.ALREADY_OFF
    start_services(host_lab)


def victims(lab: Lab) -> dict[str, int]:
    """Return the process ids of the parts that all others depend on."""
    record, inner = processes.find_record(lab.home.run / "provisioner.json"), services_of(lab).require_inner_pid()
    assert record is not None
    assert record.pid is not None
    children = (Path(f"/proc/{inner}/task/{inner}/children")).read_text().split()
    return {"unshare": record.pid, "first process": inner, "supervisor": int(children[0])}


@pytest.mark.parametrize("part", ["unshare", "first process", "supervisor"])
def test_a_killed_part_takes_all_with_it_and_that_is_told(host_lab: Lab, services: HostServices, part: str) -> None:
    os.kill(victims(host_lab)[part], signal.SIGKILL)
    wait_for("all has ended", lambda: services.state() is MachineState.CRASHED)
    wait_for("nothing is left", lambda: left_of(host_lab) == {})
    with pytest.raises(ConflictError, match="the provisioner is off"):
        services.enter_arguments(None)
    if part == "supervisor":
        said = provisioner.find_announcement(host_lab)
        assert said is not None
        assert (said.state, said.message) == (ProvisionerState.FAILED, "the services ended: signal 9")
    start_services(host_lab)
    assert services.state() is MachineState.RUNNING


def test_services_outlive_the_switch(host_lab: Lab, services: HostServices) -> None:
    record = processes.find_record(host_lab.home.run / "_switch.json")
    assert record is not None
    processes.send_signal(record, signal.SIGKILL)
    assert processes.wait_for_end(record, timeout=5)
    with plugged_in(SwitchNetwork(host_lab.home.run).ensure_started()) as machine:
        machine.discover(within=5)
    assert services.state() is MachineState.RUNNING


def put_first(monkeypatch: pytest.MonkeyPatch, program: Path, script: str) -> None:
    """Have *program*, which does what *script* says, be found before the real one."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def test_a_service_that_cannot_start_is_told(host_lab: Lab) -> None:
    (host_lab.home.config / "lab.json").write_text("no JSON")
    with pytest.raises(ConflictError, match="network settings"):
        provisioner.start(host_lab, NO_ACCELERATOR)
    assert left_of(host_lab) == {}


def test_a_start_that_fails_says_why(host_lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ip").write_text(
        "#!/bin/sh\n[ $1 = link ] && exit 0\necho 'RTNETLINK answers: no such luck' >&2\nexit 2\n"
    )
    (tmp_path / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(PvmlabError, match="ended while they started") as caught:
        provisioner.start(host_lab, NO_ACCELERATOR)
    assert "host mode cannot start: ip failed with exit status 2" in caught.value.details
    assert "no such luck" in caught.value.details
    assert (host_lab.provisioner.state(), left_of(host_lab)) == (MachineState.OFF, {})


@pytest.mark.nightly  # eight seconds of pauses between the starts
def test_services_that_flap_are_told(host_lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_first(monkeypatch, tmp_path / "nginx", "exit 3")
    provisioner.start(host_lab, NO_ACCELERATOR)
    with pytest.raises(provisioner.ProvisionerError, match=r"services failed|ended while it booted"):
        provisioner.wait_until(host_lab, ProvisionerState.READY, deadline=Deadline(60))
    wait_for("it has ended", lambda: host_lab.provisioner.state() is MachineState.CRASHED)
    assert "nginx ended" in host_lab.provisioner.logs.serial.read_text()
    said = provisioner.find_announcement(host_lab)
    assert said is not None
    assert (said.state, said.message) == (ProvisionerState.FAILED, "the services ended: exit status 1")


def test_without_namespaces_the_way_out_is_told(host_lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "unshare").write_text(
        "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n"
    )
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PrerequisiteError, match="cannot make a network") as caught:
        provisioner.start(host_lab, NO_ACCELERATOR)
    assert "Operation not permitted" in caught.value.details
    assert "kernel.apparmor_restrict_unprivileged_userns" in caught.value.details
    assert "--mode=vm" in caught.value.resolution


def test_the_door_gives_connections_into_the_network(services: HostServices) -> None:
    with host_mode_door.connect(services.qmp_socket, SERVER, 80) as web:
        web.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert web.makefile("rb").readline().split()[1] == b"200"
    with pytest.raises(OSError, match=r"192\.168\.100\.1 9: .*refused"):
        host_mode_door.connect(services.qmp_socket, SERVER, 9)
    with pytest.raises(OSError, match="does not understand"):
        host_mode_door.ask(services.qmp_socket, "open sesame", timeout=5)
    with pytest.raises(OSError, match="no connection to"):
        host_mode_door.connect(services.qmp_socket, SERVER, 99999)
    assert services.qmp_socket.stat().st_mode & 0o777 == 0o600


def test_a_shell_where_the_services_are(host_lab: Lab, services: HostServices) -> None:
    words = ["sh", "-c", "ip -br address show lan0; cat /mnt/host/config/lab.json"]
    said = ssh.run_on(host_lab, PROVISIONER_NAME, words, timeout=20).stdout
    assert "192.168.100.1/24" in said
    assert '"subnet": "192.168.100.0/24"' in said
    assert ssh.run_on(host_lab, PROVISIONER_NAME, ["sh", "-c", "exit 7"], timeout=20, check=False).returncode == 7


def test_services_have_the_capabilities_of_the_container(host_lab: Lab, services: HostServices) -> None:
    script = "grep -h -e CapBnd -e NoNewPrivs /proc/$(pgrep -o -f pxeboot_stack)/status"
    assert ssh.run_on(host_lab, PROVISIONER_NAME, ["sh", "-c", script], timeout=20).stdout.split() == [
        "CapBnd:", f"{sum(1 << number for number in (0, 1, 5, 6, 7, 10, 12, 13)):016x}", "NoNewPrivs:", "1",
    ]  # fmt: skip


def test_shares_are_read_only_where_they_are_to_be(host_lab: Lab, services: HostServices) -> None:
    def writes(name: str) -> bool:
        probe = ["touch", f"/mnt/host/{name}/probe"]
        return ssh.run_on(host_lab, PROVISIONER_NAME, probe, timeout=20, check=False).returncode == 0

    names = ("images", "initrds", "vms", "config", "templates", "status")
    assert {name: writes(name) for name in names} == {**dict.fromkeys(names[:-1], False), "status": True}


def test_ssh_goes_in_by_the_door(stack: HostStack, tmp_path: Path) -> None:
    lab, key = stack.lab, make_key("web1", scratch=stack.lab.home.ssh)
    write_definition(
        lab.home.vms, dataclasses.replace(MACHINE, user=pwd.getpwuid(os.getuid()).pw_name, ssh_host_key=key)
    )
    ssh.write_files(lab, provisioner.find_access(lab))
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o700)
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text(key.private)
    (folder / "authorized_keys").write_text(ssh.lab_key(lab).read_public() + "\n")
    (folder / "config").write_text(
        f"ListenAddress {MACHINE.ip}:22\nHostKey {folder}/key\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
    )
    server = stack.client.call(spawn, ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "config"])
    try:
        wait_for("sshd answers", lambda: reaches(stack, 22))
        assert ssh.run_on(lab, "web1", ["printf", "%s|", "a b", "$c"], timeout=30).stdout == "a b|$c|"
        provisioner.stop(lab)
        done = ssh.run_on(lab, "web1", ["true"], timeout=30, check=False)
        assert "the private network is out of reach" in done.stderr
    finally:
        end(server)


def reaches(stack: HostStack, port: int) -> bool:
    with contextlib.closing(host_mode_door.connect(services_of(stack.lab).qmp_socket, MACHINE.ip, port)):
        return True


def test_a_target_is_told_at_once_that_there_is_no_way_out(stack: HostStack) -> None:
    def ask() -> float:
        begun = time.monotonic()
        with pytest.raises(OSError, match=r"unreachable|No route"):
            socket.create_connection(("203.0.113.1", 80), timeout=15)
        return time.monotonic() - begun

    name = ["ip", "route", "add", "default", "via", SERVER]
    stack.client.call(run, name, timeout=10)
    assert stack.client.call(ask) < 10  # a packet that is lost costs 15


def test_frames_of_every_size_come_through_in_both_directions(stack: HostStack) -> None:
    image = stack.settings.images / "debian-12" / "x86_64" / "large"
    image.write_bytes(os.urandom(1 << 20) * 16)
    body = stack.client.call(fetch, "/images/debian-12/x86_64/large")
    assert body == image.read_bytes()


def fetch(path: str) -> bytes:
    with socket.create_connection((SERVER, 80), timeout=20) as web:
        web.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: web.recv(1 << 16), b"")).partition(b"\r\n\r\n")[2]


def test_the_mode_is_changed_while_the_provisioner_is_off(host_lab: Lab, services: HostServices) -> None:
    assert host_lab.provisioner_mode is ProvisionerMode.HOST
    (host_lab.cache.provisioner(provisioner.ARCH, "disk.qcow2")).parent.mkdir(parents=True)
    disk = host_lab.cache.provisioner(provisioner.ARCH, "disk.qcow2")
    disk.write_bytes(b"")
    publish_sidecar(disk, {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0, "inputs": {}})
    with pytest.raises(ConflictError, match="other mode, host"):
        provisioner.create(host_lab, ProvisionerMode.VM)
    services.kill()
    assert provisioner.create(host_lab, ProvisionerMode.VM)
    assert not isinstance(host_lab.provisioner, HostServices)
    assert provisioner.create(host_lab, ProvisionerMode.HOST)


_AS_USER = """
import os, sys
os.environ["PVMLAB_CACHE"] = sys.argv[2]
from lab import provisioner
from lab.lab import Lab
from lab.provisioner import ProvisionerState
from lab.provisioner_record import ProvisionerMode
from lab.wait import Deadline
from lab.wait import Deadline
lab = Lab.from_environment()
if sys.argv[1] == "start":
    provisioner.create(lab, ProvisionerMode.HOST)
    provisioner.start(lab, None)
    provisioner.wait_until(lab, ProvisionerState.READY, deadline=Deadline(30))
    print(lab.network.ensure_started(), lab.provisioner.require_inner_pid())
elif sys.argv[1] == "state":
    print(lab.provisioner.state())
else:
    print(provisioner.stop(lab))
    lab.network.stop()
"""


def test_an_ordinary_user_needs_no_privileges(user: OrdinaryUser) -> None:  # noqa: F811
    home, cache = user.folder / "home", user.folder / "cache"
    try:
        switch, inner = user.python("-c", _AS_USER, "start", cache, timeout=60).stdout.split()
        with plugged_in(Path(switch)) as machine:
            assert machine.discover(within=10).next_server == SERVER
        mine = user.folder.stat().st_uid
        owners = {folder.stat().st_uid for folder in Path("/proc").glob("[0-9]*") if of_namespace(folder, inner)}
        assert owners <= {mine, 0}  # those that the kernel lets nobody look into are shown as root's
        assert {uid_of(folder) for folder in Path("/proc").glob("[0-9]*") if of_namespace(folder, inner)} == {mine}
        os.kill(parent_of(int(inner)), signal.SIGKILL)
        wait_for("all of it has ended", lambda: not Path(f"/proc/{inner}/ns/net").exists())
        assert user.python("-c", _AS_USER, "state", cache, timeout=60).stdout == "crashed\n"
        user.python("-c", _AS_USER, "start", cache, timeout=60)
        assert "ended by SIGTERM" in user.python("-c", _AS_USER, "stop", cache, timeout=60).stdout
    finally:
        user.python("-c", _AS_USER, "stop", cache, timeout=60, check=False)
    assert qemu_processes(home) == {}


def parent_of(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("PPid:"))
    return int(line.split()[1])


def of_namespace(folder: Path, first: str) -> bool:
    with contextlib.suppress(OSError):
        return (folder / "ns/net").readlink() == Path(f"/proc/{first}/ns/net").readlink()
    return False


def uid_of(folder: Path) -> int:
    line = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("Uid:"))
    return int(line.split()[1])
