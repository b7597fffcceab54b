"""The machines of the lab, read from ``vms/*.json`` and kept in memory.

Definitions are written by people and replaced while we run. A file that cannot be understood keeps the last good
definition it held and is reported, never skipped in silence; two files that claim the same MAC or IP address are
both refused, since either could be the wrong one.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import time
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from contracts import document
from contracts.lan import Lan
from contracts.machine import VmDefinition
from contracts.names import normalize_mac

_LOG = logging.getLogger(__name__)
_SUFFIX = ".json"
_MAC_OF_BROKEN_FILE = re.compile(rb'"mac"\s*:\s*"([^"\\]{12,32})"')
MAX_DEFINITION_BYTES = 256 * 1024

Signature = tuple[int, int, int, int]
_NEVER: Signature = (0, 0, 0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a definition is refused, or why its last good version is still used.

    :ivar name: the file's name without ``.json``. :ivar reason: one sentence, without secrets.
    :ivar mac: the MAC address in the file, as far as it can be made out.
    :ivar superseded: True if an older, good version of the file is still in use.
    """

    name: str
    reason: str
    mac: str | None = None
    superseded: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machines:
    """What is known at one moment. :ivar faults: by file name, without ``.json``."""

    by_name: Mapping[str, VmDefinition] = dataclasses.field(default_factory=dict)
    by_mac: Mapping[str, VmDefinition] = dataclasses.field(default_factory=dict)
    faults: Mapping[str, Fault] = dataclasses.field(default_factory=dict)

    def find_refused(self, mac: str) -> Fault | None:
        """Return the fault of a refused definition that claims *mac*, or None."""
        return next((fault for fault in self.faults.values() if fault.mac == mac and not fault.superseded), None)


@dataclasses.dataclass
class _File:
    signature: Signature
    good: VmDefinition | None
    fault: Fault | None


class DefinitionStore:
    """Definitions of one directory, parsed again only when a file's stat signature changes.

    :param directory: where the definitions are. :param lan: their addresses must be reservable in it.
    :param interval: seconds between looks at every file. A file that was put in place by rename is seen at once, as
        that changes the directory; one that was edited in place is seen after at most this time.
    """

    def __init__(self, directory: Path, *, lan: Lan, interval: float = 0.5) -> None:
        self._directory = directory
        self._lan = lan
        self._interval = interval
        self._files: dict[str, _File] = {}
        self._directory_signature: Signature | None = None
        self._looked = float("-inf")
        self._machines = Machines()
        self._unreadable = ""

    @property
    def unreadable(self) -> str:
        """Why the directory could not be read at the last look, or nothing."""
        return self._unreadable

    def current(self) -> Machines:
        """Return the machines as the files say now; of an unreadable directory, what was last known."""
        now = time.monotonic()
        try:
            signature = _signature(self._directory.stat())
            if signature == self._directory_signature and now - self._looked < self._interval:
                return self._machines
            changed = self._look()
        except OSError as error:
            self._note_unreadable(f"cannot read {self._directory}: {error.strerror}")
            return self._machines
        self._note_unreadable("")
        self._directory_signature, self._looked = signature, now
        if changed:
            self._index()
        return self._machines

    def _note_unreadable(self, reason: str) -> None:
        if reason and reason != self._unreadable:
            _LOG.error("%s", reason)
        self._unreadable = reason

    def _look(self) -> bool:
        """Read what changed; tell whether anything did."""
        found: dict[str, _File] = {}
        changed = False
        with os.scandir(self._directory) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            if name.startswith(".") or not name.endswith(_SUFFIX):
                continue
            stem = name.removesuffix(_SUFFIX)
            known = self._files.get(stem)
            try:
                signature = _signature((self._directory / name).stat())
            except FileNotFoundError:  # removed since the listing
                continue
            if known is None or known.signature != signature:
                known = self._read(stem, signature=signature, known=known)
                changed = True
            found[stem] = known
        changed = changed or found.keys() != self._files.keys()
        self._files = found
        return changed

    def _read(self, stem: str, *, signature: Signature, known: _File | None) -> _File:
        text = b""
        try:
            with (self._directory / f"{stem}{_SUFFIX}").open("rb") as stream:
                text = stream.read(MAX_DEFINITION_BYTES + 1)
            machine = self._parse(text, stem)
        except (OSError, ValueError) as error:
            good = known.good if known else None
            fault = Fault(name=stem, reason=_reason(error), mac=_find_mac(text), superseded=good is not None)
            if known is None or known.fault != fault:
                _LOG.error("definition %s: %s%s", stem, fault.reason, "; its last good version stays" if good else "")
            # What could not be read is tried again at each look: the cause need not change the file.
            return _File(_NEVER if isinstance(error, OSError) else signature, good, fault)
        return _File(signature, machine, None)

    def _parse(self, text: bytes, stem: str) -> VmDefinition:
        if len(text) > MAX_DEFINITION_BYTES:
            raise ValueError(f"it is longer than {MAX_DEFINITION_BYTES} bytes")
        machine = document.loads(VmDefinition, text)
        if machine.name != stem:
            raise ValueError(f"its name is {machine.name!r}, but the file is {stem}{_SUFFIX}")
        if not self._lan.is_reservable(IPv4Address(machine.ip)):
            raise ValueError(f"its address {machine.ip} is not one of the reservable addresses of {self._lan.subnet}")
        return machine

    def _index(self) -> None:
        faults = {stem: file.fault for stem, file in self._files.items() if file.fault}
        good = [file.good for file in self._files.values() if file.good]
        for clash in _clashes(good):
            _LOG.error("definition %s: %s", clash.name, clash.reason)
            faults[clash.name] = clash
        accepted = [machine for machine in good if machine.name not in faults or faults[machine.name].superseded]
        self._machines = Machines(
            by_name={machine.name: machine for machine in accepted},
            by_mac={machine.mac: machine for machine in accepted},
            faults=faults,
        )


def _clashes(machines: list[VmDefinition]) -> list[Fault]:
    """Return one fault for each machine whose MAC or IP address another one claims too."""
    owners: dict[str, list[str]] = {}
    for machine in machines:
        for address in (machine.mac, machine.ip):
            owners.setdefault(address, []).append(machine.name)
    return [
        Fault(
            name=machine.name,
            mac=machine.mac,
            reason=f"the definitions {' and '.join(owners[address])} have the same address {address}: all are refused",
        )
        for machine in machines
        for address in (machine.mac, machine.ip)
        if len(owners[address]) > 1
    ]


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


def _find_mac(text: bytes) -> str | None:
    """Return the MAC address that a broken definition most likely means, so that its machine is told the truth."""
    match = _MAC_OF_BROKEN_FILE.search(text)
    if match is None:
        return None
    try:
        return normalize_mac(match[1].decode("ascii", errors="replace"))
    except ValueError:
        return None
