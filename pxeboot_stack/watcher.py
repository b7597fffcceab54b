"""Keeps dnsmasq's reservations, names and leases in accord with the definitions.

It polls (see :mod:`.definitions`): a definition that is put in place is live within :data:`INTERVAL` and what dnsmasq
takes to read its files again, on a 9p share as on a disk. Nothing is restarted: dnsmasq reads its hosts files at
SIGHUP, between two packets, and keeps its leases.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

from contracts.lan import Lan
from pxeboot_stack import leases, logs
from pxeboot_stack.definitions import INTERVAL, SWEEP_INTERVAL, DefinitionStore, Machines
from pxeboot_stack.paths import RunFiles, host_shares, run_files
from pxeboot_stack.publish import publish_text
from pxeboot_stack.reservations import render_dhcp_hosts, render_dns_hosts
from pxeboot_stack.services import LAN_INTERFACE

_LOG = logging.getLogger(__name__)
_PROGRAM = "dnsmasq"
_Stamp = tuple[int, int, int] | None


class Watcher:
    """Writes the hosts files when the definitions change, and has dnsmasq read them again.

    :param vms: the definitions. :param run: where the hosts files are, and dnsmasq's process id.
    :param interval: see :class:`.definitions.DefinitionStore`.
    """

    def __init__(self, vms: Path, *, lan: Lan, run: RunFiles, interval: float = SWEEP_INTERVAL) -> None:
        self._definitions = DefinitionStore(vms, lan=lan, interval=interval)
        self._lan = lan
        self._run = run
        self._signal_due = False
        self._written: tuple[int, _Stamp, _Stamp] | None = None
        self._released: tuple[int, _Stamp] | None = None

    def look(self) -> bool:
        """Look once; tell whether anything was written.

        The signal is kept until dnsmasq is there to get it: it may have read the old files while it started.

        :raises OSError: if the files cannot be written, or dnsmasq cannot be told; the next look tries again.
        """
        machines = self._definitions.current()
        changed = self._state() != self._written and self._write(machines)
        if changed:
            self._signal_due = True
            _LOG.info("reservations written for %d machines", len(machines.by_name))
        if self._signal_due and reload_dnsmasq(self._run.dnsmasq_pid):
            self._signal_due = False
        self._release_foreign(machines)
        return changed

    def _state(self) -> tuple[int, _Stamp, _Stamp]:
        return self._definitions.generation, _stamp(self._run.dhcp_hosts), _stamp(self._run.dns_hosts)

    def _write(self, machines: Machines) -> bool:
        """Write what differs. The definitions may have changed in what is none of dnsmasq's business."""
        known = machines.by_name.values()
        wanted = {
            self._run.dhcp_hosts: render_dhcp_hosts(known),
            self._run.dns_hosts: render_dns_hosts(known, self._lan),
        }
        changed = {path: text for path, text in wanted.items() if _read(path) != text}
        for path, text in changed.items():
            publish_text(path, text)
        self._written = self._state()
        return bool(changed)

    def _release_foreign(self, machines: Machines) -> None:
        """Take back the addresses that others than their machines have, if definitions or leases have changed."""
        seen = self._definitions.generation, _stamp(self._run.leases)
        if seen == self._released:
            return
        if foreign := leases.find_foreign(leases.read_leases(self._run.leases), machines.by_name.values()):
            # Nothing answers a release: the next look asks the lease file whether it was heard.
            leases.release(foreign, server=self._lan.provisioner, interface=LAN_INTERFACE)
        else:
            self._released = seen


def reload_dnsmasq(pid_file: Path) -> bool:
    """Have dnsmasq read its hosts files again; tell whether it runs."""
    pid = find_dnsmasq(pid_file)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError:  # just ended
        return False
    return True


def find_dnsmasq(pid_file: Path) -> int | None:
    """Return the process id of the dnsmasq that wrote *pid_file*, or None if it does not run.

    The number may be an old one that now belongs to another program.
    """
    try:
        pid = int(pid_file.read_text())
        if pid <= 0 or Path(f"/proc/{pid}/comm").read_text().strip() != _PROGRAM:
            return None
    except (OSError, ValueError):  # not started yet, or just ended
        return None
    return pid


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def main() -> None:
    """Look for ever."""
    logs.configure("watcher")
    shares = host_shares()
    watcher = Watcher(shares.vms, lan=shares.read_lan(), run=run_files())
    while True:
        try:
            watcher.look()
        except OSError as error:
            _LOG.error("%s", error)
        time.sleep(INTERVAL)
