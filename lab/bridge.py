"""The lab's network as a bridge of the Linux kernel, with a tap for each LAN card: faster than the switch, needs root.

Root makes all of it when the first machine starts, and removes it after the last one. An ordinary user has it made
once, by commands that ``net.create`` prints: then taps are there that are his (until the host boots anew), and nothing
else of his ever needs root.

Which tap is whose is in ``run/_taps.json``, for as long as the machine is defined: two commands never take one tap.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from contracts.lan import Lan
from contracts.names import PROVISIONER_NAME
from lab import bridge_commands as commands
from lab import processes
from lab.bridge_commands import BridgePlan
from lab.network import NetworkKind, PortView
from lab.network_settings import MOST_TAPS, NetworkSettings
from lab.sockets import ensure_private
from lab.spec import LanTaps
from pipeline import commit
from pipeline.errors import CommandError, ConflictError, PrerequisiteError
from pipeline.run import find_program, run
from pipeline.workspace import Home

TUN = Path("/dev/net/tun")
INTERFACES = Path("/sys/class/net")
_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_LOCK_TIMEOUT = 20.0  # seconds; making a bridge with its taps takes a tenth of one
_COMMAND_TIMEOUT = 20.0  # seconds; each takes milliseconds
_OTHERWISE = "./pvmlab net.create --kind switch needs none of it"


class BridgeNetwork:
    """The bridge of the lab at *home*, whether it is there or not.

    :ivar plan: what the bridge is called and has.
    """

    def __init__(self, home: Home, *, identity: str, settings: NetworkSettings, lan: Lan) -> None:
        """:param identity: the lab's own. :param lan: its addresses."""
        self._home = home
        self._settings = settings
        self._taps_path = home.run / "_taps.json"
        interface = f"{settings.host_address}/{lan.network.prefixlen}" if settings.host_address else ""
        self.plan = BridgePlan(name=commands.bridge_name(identity), home=home.root, interface=interface)

    @property
    def kind(self) -> NetworkKind:
        """A bridge."""
        return NetworkKind.BRIDGE

    def attach(self, machine: str, cards: int) -> LanTaps:
        """Return the taps of *machine*, ports of the bridge; as root they are made if missing.

        :raises PrerequisiteError: if they cannot be had; the resolution has the commands for root.
        :raises ConflictError: if an ordinary user has too few of them.
        """
        require_tun()
        ensure_private(self._home.run)
        with self._lock():
            owners = self._assign(machine, cards)
            numbers = sorted(number for number, owner in owners.items() if owner == machine)
            missing = [number for number in numbers if not exists(self.plan.tap(number))]
            if not exists(self.plan.name) or missing:
                self._make(missing)
            self._write(owners)
        return LanTaps(tuple(self.plan.tap(number) for number in numbers))

    def is_running(self) -> bool:
        """Say whether the bridge is there."""
        return exists(self.plan.name)

    def stop(self) -> None:
        """As root, remove the bridge and its taps. What root made for an ordinary user stays."""
        if not self._home.run.exists():
            return
        with self._lock():
            if os.geteuid() == 0:
                run_all([commands.remove(name) for name in self.interfaces()])
                self._taps_path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all of it from this host.

        :raises PrerequisiteError: if that needs root; the resolution has the commands.
        """
        if (there := self.interfaces()) and os.geteuid() != 0:
            raise PrerequisiteError(
                f"removing the bridge {self.plan.name} needs root",
                details=f"it and its taps were made by root: {', '.join(there)}",
                resolution=as_root([commands.remove(name) for name in there]) + "; then the same command again",
            )
        self.stop()
        self._taps_path.unlink(missing_ok=True)

    def interfaces(self) -> list[str]:
        """Return the interfaces of this bridge that are there: its taps, then itself."""
        taps = [name for name in ours(self.plan.home) if name.startswith(f"{self.plan.name}t")]
        return [*taps, *([self.plan.name] if exists(self.plan.name) else [])]

    def ports(self) -> list[PortView]:
        """Return the taps that belong to machines, and the packets (not bytes) that were lost at each."""
        learned = self._learned()
        return [
            PortView(
                machine=machine, name=(name := self.plan.tap(number)), connected=is_used(name),
                addresses=tuple(learned.get(name, ())),
                received=_count(name, "rx_bytes"), sent=_count(name, "tx_bytes"), dropped=_count(name, "tx_dropped"),
            )
            for number, machine in sorted(self._owners().items())
            if exists(self.plan.tap(number))
        ]  # fmt: skip

    def leftovers(self) -> list[str]:
        """Return the interfaces that nobody is at, as after a crash: root would have removed them."""
        there = self.interfaces()
        return there if os.geteuid() == 0 and not any(map(is_used, there)) else []

    def require_usable(self) -> None:
        """Check that machines can be put on the bridge: root tries it and takes it away again.

        :raises PrerequisiteError: if not; the resolution has the commands for root.
        """
        require_tun()
        if os.geteuid() != 0:
            self._require_made()
        elif not exists(self.plan.name):
            with self._lock():
                self._make([0])
                run_all([commands.remove(name) for name in self.interfaces()])

    def _require_made(self) -> None:
        """Check that root has made all that an ordinary user needs. :raises PrerequisiteError: if not."""
        missing = [number for number in range(self._settings.taps) if not exists(self.plan.tap(number))]
        if missing or not exists(self.plan.name) or self._host_addresses() != self.plan.host_addresses:
            raise self._needs_root(missing)

    def _host_addresses(self) -> list[str]:
        """Return the host's IPv4 addresses on the bridge, each with its prefix length."""
        done = run(commands.show_addresses(self.plan), timeout=_COMMAND_TIMEOUT, check=False)
        with contextlib.suppress(ValueError):
            found = [each for interface in json.loads(done.stdout or "[]") for each in interface.get("addr_info", ())]
            return [f"{each['local']}/{each['prefixlen']}" for each in found]
        return []

    def _make(self, taps: Sequence[int]) -> None:
        """Make the bridge if it is missing, and *taps*. :raises PrerequisiteError: if this user or kernel does not."""
        if os.geteuid() != 0:  # all of his taps are gone after a reboot: he is to ask root once, not for each machine
            raise self._needs_root([n for n in range(self._settings.taps) if not exists(self.plan.tap(n))] or taps)
        require_tun()
        try:
            if not exists(self.plan.name):
                run_all(commands.make_bridge(self.plan))
            for number in taps:
                run_all(commands.make_tap(self.plan, number, user=os.geteuid()))
        except CommandError as error:
            with contextlib.suppress(CommandError):  # half a network is none
                run_all([commands.remove(self.plan.tap(number)) for number in taps if exists(self.plan.tap(number))])
            raise PrerequisiteError(
                "this host refuses a bridge or its taps",
                details=error.details,
                resolution=f"as root: modprobe bridge tun; in a container, CAP_NET_ADMIN is needed; {_OTHERWISE}",
            ) from None

    def _needs_root(self, taps: Sequence[int]) -> PrerequisiteError:
        bridge = commands.make_bridge(self.plan)
        if exists(self.plan.name):
            bridge = [] if self._host_addresses() == self.plan.host_addresses else commands.change_address(self.plan)
        made = [c for number in taps for c in commands.make_tap(self.plan, number, user=os.geteuid())]
        return PrerequisiteError(
            "a bridge needs root, once until this host boots anew",
            details="these commands make it, and taps that are yours:\n" + as_root([*bridge, *made], separator="\n"),
            resolution=f"run them, then the same command again; or {_OTHERWISE}",
        )

    def _assign(self, machine: str, cards: int) -> dict[int, str]:
        """Return whose each tap is, with *cards* of *machine* among them; those of machines that are gone are free."""
        known = {path.stem for path in self._home.vms.glob("*.json")} | {PROVISIONER_NAME, machine}
        owners = {
            number: owner
            for number, owner in self._owners().items()
            if owner in known or is_used(self.plan.tap(number))  # its QEMU still runs
        }
        mine = sorted(number for number, owner in owners.items() if owner == machine)
        for number in mine[cards:]:
            del owners[number]
        most = None if os.geteuid() == 0 else self._settings.taps
        number = 0
        for _ in range(cards - len(mine)):
            while number in owners:
                number += 1
            if most is not None and number >= most:
                raise ConflictError(
                    f"the bridge has {most} taps, and machines have them all",
                    details=", ".join(f"{self.plan.tap(number)}: {owner}" for number, owner in sorted(owners.items())),
                    resolution="./pvmlab vm.clean NAME gives some back; "
                    f"./pvmlab net.create --kind bridge --taps {min(most + 8, MOST_TAPS)} prints how to make more",
                )
            owners[number] = machine
        return owners

    def _owners(self) -> dict[int, str]:
        try:
            return {int(number): owner for number, owner in json.loads(self._taps_path.read_text()).items()}
        except (FileNotFoundError, ValueError, AttributeError):  # nothing is lost with it while no machine runs
            return {}

    def _write(self, owners: dict[int, str]) -> None:
        if owners != self._owners():
            commit.publish_text(self._taps_path, json.dumps(dict(sorted(owners.items()))) + "\n", mode=0o600)

    def _learned(self) -> dict[str, list[str]]:
        """Return the MAC addresses that the bridge has seen behind each port."""
        if not self.is_running():
            return {}
        done = run(["bridge", "-json", "fdb", "show", "br", self.plan.name], timeout=_COMMAND_TIMEOUT, check=False)
        learned: dict[str, list[str]] = {}
        with contextlib.suppress(ValueError):
            for entry in json.loads(done.stdout or "[]"):
                if entry.get("state") != "permanent":
                    learned.setdefault(entry.get("ifname", ""), []).append(entry.get("mac", ""))
        return learned

    def _lock(self) -> AbstractContextManager[None]:
        return processes.hold_lock(
            self._home.run / "_bridge.lock", timeout=_LOCK_TIMEOUT, busy="another command works on the lab's bridge"
        )


def exists(interface: str) -> bool:
    """Say whether this host has the *interface*."""
    return (INTERFACES / interface).exists()


def ours(home: Path | None = None) -> list[str]:
    """Return the interfaces of this host that pvmlab made, by what they say of themselves. :param home: of that lab."""
    marks = commands.MARK if home is None else BridgePlan(name="", home=home).alias
    return sorted(
        path.name for path in INTERFACES.glob("pvm*")
        if (said := _read(path.name, "ifalias")) == marks or (home is None and said.startswith(marks))
    )  # fmt: skip


def home_of(interface: str) -> Path:
    """Return the home of the lab that made the *interface*, as far as the kernel keeps it (248 bytes)."""
    return Path(_read(interface, "ifalias").removeprefix(commands.MARK))


def is_abandoned(interface: str) -> bool:
    """Say whether the lab that made the *interface* is gone for sure."""
    if len(os.fsencode(_read(interface, "ifalias"))) >= commands.LONGEST_ALIAS:  # its home's name may go on
        return False
    try:
        home_of(interface).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # another user's: nothing can be said of it
        pass
    return False


def is_used(interface: str) -> bool:
    """Say whether a machine is at the *interface*: at this tap, or at any tap of this bridge."""
    ports = (path.name for path in (INTERFACES / interface / "brif").glob("*"))
    # a bridge's own carrier follows those of its ports, but up to a second late
    return any(_read(name, "carrier") == "1" for name in (interface, *ports))


def how_to_remove(interfaces: Sequence[str]) -> str:
    """Return what a person types to remove *interfaces* that nobody uses: `gc` does it as root only."""
    if os.geteuid() == 0 or any("/" in name for name in interfaces):  # or a switch's sockets
        return "./pvmlab gc removes them"
    return "to remove them: " + as_root([commands.remove(name) for name in interfaces])


def require_tun() -> None:
    """Check that this user may open taps, and that there is a program to ask the kernel about bridges.

    :raises PrerequisiteError: if not.
    """
    if missing := [program for program in ("ip", "bridge") if find_program(program) is None]:
        raise PrerequisiteError(
            f"a bridge needs programs that are not installed: {', '.join(missing)}",
            resolution=f"./pvmlab setup --host-mode installs them (Debian's package is iproute2); {_OTHERWISE}",
        )
    if not TUN.exists():
        raise PrerequisiteError(
            f"this host has no {TUN}",
            resolution=f"as root: modprobe tun; in a container it must be given; {_OTHERWISE}",
        )
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise PrerequisiteError(
            f"you may not open {TUN}", resolution=f"as root: chmod 666 {TUN} (Debian's own mode); {_OTHERWISE}"
        )


def filter_warning() -> str:
    """Return what is to be said where the host's firewall also sees bridged frames, as Docker's does; else nothing."""
    with contextlib.suppress(OSError):
        if _FILTER.read_text().strip() == "1":
            return (
                "this host's firewall sees frames on bridges (net.bridge.bridge-nf-call-iptables = 1, set by Docker "
                "among others) and may drop them: as root, sysctl net.bridge.bridge-nf-call-iptables=0"
            )
    return ""


def as_root(lines: Sequence[Sequence[str]], *, separator: str = " && ") -> str:
    """Return *lines* as a person types them."""
    prefix = "" if os.geteuid() == 0 else "sudo "
    return separator.join(prefix + shlex.join(line) for line in lines)


def run_all(lines: Sequence[Sequence[str]]) -> None:
    """Run *lines* in order. :raises CommandError: at the first that fails."""
    for line in lines:
        run(line, timeout=_COMMAND_TIMEOUT)


def overlapping_host(lan: Lan, settings: NetworkSettings, overlaps: Sequence[str]) -> ConflictError | None:
    """Return the error for a host that would be in two networks of the same addresses, or None."""
    if not settings.host_address or not overlaps:
        return None
    return ConflictError(
        f"this host is in a network already that overlaps {lan.subnet}",
        details="\n".join(overlaps),
        resolution="choose another --subnet, or leave out --host-address",
    )


def _count(interface: str, name: str) -> int:
    return int(_read(interface, f"statistics/{name}") or 0)


def _read(interface: str, name: str) -> str:
    try:
        return (INTERFACES / interface / name).read_text(errors="replace").strip()
    except OSError:  # gone, or (carrier) down
        return ""
