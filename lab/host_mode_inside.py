"""The first process in the namespaces of host mode: makes a network and mounts, then runs the services in them.

``python -m lab.host_mode_inside DOOR SWITCH HOME CACHE LIBRARIES`` under ``unshare`` (:mod:`lab.host_mode`). When it
ends, the kernel ends everything else in there. All that it makes is seen in there only, and gone with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from contracts.lan import Lan
from contracts.names import PROVISIONER_NAME
from lab import addresses, switch
from lab.host_mode_door import Door
from lab.host_mode_relay import Card, CardGoneError, Relay, disable_offloads
from lab.host_mode_uplink import LAN_CARD, PORT_CARD, RELAY_CARD
from lab.lab import Lab
from lab.provisioner_record import find_record
from pipeline import commit
from pipeline.errors import PrerequisiteError, PvmlabError
from pipeline.run import Popen, run, spawn
from pipeline.workspace import REPOSITORY, Cache, Home, Workspace

_READY_WAIT = 60.0  # seconds for the services to answer; they need one or two
_RESOLV_CONF = Path("/etc/resolv.conf")
# capabilities(7): those of pxeboot_stack.container
CAPABILITIES = (
    "net_bind_service", "net_admin", "net_raw", "setuid", "setgid", "chown", "kill", "dac_override",
)  # fmt: skip
_MOUNT_POINTS = ("/mnt", "/srv", "/media", "/opt", "/home")
# Flags, in the words of mount(2).
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _NOATIME, _NODIRATIME, _BIND, _REC, _RELATIME = (
    1, 2, 4, 8, 32, 1024, 2048, 4096, 16384, 1 << 21,
)  # fmt: skip
_SAME_BITS = _NOSUID | _NODEV | _NOEXEC | _NOATIME | _NODIRATIME  # statvfs(3) and mount(2) agree on these
_ST_RELATIME = 4096


@dataclasses.dataclass(frozen=True)
class Bind:
    """A folder of the host seen in another place. :ivar target: there."""

    source: Path
    target: Path
    writable: bool = False


@dataclasses.dataclass(frozen=True)
class Inside:
    """Where things are in there: all of it below one folder of a file system in memory."""

    root: Path

    @property
    def shares(self) -> Path:
        """The folders of the host, named as in the provisioner."""
        return self.root / "host"

    @property
    def run(self) -> Path:
        """What the services write for themselves."""
        return self.root / "run"

    @property
    def ipxe(self) -> Path:
        """The iPXE programs."""
        return self.root / "ipxe"

    def binds(self, home: Home, cache: Cache) -> tuple[Bind, ...]:
        """Return what of the host is seen in here."""
        return (
            Bind(cache.images, self.shares / "images"),
            Bind(cache.initrds, self.shares / "initrds"),
            Bind(home.vms, self.shares / "vms"),
            Bind(home.status, self.shares / "status", writable=True),
            Bind(home.config, self.shares / "config"),
            Bind(home.templates, self.shares / "templates"),
            Bind(cache.root / "ipxe", self.ipxe),
        )

    def environment(self, libraries: Path) -> dict[str, str]:
        """Return what the services are told. :param libraries: where Python finds what is not ours."""
        return {
            "PVMLAB_HOST_DIR": str(self.shares),
            "PVMLAB_RUN_DIR": str(self.run),
            "PVMLAB_IPXE_DIR": str(self.ipxe),
            "PYTHONPATH": f"{REPOSITORY}:{libraries}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }


def choose_root(needed: Sequence[Path], candidates: Sequence[str] = _MOUNT_POINTS) -> Path:
    """Return a folder of every host that nothing *needed* is in: it is covered, for the services only.

    :raises PrerequisiteError: if there is none.
    """
    real = [path.resolve() for path in needed]
    for candidate in map(Path, candidates):
        if candidate.is_dir() and not any(path.is_relative_to(candidate.resolve()) for path in (*needed, *real)):
            return candidate
    raise PrerequisiteError(
        "host mode finds no folder to show its files in",
        details=f"there must be one of {', '.join(candidates)} that the cache and the lab's home are not in",
        resolution="as root: mkdir /mnt",
    )


def network_commands(lan: Lan, mac: str, *, bridged: bool = False) -> str:
    """Return what ``ip -batch`` makes the network of: ``lan0`` with the provisioner's address, and its other end.

    There is no way out. A target that asks for one is told so at once instead of waiting (``unreachable``).

    :param bridged: ``lan0`` is a bridge, for another card to be joined to it (:mod:`lab.host_mode_uplink`).
    """
    # Router advertisements come from a link-local address; without IPv6 nobody shall have one.
    link_local = "eui64" if lan.ipv6_subnet else "none"
    ipv6 = (
        f"address add {lan.provisioner_interface_ipv6} dev {LAN_CARD} nodad\nroute add unreachable ::/0\n"
        if lan.ipv6_subnet
        else ""
    )
    pair = f"type veth peer name {RELAY_CARD}"
    cards = (
        f"link add {LAN_CARD} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
        f"link add {PORT_CARD} {pair}\n"
        f"link set {PORT_CARD} addrgenmode none master {LAN_CARD} up\n"
        if bridged
        else f"link add {LAN_CARD} address {mac} {pair}\n"
    )
    return (
        f"link set lo up\n{cards}"
        f"link set {RELAY_CARD} addrgenmode none up\n"
        f"link set {LAN_CARD} addrgenmode {link_local} up\n"
        f"address add {lan.provisioner_interface} dev {LAN_CARD}\n"
        f"route add unreachable default\n{ipv6}"
    )


def make_network(lan: Lan, mac: str, *, bridged: bool = False) -> None:
    """Make the network in here. :raises PvmlabError: if ``ip`` fails. :raises OSError: if the kernel refuses."""
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        _set_kernel("net/ipv6/conf/default/accept_ra", "0")  # routers of a LAN that we are joined with are not ours
    if lan.ipv6_subnet:
        _set_kernel("net/ipv6/conf/default/accept_dad", "0")  # nobody has our addresses: no second of asking
        _set_kernel("net/ipv6/conf/all/forwarding", "1")
    run(["ip", "-batch", "-"], timeout=20, input=network_commands(lan, mac, bridged=bridged))
    disable_offloads(PORT_CARD if bridged else LAN_CARD)
    _set_kernel("net/ipv4/ip_forward", "1")  # else nobody says that the way out is unreachable


def mount_all(inside: Inside, home: Home, cache: Cache) -> None:
    """Mount all that the services see. :raises OSError: if the kernel refuses."""
    _mount("tmpfs", inside.root, kind="tmpfs", flags=_NOSUID | _NODEV, data=b"mode=755,size=64m")
    inside.run.mkdir(parents=True)
    for bind in inside.binds(home, cache):
        bind.target.mkdir(parents=True)
        if not bind.source.is_dir():
            continue
        _mount(str(bind.source), bind.target, flags=_BIND | _REC)
        if not bind.writable:
            found = os.statvfs(bind.target).f_flag
            kept = found & _SAME_BITS | (_RELATIME if found & _ST_RELATIME else 0)  # a user may not take them away
            _mount("", bind.target, flags=_REMOUNT | _BIND | _RDONLY | kept)
    if _RESOLV_CONF.exists():  # there is no way to its servers: asked, dnsmasq shall say so and not wait
        commit.publish_text(inside.root / "resolv.conf", "# no way out\n")
        _mount(str(inside.root / "resolv.conf"), _RESOLV_CONF, flags=_BIND)


def confined(argv: Sequence[str]) -> list[str]:
    """Return the words that run *argv* with no more capabilities than the services have in their container."""
    names = ",".join(f"+{name}" for name in CAPABILITIES)
    # Root gets them by being root. A user has them as ambient ones, which go where the inheritable ones go.
    inherited = "-all" if os.geteuid() == 0 else f"-all,{names}"
    sets = [f"--bounding-set=-all,{names}", f"--inh-caps={inherited}"]
    return ["setpriv", "--no-new-privs", *sets, "--", *argv]


class Services:
    """The services as a child of this process, and what is said of them in ``status/provisioner.json``."""

    def __init__(self, lab: Lab, environment: dict[str, str]) -> None:
        self._lab = lab
        self._stopping = threading.Event()
        self._failure = ""
        self._child: Popen[bytes] = spawn(
            confined([sys.executable, "-m", "pxeboot_stack"]), env=environment, stdout=1, stderr=2, cwd=REPOSITORY
        )

    def stop(self) -> None:
        """Have the services end, and so all of us."""
        self._stopping.set()
        with contextlib.suppress(ProcessLookupError):
            self._child.terminate()

    def fail(self, reason: str) -> None:
        """Have the services end since they are of no use any more; the host is told *reason*."""
        self._failure = reason
        sys.stderr.write(f"host mode fails: {reason}\n")
        self.stop()

    def wait(self) -> int:
        """Return our exit status once they have ended; tell the host if nobody asked for it."""
        status = self._child.wait()
        if self._stopping.is_set() and not self._failure:
            return 0
        self.announce("failed", self._failure or f"the services ended: {_describe(status)}")
        return 1

    def announce_when_ready(self) -> None:
        """Tell the host when they answer on the private network, or that they do not."""
        lan, deadline = self._lab.lan, time.monotonic() + _READY_WAIT
        last = "nothing"
        while time.monotonic() < deadline and not self._stopping.is_set():
            if (last := _ask_ready(lan.provisioner)) == "200":
                self.announce("ready", f"the services answer at {lan.base_url}/readyz")
                return
            time.sleep(0.05)
        if not self._stopping.is_set():
            self.announce("failed", f"no answer at {lan.base_url}/readyz within {_READY_WAIT:g} s, last: {last}")

    def announce(self, state: str, message: str) -> None:
        """Say how the services stand, as ``announce`` does in the provisioner's machine."""
        home = self._lab.home
        boot_id = (home.config / "boot_id").read_text().strip()
        said = {"boot_id": boot_id, "message": message, "state": state, "time": int(time.time())}
        commit.publish_text(home.status / f"{PROVISIONER_NAME}.json", json.dumps(said, sort_keys=True) + "\n")


def main(arguments: list[str]) -> int:
    """Run the services until they end or are asked to; return the exit status."""
    door, switch_socket, home, cache, libraries = map(Path, arguments)
    lab = Lab(Workspace(Cache(cache), Home(home)))
    os.umask(0o022)
    try:
        inside = Inside(choose_root([*map(Path, arguments), REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)]))
        mount_all(inside, lab.home, lab.cache)
        record = find_record(lab.home)
        mac = addresses.derive_mac(lab.identity(), PROVISIONER_NAME)
        make_network(lab.lan, mac, bridged=record is not None and bool(record.interface))
        card = Card(RELAY_CARD)
    except (OSError, PvmlabError) as error:
        sys.stderr.write(f"host mode cannot start: {error}\n{getattr(error, 'details', '')}\n")
        return 1
    services = Services(lab, inside.environment(libraries))
    signal.signal(signal.SIGTERM, lambda *_: services.stop())
    listener = switch.listen(door)

    def relay() -> None:
        try:
            Relay(card, switch_socket).run()
        except CardGoneError as error:
            services.fail(str(error))

    for loop in (Door(listener, stop=services.stop).serve, relay, services.announce_when_ready):
        threading.Thread(target=loop, daemon=True).start()
    status = services.wait()
    if status == 0:
        door.unlink(missing_ok=True)
    return status


def _mount(source: str, target: Path, *, flags: int, kind: str = "", data: bytes | None = None) -> None:
    # mount(8) does nothing for who is not root, whatever capabilities he has.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", str(target))


def _set_kernel(name: str, value: str) -> None:
    descriptor = os.open(Path("/proc/sys", name), os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _ask_ready(server: IPv4Address) -> str:
    """Return the status of ``/readyz``, or why there is none."""
    connection = http.client.HTTPConnection(str(server), timeout=5)
    try:
        connection.request("GET", "/readyz")
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


def _describe(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
