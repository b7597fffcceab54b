"""What of a lab nobody needs any more: what killed commands, crashes and removed files left behind.

All files of a machine begin with its name, and no name holds a dot or an underscore: the file says whose it is.
What belongs to a machine that is defined (well or badly), to the provisioner, or to a process that runs is never
garbage; nor is a disk that a disk of such a machine stands on, wherever it came from. What is not named as ours is
somebody's: it is told and stays.

The plan is made without changing anything; carrying it out makes it once more, under the locks of whoever makes
machines, and removes only what is in both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts.names import PROVISIONER_NAME, validate_machine_name
from lab import bridge, bridge_commands, layers, processes, snapshot_store
from lab.lab import Lab
from lab.network_view import stray_interfaces
from lab.provisioner_record import record_path
from lab.store import DefinitionStore
from pipeline.commit import SUFFIX
from pipeline.errors import CommandError, PvmlabError
from pipeline.workspace import Home

YOUNG = 3600.0  # seconds: a half-made file that is younger may be somebody's at work
# Records of processes beside a machine's: "_tpm-web1.json". The lab's own begin with an underscore, too.
_COMPANION = re.compile(r"_[a-z]+-(?P<machine>[a-z0-9-]+)\.[a-z.]+\Z")
_PUBLISHING = re.compile(r"\..*\.(?P<pid>\d+)\.[0-9a-f]{8}" + re.escape(SUFFIX) + r"\Z")
_SOCKETS = (".qmp", ".serial", ".agent", ".tpm", ".door")
_SHARED = {"layers", "snapshots"}  # folders among the disks


class Kind(enum.StrEnum):
    """What something is."""

    RECORD = "record"
    SOCKET = "socket"
    LOG = "log"
    STATUS = "status"
    SETTINGS = "settings"
    DISK = "disk"
    LAYER = "layer"
    BASE = "base image"
    SNAPSHOT = "snapshot"
    HALF_MADE = "half-made"
    INTERFACE = "interface"


# What follows the name of a machine and a dot in the names of its files.
_OWN_SUFFIXES = {
    Kind.LOG: re.compile(r"([a-z]+\.)?log(\.1)?\Z"),
    Kind.STATUS: re.compile(r"(events\.)?json\Z"),
    Kind.SETTINGS: re.compile(r"(json|answers|user-data|order)\Z"),
    Kind.DISK: re.compile(r"((disk[0-9]+\.)?qcow2|(network-)?vars\.fd|seed\.iso|base\.json|tpm)\Z"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Garbage:
    """Something that nobody needs. :ivar path: None for a network interface. :ivar size: in bytes on the disk."""

    kind: Kind
    name: str
    why: str
    path: Path | None = None
    size: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GarbagePlan:
    """What goes. :ivar unknown: files in the lab's home that are not named as ours: they stay."""

    items: tuple[Garbage, ...]
    unknown: tuple[Path, ...]

    @property
    def size(self) -> int:
        """The bytes that are freed."""
        return sum(item.size for item in self.items)


def plan_garbage(lab: Lab, *, now: float | None = None) -> GarbagePlan:
    """Return what nobody needs. Changes nothing. :param now: seconds since the epoch."""
    found = _Search(lab, time.time() if now is None else now)
    items = [item for item in found.items() if item.path is None or item.path not in found.stood_on]
    return GarbagePlan(items=tuple(items), unknown=tuple(found.unknown))


def find_unknown(home: Home) -> list[Path]:
    """Return what is in the folders of machines' files and is not named as pvmlab names things: somebody's own."""
    return [path for folder, kind in _folders(home) for path in _entries(folder) if not _is_ours(path, kind)]


def _folders(home: Home) -> list[tuple[Path, Kind]]:
    return [
        (home.logs, Kind.LOG), (home.status, Kind.STATUS), (home.vms, Kind.SETTINGS), (home.disks, Kind.DISK),
    ]  # fmt: skip


def find_lost_processes() -> list[tuple[int, str]]:
    """Return the machines and switches of ours, by process id and name, whose lab's folder is gone.

    Nothing else tells of them any more: who removes a lab's folder while it runs loses its records. Linux only.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
            mine = entry.stat().st_uid == os.getuid()
        except OSError:  # it ended since
            continue
        if mine and (place := _place_of(words)) is not None and not place[1].parent.exists():
            found.append((int(entry.name), place[0]))
    return sorted(found)


def _place_of(words: Sequence[str]) -> tuple[str, Path] | None:
    """Return the name of a process of ours and a socket of its lab, by its command line; None for others."""
    if "lab.switch" in words[:-2]:
        return "switch", Path(words[words.index("lab.switch") + 1])
    name = next((word for word in words if ",process=pvmlab-" in word), "")
    monitor = next((word for word in words if name and word.startswith("unix:/")), "")
    if not monitor:
        return None
    return name.partition(",")[0], Path(monitor.removeprefix("unix:").rpartition(",server=")[0].replace(",,", ","))


def collect(lab: Lab, plan: GarbagePlan) -> tuple[list[Garbage], list[str]]:
    """Remove what is in *plan* and still nobody's; return what went, and what could not be removed and why.

    :raises ConflictError: if another command works on the lab.
    """
    gone: list[Garbage] = []
    failed: list[str] = []
    with contextlib.ExitStack() as locks:
        if lab.home.root.is_dir():
            locks.enter_context(lab.changing_lab())
            locks.enter_context(lab.changing_definitions())
            locks.enter_context(layers.changing(lab.home))
        still = plan_garbage(lab).items
        for item in plan.items:
            if item not in still:
                continue
            try:
                _remove(item)
                gone.append(item)
            except (OSError, CommandError) as error:
                failed.append(f"{item.name}: {error}")
    return gone, failed


def _remove(item: Garbage) -> None:
    if item.path is None:
        bridge.run_all([bridge_commands.remove(item.name)])
    elif item.path.is_dir() and not item.path.is_symlink():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)


class _Search:
    """One look at a lab. :ivar stood_on: files that a disk which stays needs. :ivar unknown: see the plan's."""

    def __init__(self, lab: Lab, now: float) -> None:
        self._lab, self._now = lab, now
        self.unknown: list[Path] = []
        store = DefinitionStore(lab)
        self._kept = {*store.names(), *store.strays()}
        if record_path(lab.home).exists():  # also a broken one
            self._kept.add(PROVISIONER_NAME)
        self._running = {machine for stem, machine in self._recorded() if self._runs(stem)}
        self._kept |= self._running
        self.stood_on = self._find_stood_on()

    def items(self) -> Iterator[Garbage]:
        """Yield everything, folder by folder."""
        home = self._lab.home
        yield from self._run_folder()
        for folder, kind in _folders(home):
            yield from self._of_machines(folder, kind)
        yield from self._below_disks()
        for folder in (home.vms, home.status, home.config, home.disks, layers.layers_folder(home), home.run, home.ssh,
                       home.bases, home.logs):  # fmt: skip
            yield from self._half_made(folder)
        yield from self._interfaces()

    def _recorded(self) -> Iterator[tuple[str, str]]:
        """Yield the records of processes, each with the machine that it is of or belongs to."""
        for path in self._lab.home.run.glob("*.json"):
            if (machine := _owner(path)) is not None:
                yield path.stem, machine

    def _runs(self, stem: str) -> bool:
        try:
            record = processes.find_record(self._lab.home.run / f"{stem}.json")
        except PvmlabError:  # damaged: nobody knows, so the machine stays; beside machines there are other files, too
            return not stem.startswith("_")
        return record is not None and processes.is_alive(record)

    def _run_folder(self) -> Iterator[Garbage]:
        for path in _files(self._lab.home.run):
            name = _owner(path)
            if name is None or name in self._running:
                continue
            if name not in self._kept and (path.suffix != ".lock"):
                kind = Kind.SOCKET if path.suffix in _SOCKETS else Kind.RECORD
                yield self._item(kind, path, f"there is no machine {name}, and no process")
            elif path.suffix in _SOCKETS and not (self._lab.home.run / f"{name}.json").exists():
                yield self._item(Kind.SOCKET, path, f"{name} is off")

    def _of_machines(self, folder: Path, kind: Kind) -> Iterator[Garbage]:
        """Yield what is in *folder* of machines that are not there."""
        for path in _entries(folder):
            name = _owner(path)
            if not _is_ours(path, kind):
                self.unknown.append(path)
            elif path.name.startswith((".", "_")) or name is None or name in self._kept:
                continue
            elif name != PROVISIONER_NAME or kind is Kind.DISK:
                yield self._item(kind, path, f"there is no machine {name}")

    def _below_disks(self) -> Iterator[Garbage]:
        home = self._lab.home
        for path in _files(layers.layers_folder(home)):
            if path.suffix == ".qcow2" and path not in self.stood_on:
                yield self._item(Kind.LAYER, path, "no disk stands on it")
        for path in _files(home.bases):
            if path.suffix == ".img" and path.resolve() not in self.stood_on:
                yield self._item(Kind.BASE, path, "no disk stands on it")
        for folder in _entries(home.disks / "snapshots"):
            if folder.is_dir() and _is_name(folder.name) and folder.name not in self._kept:
                yield self._item(Kind.SNAPSHOT, folder, f"there is no machine {folder.name}")

    def _half_made(self, folder: Path) -> Iterator[Garbage]:
        for path in folder.glob(f".*{SUFFIX}"):
            pid = _PUBLISHING.match(path.name)
            if self._is_old(path) and not (pid and Path(f"/proc/{pid['pid']}").exists()):
                yield self._item(Kind.HALF_MADE, path, "the command that made it was killed")
        for path in folder.glob(".key.*"):  # lab.keys makes keys there
            if self._is_old(path):
                yield self._item(Kind.HALF_MADE, path, "the command that made it was killed")

    def _interfaces(self) -> Iterator[Garbage]:
        for name in self._lab.network.leftovers():
            path = Path(name) if "/" in name else None
            kind = Kind.SOCKET if path else Kind.INTERFACE
            yield Garbage(kind=kind, name=name, path=path, why="of a network that nobody is on")
        if os.geteuid() == 0:  # an ordinary user is told by net.list
            for name in stray_interfaces(self._lab):
                yield Garbage(kind=Kind.INTERFACE, name=name, why="the lab that made it is gone, or on another network")

    def _find_stood_on(self) -> set[Path]:
        """Return all that disks which stay stand on, layer by layer, and those layers that snapshots have."""
        home = self._lab.home
        staying = [path for path in _files(home.disks) if _owner(path) in self._kept]
        frozen = snapshot_store.needed_layers(home, self._kept)
        disks = [path for path in staying if path.suffix == ".qcow2"]
        if any(not os.access(disk, os.R_OK) for disk in [*disks, *frozen] if disk.exists()):
            # what it stands on cannot be told, so all that could be it stays
            return {*_files(home.disks), *_files(layers.layers_folder(home)), *_files(home.bases)}
        below = {*frozen, *(base for disk in [*disks, *frozen] for base in layers.chain(disk))}
        return below | {path.resolve() for path in below}

    def _is_old(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return self._now - path.lstat().st_mtime > YOUNG
        return False

    def _item(self, kind: Kind, path: Path, why: str) -> Garbage:
        name = path.relative_to(self._lab.home.root).as_posix()
        return Garbage(kind=kind, name=name, path=path, why=why, size=_size(path))


def _owner(path: Path) -> str | None:
    """Return the machine that a file belongs to by its name; None if it is no machine's."""
    if companion := _COMPANION.match(path.name):
        return companion["machine"]
    name, dot, _ = path.name.partition(".")
    return name if dot and _is_name(name) and name != "accelerator" else None


def _is_ours(path: Path, kind: Kind) -> bool:
    """Tell whether *path*, in the folder of what is of *kind*, has a name that we give."""
    if path.name.startswith((".", "_")):
        return path.name.startswith("_") or path.name.endswith(SUFFIX)
    if kind is Kind.DISK and path.name in _SHARED:
        return True
    return _owner(path) is not None and bool(_OWN_SUFFIXES[kind].match(path.name.partition(".")[2]))


def _is_name(text: str) -> bool:
    try:
        return bool(validate_machine_name(text))
    except ValueError:
        return False


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if not path.is_dir() and not path.name.startswith(".")]


def _size(path: Path) -> int:
    """Return the bytes that a file, or all in a folder, takes on the disk."""
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    total = 0
    for each in paths:
        with contextlib.suppress(OSError):
            total += each.lstat().st_blocks * 512
    return total
