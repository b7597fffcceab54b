"""Keeps dnsmasq's reservations, names and leases in accord with the definitions.

It polls: the directory is a 9p share, and a change made on the host raises no inotify event in the guest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from contracts.lan import Lan
from pxeboot_stack import leases
from pxeboot_stack.definitions import DefinitionStore
from pxeboot_stack.paths import RunFiles, host_shares, run_files
from pxeboot_stack.publish import publish_text
from pxeboot_stack.reservations import render_dhcp_hosts, render_dns_hosts
from pxeboot_stack.services import LAN_INTERFACE

_LOG = logging.getLogger(__name__)
INTERVAL = 0.5  # seconds between two looks
_PROGRAM = "dnsmasq"


class Watcher:
    """Writes the hosts files when the definitions change, and has dnsmasq read them again.

    :param vms: the definitions. :param run: where the hosts files are, and dnsmasq's process id.
    """

    def __init__(self, vms: Path, *, lan: Lan, run: RunFiles) -> None:
        self._definitions = DefinitionStore(vms, lan=lan, interval=0)
        self._lan = lan
        self._run = run
        self._signal_due = False

    def look(self) -> bool:
        """Look once; tell whether anything was written.

        The signal is kept until dnsmasq is there to get it: it may have read the old files while it started.

        :raises OSError: if the files cannot be written, or dnsmasq cannot be told; the next look tries again.
        """
        machines = self._definitions.current().by_name.values()
        wanted = {
            self._run.dhcp_hosts: render_dhcp_hosts(machines),
            self._run.dns_hosts: render_dns_hosts(machines, self._lan),
        }
        changed = {path: text for path, text in wanted.items() if _read(path) != text}
        for path, text in changed.items():
            publish_text(path, text)
            self._signal_due = True
        if changed:
            _LOG.info("reservations written for %d machines", len(machines))
        if self._signal_due and reload_dnsmasq(self._run.dnsmasq_pid):
            self._signal_due = False
        if foreign := leases.find_foreign(leases.read_leases(self._run.leases), machines):
            leases.release(foreign, server=self._lan.provisioner, interface=LAN_INTERFACE)
        return bool(changed)


def reload_dnsmasq(pid_file: Path) -> bool:
    """Have dnsmasq read its hosts files again; tell whether it runs.

    The process id may be an old one that now belongs to another program: only dnsmasq is signalled.
    """
    try:
        pid = int(pid_file.read_text())
        if pid <= 0 or Path(f"/proc/{pid}/comm").read_text().strip() != _PROGRAM:
            return False
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError):  # not started yet, or just ended
        return False
    return True


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8")
    return None


def main() -> None:
    """Look for ever."""
    logging.basicConfig(level=logging.INFO, format="watcher: %(levelname)s %(message)s", force=True)
    shares = host_shares()
    watcher = Watcher(shares.vms, lan=shares.read_lan(), run=run_files())
    while True:
        try:
            watcher.look()
        except OSError as error:
            _LOG.error("%s", error)
        time.sleep(INTERVAL)
