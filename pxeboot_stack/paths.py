"""Every path of the container, computed once."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from contracts import document
from contracts.lan import Lan


@dataclasses.dataclass(frozen=True)
class HostShares:
    """The host's directories, at the same place in the provisioner and in its container."""

    root: Path = Path("/mnt/host")

    @property
    def images(self) -> Path:
        """Artifacts of the distributions, read-only."""
        return self.root / "images"

    @property
    def initrds(self) -> Path:
        """Installer initrds, read-only."""
        return self.root / "initrds"

    @property
    def vms(self) -> Path:
        """Definitions of the machines, read-only."""
        return self.root / "vms"

    @property
    def status(self) -> Path:
        """Install states; the one place we write to on the host."""
        return self.root / "status"

    @property
    def lab(self) -> Path:
        """The lab's network: :class:`contracts.lan.Lan`."""
        return self.root / "config" / "lab.json"

    @property
    def templates(self) -> Path:
        """Templates of the person who runs the lab, read-only."""
        return self.root / "templates"

    @property
    def boot_id(self) -> Path:
        """One line that tells this start of the provisioner from others."""
        return self.root / "config" / "boot_id"

    @property
    def announcement(self) -> Path:
        """What the provisioner says of itself; see the scripts in ``provisioner/usr/local/lib/pvmlab``."""
        return self.status / "provisioner.json"

    def read_lan(self) -> Lan:
        """Return the lab's network.

        :raises OSError: if the file cannot be read. :raises DocumentError: if it is not a valid ``Lan``.
        """
        return document.loads(Lan, self.lab.read_bytes())


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What the container writes for itself, on a tmpfs: all of it is made again at each start."""

    root: Path = Path("/run/pvmlab")

    @property
    def dnsmasq_conf(self) -> Path:
        """Rendered once, at the start."""
        return self.root / "dnsmasq.conf"

    @property
    def dnsmasq_pid(self) -> Path:
        """Written by dnsmasq, read by the watcher."""
        return self.root / "dnsmasq.pid"

    @property
    def dnsmasq_log(self) -> Path:
        """Unix datagram socket of the boot handler: the supervisor sends it each line that dnsmasq says."""
        return self.root / "dnsmasq.log"

    @property
    def dhcp_hosts(self) -> Path:
        """Reservations, in the form of dnsmasq's ``dhcp-hostsfile``. Written by the watcher."""
        return self.root / "dhcp-hosts"

    @property
    def dns_hosts(self) -> Path:
        """Names and addresses, in the form of ``/etc/hosts``. Written by the watcher."""
        return self.root / "dns-hosts"

    @property
    def leases(self) -> Path:
        """dnsmasq's lease file."""
        return self.root / "dnsmasq.leases"

    @property
    def tftp(self) -> Path:
        """The TFTP root."""
        return self.root / "tftp"

    @property
    def nginx_conf(self) -> Path:
        """Rendered once, at the start."""
        return self.root / "nginx.conf"

    @property
    def access_log(self) -> Path:
        """Unix datagram socket of the boot handler: nginx sends it a line for each request, in syslog's form."""
        return self.root / "access.log"

    @property
    def services(self) -> Path:
        """What the supervisor says of its services: :mod:`pxeboot_stack.supervisor`."""
        return self.root / "services.json"

    @property
    def healthy(self) -> Path:
        """Written while all services answer: :mod:`pxeboot_stack.health`."""
        return self.root / "healthy"

    @property
    def nginx(self) -> Path:
        """nginx's directory for temporary files."""
        return self.root / "nginx"


def host_shares() -> HostShares:
    """Return the shares that ``PVMLAB_HOST_DIR`` names, or those at the usual place."""
    return HostShares(Path(os.environ.get("PVMLAB_HOST_DIR") or "/mnt/host"))


def run_files() -> RunFiles:
    """Return the run directory that ``PVMLAB_RUN_DIR`` names, or the usual one."""
    return RunFiles(Path(os.environ.get("PVMLAB_RUN_DIR") or "/run/pvmlab"))
