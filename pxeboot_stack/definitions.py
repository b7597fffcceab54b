"""The machines of the lab, read from ``vms/*.json`` and kept in memory, indexed.

Definitions are written by people and replaced while we run. A file that cannot be understood keeps the last good
definition it held and is reported, never skipped in silence; machines that claim the same MAC or IP address are all
refused, since any of them could be the wrong one.

We poll: the directory is a 9p share, and a change made on the host raises no inotify event in the guest. A look costs
one ``stat`` as long as nothing is put in place or removed, whatever the number of files: both change the directory. A
changed directory is listed, and only files with another inode are read, as a file that is put in place by rename has.
Files that were edited in place, or replaced twice between two looks by way of the same inode, are found by looking at
each in turn, for a bounded time at each look.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import MappingProxyType

from contracts import document
from contracts.lan import Lan
from contracts.machine import VmDefinition
from contracts.names import normalize_mac
from contracts.regular_file import open_regular

_LOG = logging.getLogger(__name__)
_SUFFIX = ".json"
_MAC_OF_BROKEN_FILE = re.compile(rb'"mac"\s*:\s*"([^"\\]{12,32})"')
MAX_DEFINITION_BYTES = 256 * 1024
INTERVAL = 0.25  # seconds between two looks
SWEEP_INTERVAL = 0.5  # seconds between two looks at single files
SWEEP = 0.02  # seconds that such a look takes at most: some 10,000 files of a local disk, some 200 of a share

Signature = tuple[int, int, int, int]
_NEVER: Signature = (0, 0, 0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a definition is refused, or why its last good version is still used.

    :ivar name: the file's name without ``.json``. :ivar reason: one sentence, without secrets.
    :ivar macs: the MAC addresses in the file, as far as they can be made out.
    :ivar superseded: True if an older, good version of the file is still in use.
    """

    name: str
    reason: str
    macs: tuple[str, ...] = ()
    superseded: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machines:
    """What is known: views that change with the next look, and cost nothing to hand out.

    :ivar by_mac: by each card's MAC address. :ivar by_address: by each card's IPv4 and IPv6 address.
    :ivar by_uuid: by SMBIOS UUID. :ivar faults: by file name, without ``.json``.
    """

    by_name: Mapping[str, VmDefinition] = dataclasses.field(default_factory=dict)
    by_mac: Mapping[str, VmDefinition] = dataclasses.field(default_factory=dict)
    by_address: Mapping[str, VmDefinition] = dataclasses.field(default_factory=dict)
    by_uuid: Mapping[str, VmDefinition] = dataclasses.field(default_factory=dict)
    faults: Mapping[str, Fault] = dataclasses.field(default_factory=dict)

    def find_refused(self, mac: str) -> Fault | None:
        """Return the fault of a refused definition that claims *mac*, or None."""
        return next((fault for fault in self.faults.values() if mac in fault.macs and not fault.superseded), None)


@dataclasses.dataclass(frozen=True)
class _File:
    inode: int  # as the listing of the directory says it
    signature: Signature
    good: VmDefinition | None
    fault: Fault | None


class _Index:
    """Machines by all they are found by, and who claims which address. One change costs what that machine has."""

    def __init__(self) -> None:
        self.by_name: dict[str, VmDefinition] = {}
        self.by_mac: dict[str, VmDefinition] = {}
        self.by_address: dict[str, VmDefinition] = {}
        self.by_uuid: dict[str, VmDefinition] = {}
        self.faults: dict[str, Fault] = {}
        self._files: dict[str, _File] = {}
        self._claims: dict[str, set[str]] = {}

    def view(self) -> Machines:
        return Machines(
            by_name=MappingProxyType(self.by_name),
            by_mac=MappingProxyType(self.by_mac),
            by_address=MappingProxyType(self.by_address),
            by_uuid=MappingProxyType(self.by_uuid),
            faults=MappingProxyType(self.faults),
        )

    def put(self, stem: str, file: _File | None) -> None:
        """Take over what the file *stem* holds now; None: it is gone."""
        touched = {stem}
        old = self._files.pop(stem, None)
        if old is not None and old.good is not None:
            for key in _keys(old.good):
                claimants = self._claims[key]
                claimants.discard(stem)
                touched |= claimants
                if not claimants:
                    del self._claims[key]
        if file is not None:
            self._files[stem] = file
            if file.good is not None:
                for key in _keys(file.good):
                    claimants = self._claims.setdefault(key, set())
                    touched |= claimants
                    claimants.add(stem)
        for each in touched:
            self._settle(each)

    def _settle(self, stem: str) -> None:
        """Accept or refuse one machine, by its file and by who else claims its addresses."""
        file, before = self._files.get(stem), self.faults.pop(stem, None)
        if (accepted := self.by_name.pop(stem, None)) is not None:
            self.by_uuid.pop(accepted.uuid, None)
            for card in accepted.cards:
                self.by_mac.pop(card.mac, None)
                for address in filter(None, (card.ip, card.ipv6)):
                    self.by_address.pop(address, None)
        if file is None:
            return
        clash = self._find_clash(file.good) if file.good is not None else None
        fault = clash or file.fault
        if fault is not None:
            self.faults[stem] = fault
            if clash is not None and fault != before:
                _LOG.error("definition %s: %s", stem, fault.reason)
        if file.good is not None and clash is None:
            self._accept(file.good)

    def _accept(self, machine: VmDefinition) -> None:
        self.by_name[machine.name] = self.by_uuid[machine.uuid] = machine
        for card in machine.cards:
            self.by_mac[card.mac] = machine
            for address in filter(None, (card.ip, card.ipv6)):
                self.by_address[address] = machine

    def _find_clash(self, machine: VmDefinition) -> Fault | None:
        for key in _keys(machine):
            claimants = self._claims[key]
            if len(claimants) > 1:
                what = "UUID" if key == machine.uuid else "address"
                reason = f"the definitions {' and '.join(sorted(claimants))} have the same {what} {key}"
                macs = tuple(card.mac for card in machine.cards)
                return Fault(name=machine.name, macs=macs, reason=f"{reason}: all are refused")
        return None


class DefinitionStore:
    """Definitions of one directory, parsed again only when a file's stat signature changes.

    :param directory: where the definitions are. :param lan: their addresses must be reservable in it.
    :param interval: seconds between looks at single files (see the module's text).
    """

    def __init__(self, directory: Path, *, lan: Lan, interval: float = SWEEP_INTERVAL) -> None:
        self._directory = directory
        self._lan = lan
        self._interval = interval
        self._files: dict[str, _File] = {}
        self._round: Iterator[str] = iter(())
        self._index = _Index()
        self._machines = self._index.view()
        self._directory_signature: Signature | None = None
        self._list_again = float("inf")
        self._looked = float("-inf")
        self._unreadable = ""
        self.generation = 0  # another number after each change
        self.last_reload = 0.0  # seconds that reading the last changes took

    @property
    def unreadable(self) -> str:
        """Why the directory could not be read at the last look, or nothing."""
        return self._unreadable

    def current(self) -> Machines:
        """Return the machines as the files say now; of an unreadable directory, what was last known."""
        now = time.monotonic()
        try:
            signature = _signature(self._directory.stat())
            changed = signature != self._directory_signature
            if changed or now >= self._list_again:
                before = self.generation
                self._list()
                # Time stamps are coarse: a second change within the same tick of the clock leaves no trace.
                self._list_again = now + self._interval if changed else float("inf")
                self._directory_signature = signature
                if self.generation != before:
                    self.last_reload = time.monotonic() - now
            if now - self._looked >= self._interval:
                self._looked = now
                self._sweep()
        except OSError as error:
            self._note_unreadable(f"cannot read {self._directory}: {error.strerror}")
            return self._machines
        self._note_unreadable("")
        return self._machines

    def _note_unreadable(self, reason: str) -> None:
        if reason and reason != self._unreadable:
            _LOG.error("%s", reason)
        self._unreadable = reason

    def _list(self) -> None:
        """Read the files that are new or other ones, forget those that are gone."""
        with os.scandir(self._directory) as entries:
            inodes = {
                entry.name.removesuffix(_SUFFIX): entry.inode()
                for entry in entries
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith(".")
            }
        for stem in self._files.keys() - inodes.keys():
            self._put(stem, None)
        for stem, inode in inodes.items():
            known = self._files.get(stem)
            if known is None or known.inode != inode:
                self._check(stem, inode)

    def _sweep(self) -> None:
        """Look at as many files as there is time for, those next that were looked at longest ago."""
        end = time.monotonic() + SWEEP
        for _ in range(len(self._files)):
            stem = next(self._round, None)
            if stem is None:
                self._round = iter(list(self._files))
                stem = next(self._round)
            if (known := self._files.get(stem)) is not None:
                self._check(stem, known.inode)
            if time.monotonic() > end:
                return

    def _check(self, stem: str, inode: int) -> None:
        known = self._files.get(stem)
        try:
            # Not a Path: ten thousand of these are made at each sweep, and would cost ten times the look.
            signature = _signature(os.stat(f"{self._directory}/{stem}{_SUFFIX}"))  # noqa: PTH116
        except FileNotFoundError:  # removed since the listing, or a link to nothing
            if known is not None:
                self._put(stem, None)
            return
        if known is None or known.signature != signature:
            self._put(stem, self._read(stem, inode=inode, signature=signature, known=known))
        elif known.inode != inode:
            self._files[stem] = dataclasses.replace(known, inode=inode)

    def _put(self, stem: str, file: _File | None) -> None:
        before = self._files.pop(stem, None)
        if file is not None:
            self._files[stem] = file
        if file is None or before is None or (file.good, file.fault) != (before.good, before.fault):
            self._index.put(stem, file)
            self.generation += 1

    def _read(self, stem: str, *, inode: int, signature: Signature, known: _File | None) -> _File:
        text = b""
        try:
            with open(self._directory / f"{stem}{_SUFFIX}", "rb", opener=open_regular) as stream:
                text = stream.read(MAX_DEFINITION_BYTES + 1)
            machine = self._parse(text, stem)
        except (OSError, ValueError) as error:
            good = known.good if known else None
            fault = Fault(name=stem, reason=_reason(error), macs=_find_macs(text), superseded=good is not None)
            if known is None or known.fault != fault:
                _LOG.error("definition %s: %s%s", stem, fault.reason, "; its last good version stays" if good else "")
            # What could not be read is tried again at each look: the cause need not change the file.
            return _File(inode, _NEVER if isinstance(error, OSError) else signature, good, fault)
        return _File(inode, signature, machine, None)

    def _parse(self, text: bytes, stem: str) -> VmDefinition:
        if len(text) > MAX_DEFINITION_BYTES:
            raise ValueError(f"it is longer than {MAX_DEFINITION_BYTES} bytes")
        machine = document.loads(VmDefinition, text)
        if machine.name != stem:
            raise ValueError(f"its name is {machine.name!r}, but the file is {stem}{_SUFFIX}")
        for card in machine.cards:
            if not self._lan.is_reservable(IPv4Address(card.ip)):
                raise ValueError(f"its address {card.ip} is not one of the reservable addresses of {self._lan.subnet}")
            # In a lab without IPv6 the address lies idle.
            if card.ipv6 and self._lan.ipv6_subnet and not self._lan.is_reservable_ipv6(IPv6Address(card.ipv6)):
                raise ValueError(f"its address {card.ipv6} is not a reservable one of {self._lan.ipv6_subnet}")
        return machine


def _keys(machine: VmDefinition) -> list[str]:
    """Return what no other machine may have: the addresses of its cards, and its UUID."""
    cards = [key for card in machine.cards for key in (card.mac, card.ip, card.ipv6) if key]
    return [*cards, machine.uuid]


def _signature(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, document.DocumentError):
        # A fault quotes the value it is about: the host key's must not get into logs and answers.
        faults = ("ssh_host_key: not valid" if "ssh_host_key" in fault else fault for fault in error.faults)
        return "not a valid definition: " + "; ".join(faults)
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    return str(error)


def _find_macs(text: bytes) -> tuple[str, ...]:
    """Return the MAC addresses that a broken definition most likely means, so that its machine is told the truth."""
    found = []
    for match in _MAC_OF_BROKEN_FILE.findall(text):
        try:
            found.append(normalize_mac(match.decode("ascii", errors="replace")))
        except ValueError:
            continue
    return tuple(found)
