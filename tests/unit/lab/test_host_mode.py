from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import document
from contracts.lan import DhcpMode, Lan
from lab import (
    host_mode,
    host_mode_door,
    host_mode_inside,
    host_mode_relay,
    host_mode_uplink,
    provisioner,
    provisioner_record,
)
from lab.host_mode_inside import Bind, Inside, choose_root, network_commands
from lab.host_mode_relay import Relay
from lab.host_services import HostServices, connect_command
from lab.lab import Lab
from lab.machine import MachineState, StopOutcome
from lab.network import NetworkKind
from lab.network_settings import NetworkSettings, write_settings
from lab.processes import ProcessRecord, write_record
from lab.provisioner_record import ProvisionerMode, ProvisionerRecord
from lab.ssh_config import ForwardedAccess, render_config, render_known_hosts
from pipeline.errors import ConflictError, PrerequisiteError, UsageError
from pipeline.workspace import REPOSITORY, Cache, Home
from pxeboot_stack import container

MAC = "52:54:00:00:00:01"


@pytest.mark.parametrize(
    ("user", "words"), [(0, []), (1000, ["--user", "--map-current-user", "--keep-caps"])], ids=["root", "a user"]
)
def test_only_users_need_a_user_namespace(user: int, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert host_mode.unshare_arguments() == [
        "unshare", *words, "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--",
    ]  # fmt: skip


def test_the_network_without_ipv6() -> None:
    assert network_commands(Lan(), MAC) == (
        "link set lo up\n"
        "link add lan0 address 52:54:00:00:00:01 type veth peer name relay0\n"
        "link set relay0 addrgenmode none up\n"
        "link set lan0 addrgenmode none up\n"
        "address add 192.168.100.1/24 dev lan0\n"
        "route add unreachable default\n"
    )


def test_the_network_with_ipv6() -> None:
    assert network_commands(Lan(subnet="10.1.0.0/16", ipv6_subnet="fd00:1::/64"), MAC) == (
        "link set lo up\n"
        "link add lan0 address 52:54:00:00:00:01 type veth peer name relay0\n"
        "link set relay0 addrgenmode none up\n"
        "link set lan0 addrgenmode eui64 up\n"
        "address add 10.1.0.1/16 dev lan0\n"
        "route add unreachable default\n"
        "address add fd00:1::1/64 dev lan0 nodad\n"
        "route add unreachable ::/0\n"
    )


def test_the_network_that_an_interface_is_joined_with() -> None:
    assert network_commands(Lan(), MAC, bridged=True) == (
        "link set lo up\n"
        "link add lan0 address 52:54:00:00:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
        "link add port0 type veth peer name relay0\n"
        "link set port0 addrgenmode none master lan0 up\n"
        "link set relay0 addrgenmode none up\n"
        "link set lan0 addrgenmode none up\n"
        "address add 192.168.100.1/24 dev lan0\n"
        "route add unreachable default\n"
    )


@pytest.mark.parametrize("mode", [None, ProvisionerMode.VM])
def test_an_interface_is_for_host_mode(lab: Lab, mode: ProvisionerMode | None) -> None:
    with pytest.raises(ConflictError, match="--interface=br0 is for host mode") as caught:
        provisioner.plan_record(lab, mode, "br0", dhcp=DhcpMode.PROXY)
    assert "--mode=host" in caught.value.resolution
    assert provisioner.plan_record(lab, mode, host_mode_uplink.NO_INTERFACE).interface == ""


def test_host_mode_is_not_on_a_bridge(lab: Lab) -> None:
    write_settings(lab.home, NetworkSettings(kind=NetworkKind.BRIDGE), Lan())
    with pytest.raises(ConflictError, match="this lab's network is a bridge") as caught:
        provisioner.plan_record(lab, ProvisionerMode.HOST, "")
    assert "./pvmlab net.create --kind switch" in caught.value.resolution
    assert provisioner.plan_record(lab, None, "").mode is ProvisionerMode.VM


def test_nobody_gets_a_second_dhcp_server_by_accident(lab: Lab) -> None:
    with pytest.raises(UsageError, match="who gives out the addresses") as caught:
        provisioner.plan_record(lab, ProvisionerMode.HOST, "br0")
    assert "--dhcp=proxy beside another server; --dhcp=server where there is none" in caught.value.resolution


def test_the_other_mode_forgets_the_interface(lab: Lab) -> None:
    record = ProvisionerRecord(uuid="u", mode=ProvisionerMode.HOST, interface="br0")
    provisioner_record.write_record(lab.home, record)
    assert provisioner.plan_record(lab, None, "") == record
    assert provisioner.plan_record(lab, ProvisionerMode.VM, "").interface == ""
    assert "joined with br0" in provisioner.describe_start(lab, None)  # type: ignore[arg-type]


def test_only_the_status_can_be_written_in_there() -> None:
    binds = Inside(Path("/mnt")).binds(Home(Path("/home/me/.pvmlab")), Cache(Path("/cache")))
    assert [bind for bind in binds if bind.writable] == [
        Bind(Path("/home/me/.pvmlab/status"), Path("/mnt/host/status"), writable=True)
    ]
    assert {str(bind.source): str(bind.target) for bind in binds if not bind.writable} == {
        "/cache/images": "/mnt/host/images",
        "/cache/initrds": "/mnt/host/initrds",
        "/cache/ipxe": "/mnt/ipxe",
        "/home/me/.pvmlab/vms": "/mnt/host/vms",
        "/home/me/.pvmlab/config": "/mnt/host/config",
        "/home/me/.pvmlab/templates": "/mnt/host/templates",
    }


def test_shares_and_capabilities_are_those_of_the_container() -> None:
    binds = Inside(Path("/mnt")).binds(Home(Path("/home/me/.pvmlab")), Cache(Path("/cache")))
    shares = {bind.target.name: bind.writable for bind in binds if bind.target.parent.name == "host"}
    assert shares == container.SHARES
    assert set(host_mode_inside.CAPABILITIES) == {name.lower() for name in container.CAPABILITIES}


@pytest.mark.parametrize(("user", "inherited"), [(0, "-all"), (1000, "-all,+net_bind_service,+net_admin")])
def test_the_services_have_only_these_capabilities(user: int, inherited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(host_mode_inside, "CAPABILITIES", ("net_bind_service", "net_admin"))
    assert host_mode_inside.confined(["program", "word"]) == [
        "setpriv", "--no-new-privs", "--bounding-set=-all,+net_bind_service,+net_admin", f"--inh-caps={inherited}",
        "--", "program", "word",
    ]  # fmt: skip


def test_nothing_that_is_needed_is_covered(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    candidates = [str(tmp_path / "missing"), str(first), str(second)]
    assert choose_root([tmp_path / "else"], candidates) == first
    assert choose_root([first / "cache"], candidates) == second
    (tmp_path / "home").symlink_to(first)
    assert choose_root([tmp_path / "home" / "me"], candidates) == second
    with pytest.raises(PrerequisiteError, match="no folder"):
        choose_root([first / "cache", second], candidates)


def test_host_mode_is_for_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(PrerequisiteError, match="host mode needs Linux"):
        host_mode.require_host()


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_mode, "find_program", lambda name: None if name in {"nginx", "ip"} else name)
    with pytest.raises(PrerequisiteError, match="not installed: nginx, ip") as caught:
        host_mode.require_host()
    assert caught.value.resolution == (
        "./pvmlab setup --host-mode installs them; Debian's packages are iproute2 nginx-light"
    )


def test_missing_modules_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_mode, "find_program", lambda name: name)
    monkeypatch.setattr(host_mode, "_MODULES", ("no_such_module",))
    with pytest.raises(PrerequisiteError, match="modules that are missing: no_such_module"):
        host_mode.require_host()


def test_ssh_takes_its_connections_at_the_door(make_definition: Any) -> None:
    machine, access = make_definition("web1"), ForwardedAccess(("/a/100%/python", "-IS", "door.py", "/run/a b.door"))
    text = render_config(Path("/home/me/ssh"), access, [machine])
    assert text.split("\n\n")[1] == (
        "Host web1\n"
        "    HostKeyAlias web1\n"
        "    HostName 192.168.100.2\n"
        f"    User {machine.user}\n"
        "    ProxyCommand /a/100%%/python -IS door.py '/run/a b.door' %h %p\n"
        "    ProxyUseFdpass yes"
    )
    assert "Host provisioner" not in text
    assert render_known_hosts(access, [machine]).split() == ["web1", *machine.ssh_host_key.public.split()[:2]]


def test_the_proxy_command_needs_nothing_but_the_standard_library() -> None:
    words = connect_command(Path("/run/x.door"))
    assert words == (sys.executable, "-IS", host_mode_door.__file__, "/run/x.door")
    imported = [line for line in Path(words[2]).read_text().splitlines() if line.startswith(("import", "from"))]
    assert not [line for line in imported if line.split()[1].split(".")[0] not in sys.stdlib_module_names]


def test_a_record_of_before_is_of_the_usual_mode(lab: Lab) -> None:
    provisioner_record.record_path(lab.home).write_text('{"schema": 1, "uuid": "u"}')
    assert lab.provisioner_mode is ProvisionerMode.VM
    assert not isinstance(lab.provisioner, HostServices)


def test_the_mode_is_kept_and_decides_what_the_provisioner_is(lab: Lab) -> None:
    provisioner_record.write_record(lab.home, ProvisionerRecord(uuid="u", mode=ProvisionerMode.HOST))
    assert isinstance(lab.provisioner, HostServices)
    assert not isinstance(lab.machine("web1"), HostServices)
    assert isinstance(provisioner.find_access(lab), ForwardedAccess)
    assert lab.provisioner.logs.qemu == lab.provisioner.logs.serial
    assert not provisioner.is_outdated(lab)


def test_services_that_died_have_crashed_and_stop_clears_that(lab: Lab) -> None:
    services = HostServices(home=lab.home)
    assert services.state() is MachineState.OFF
    write_record(lab.home.run / "provisioner.json", ProcessRecord(token="t", pid=2**22 + 1, start_time="1"))
    services.qmp_socket.touch()
    assert services.state() is MachineState.CRASHED
    assert services.stop(timeout=0) is StopOutcome.ALREADY_OFF
    assert services.state() is MachineState.OFF
    assert not services.qmp_socket.exists()


MakeCard = Callable[..., "FakeCard"]


class FakeCard:
    """A card that keeps what it is sent, and has what it is given."""

    def __init__(self, *frames: bytes) -> None:
        self.sent: list[bytes] = []
        self.frames = list(frames)
        self.socket, self._other = socket.socketpair()

    def close(self) -> None:
        self.socket.close()
        self._other.close()

    def receive(self, limit: int) -> list[bytes]:
        taken, self.frames = self.frames[:limit], self.frames[limit:]
        return taken

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)


@pytest.fixture
def make_card() -> Iterator[MakeCard]:
    with contextlib.ExitStack() as stack:
        yield lambda *frames: stack.enter_context(contextlib.closing(FakeCard(*frames)))


def framed(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def relayed(data: bytes, *, card: FakeCard, step: int) -> bytes:
    """Send *data* from the switch in pieces of *step* bytes, hang up; return what came for the switch."""
    switch, link = socket.socketpair()
    with switch:
        with link:
            link.settimeout(0)
            relay = Relay(card, Path("unused"))  # type: ignore[arg-type]
            for start in range(0, len(data), step):
                switch.sendall(data[start : start + step])
                relay._receive(link)
            relay._collect()
            relay._flush(link)
            switch.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionResetError):
                relay.relay(link)
        return b"".join(iter(lambda: switch.recv(1 << 16), b""))


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_frames_are_put_together_whatever_the_pieces(step: int, make_card: MakeCard) -> None:
    card = make_card()
    assert relayed(framed(b"a" * 60, b"b" * 14, b"", b"c" * 1514), card=card, step=step) == b""
    assert card.sent == [b"a" * 60, b"b" * 14, b"", b"c" * 1514]


def test_frames_go_to_the_switch_with_their_length(make_card: MakeCard) -> None:
    frames = [bytes([number]) * (60 + number) for number in range(100)]
    assert relayed(b"", card=make_card(*frames), step=1) == framed(*frames)


def test_a_length_that_no_frame_has_ends_the_connection(make_card: MakeCard) -> None:
    with pytest.raises(ConnectionAbortedError, match="no frame has"):
        relayed(b"\xff\xff\xff\xff", card=make_card(), step=4)


def test_a_switch_that_takes_nothing_costs_frames_not_memory(make_card: MakeCard) -> None:
    card = make_card(*[bytes(1500)] * 10_000)
    switch, link = socket.socketpair()
    with switch, link:
        link.settimeout(0)
        relay = Relay(card, Path("unused"))  # type: ignore[arg-type]
        while card.frames:
            relay._collect()
            relay._flush(link)
        assert len(relay._outgoing) <= host_mode_relay._BACKLOG + 1504


def test_the_door_answers_what_it_knows(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    asked: list[str] = []
    door = host_mode_door.Door(ours, stop=lambda: asked.append("stop"))
    with ours, theirs:
        theirs.sendall(b"stop\n")
        door._answer(ours)
        assert (theirs.recv(100), asked) == (b"ok", ["stop"])


def test_nobody_at_the_door_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        host_mode_door.ask(tmp_path / "no.door", host_mode_door.STOP, timeout=1)


def test_the_record_says_the_mode_in_a_word() -> None:
    record = ProvisionerRecord(uuid="u", mode=ProvisionerMode.HOST)
    assert document.encode(record)["mode"] == "host"
    assert document.loads(ProvisionerRecord, document.dumps(record)) == record


def test_the_services_are_told_where_everything_is() -> None:
    told = Inside(Path("/mnt")).environment(Path("/venv/site-packages"))
    assert (told["PVMLAB_HOST_DIR"], told["PVMLAB_RUN_DIR"]) == ("/mnt/host", "/mnt/run")
    assert told["PVMLAB_IPXE_DIR"] == "/mnt/ipxe"
    assert told["PYTHONPATH"] == f"{REPOSITORY}:/venv/site-packages"
