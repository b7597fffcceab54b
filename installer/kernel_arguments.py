"""What the kernel command line tells the installer."""

from __future__ import annotations

import dataclasses
from urllib.parse import urljoin

from contracts.install import ARG_CONFIG_URL, ARG_MAC
from contracts.names import normalize_mac
from contracts.tokens import mask
from installer.errors import InstallError


@dataclasses.dataclass(frozen=True)
class KernelArguments:
    """Which card to use and whom to ask. :ivar mac: of the card the machine booted from."""

    mac: str
    config_url: str

    @property
    def report_url(self) -> str:
        """Where to report until the configuration says so: beside it (contracts.tokens)."""
        return urljoin(self.config_url, "report")


def parse(cmdline: str) -> KernelArguments:
    """Return what ``/proc/cmdline`` says; the last of repeated arguments counts, as for the kernel.

    :raises InstallError: naming the argument that is missing or wrong.
    """
    values = dict(word.split("=", 1) for word in cmdline.split() if "=" in word)
    for name in (ARG_MAC, ARG_CONFIG_URL):
        if not values.get(name):
            raise InstallError(f"the kernel command line has no {name}=")
    try:
        mac = normalize_mac(values[ARG_MAC])
    except ValueError as error:
        raise InstallError(f"{ARG_MAC}: {error}") from None
    if not values[ARG_CONFIG_URL].startswith("http://"):
        raise InstallError(f"{ARG_CONFIG_URL}: {mask(values[ARG_CONFIG_URL])!r} is not an http URL")
    return KernelArguments(mac, values[ARG_CONFIG_URL])
