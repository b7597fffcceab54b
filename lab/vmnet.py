"""The lab's network on macOS: socket_vmnet, which a person runs as root, and machines connect to.

socket_vmnet speaks the same framing as the switch (QEMU's stream, :mod:`lab.switch`), so machines connect to it without
a program in between. It must run in host mode with a network identifier: that turns macOS's own DHCP server off, which
would answer before ours. None of this was ever run by us on macOS: tests check arguments and refusals only.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import uuid
from pathlib import Path

from lab.network import NetworkKind, PortView
from lab.network_settings import NetworkSettings
from lab.sockets import listens
from pipeline.errors import PrerequisiteError

# Homebrew on Apple's processors and on Intel's, then MacPorts and a build from source.
SOCKETS = ("/opt/homebrew/var/run/socket_vmnet", "/usr/local/var/run/socket_vmnet", "/var/run/socket_vmnet")


class VmnetNetwork:
    """socket_vmnet, for the lab with that *identity*. :param platform: as ``sys.platform``."""

    def __init__(self, settings: NetworkSettings, *, identity: str, platform: str = sys.platform) -> None:
        self._settings = settings
        self._identity = identity
        self._platform = platform

    @property
    def kind(self) -> NetworkKind:
        """socket_vmnet."""
        return NetworkKind.VMNET

    @property
    def socket(self) -> Path:
        """Where it listens: the one that was named, or the first usual one that is there."""
        if self._settings.socket:
            return Path(self._settings.socket)
        return next((path for path in map(Path, SOCKETS) if path.exists()), Path(SOCKETS[0]))

    def daemon_command(self) -> list[str]:
        """Return the command that a person runs as root. The network's identifier is the same for a lab for ever."""
        digest = hashlib.sha256(f"{self._identity}/vmnet".encode()).digest()
        network = uuid.UUID(bytes=digest[:16], version=4)
        words = ["--vmnet-mode=host", f"--vmnet-network-identifier={network}"]
        return ["sudo", "socket_vmnet", *words, str(self.socket)]

    def require_usable(self) -> None:
        """Check that this is macOS and that socket_vmnet runs.

        :raises PrerequisiteError: if not; the resolution says how to run it.
        """
        if self._platform != "darwin":
            raise PrerequisiteError(
                "socket_vmnet is a program for macOS",
                details=f"this is {self._platform}",
                resolution="./pvmlab net.create --kind switch, or on Linux --kind bridge",
            )
        if not listens(self.socket):
            raise PrerequisiteError(
                "socket_vmnet does not run",
                details=f"nobody listens on {self.socket}",
                resolution=f"brew install socket_vmnet; {shlex.join(self.daemon_command())}",
            )

    def attach(self, machine: str, cards: int) -> Path:  # noqa: ARG002 (all plug into the same socket)
        """Return the socket. :raises PrerequisiteError: if socket_vmnet does not run."""
        self.require_usable()
        return self.socket

    def stop(self) -> None:
        """Do nothing: it is a person's, and of other labs too."""

    def is_running(self) -> bool:
        """Say whether somebody listens."""
        return listens(self.socket)

    def ports(self) -> list[PortView]:
        """Return nobody: socket_vmnet does not tell."""
        return []

    def leftovers(self) -> list[str]:
        """Return nothing: nothing of it is ours."""
        return []
