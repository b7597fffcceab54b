"""What the boot handler is told from outside."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from contracts.lan import Lan
from contracts.tokens import RECORDS
from pxeboot_stack.paths import HostShares, RunFiles, host_shares, run_files

LISTEN_ADDRESS = "127.0.0.1"  # nginx is in front; nobody else may reach us, as we believe what its headers say
LISTEN_PORT = 8080


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Where things are, and the network they are told about.

    :ivar lan: its ``base_url`` begins every URL we write; the Host header of a request never does.
    :ivar templates: a person's own templates; the folder need not be there.
    :ivar run: the container's own files: dnsmasq's process id, the sockets that log lines come from.
    """

    lan: Lan
    vms: Path
    status: Path
    images: Path
    initrds: Path
    templates: Path
    run: RunFiles

    @classmethod
    def of_shares(cls, shares: HostShares, lan: Lan, run: RunFiles) -> Settings:
        """Return the settings for the directories the host shares."""
        return cls(
            lan=lan, vms=shares.vms, status=shares.status, images=shares.images, initrds=shares.initrds,
            templates=shares.templates, run=run,
        )  # fmt: skip

    @property
    def tokens(self) -> Path:
        """Where the digests of the machines' tokens are kept: on the host, where they outlive the provisioner."""
        return self.status / RECORDS

    @classmethod
    def from_environment(cls) -> Settings:
        """Return the settings of this container.

        :raises OSError: if ``lab.json`` cannot be read. :raises DocumentError: if it is not valid.
        """
        shares = host_shares()
        return cls.of_shares(shares, shares.read_lan(), run_files())
