"""What the boot handler tells the installer: kernel arguments, and its configuration.

The URL paths are in :mod:`contracts.tokens`."""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import urlsplit

from contracts.arch import Arch
from contracts.machine import DiskBus
from contracts.names import normalize_mac, validate_machine_name

# Kernel arguments the installer's init reads from /proc/cmdline.
ARG_CONFIG_URL = "pvmlab.config"  # URL of the InstallerConfig
ARG_MAC = "pvmlab.mac"  # MAC of the card the machine booted from: the installer configures that one
ARG_MODE = "pvmlab.mode"  # "install" (default) or "shell"

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PayloadSource:
    """A file for the installer to fetch: the archive of a root filesystem (tar, by zstd), a kernel.

    :ivar url: HTTP URL. :ivar sha256: digest of its bytes, in hex; the installer refuses any other.
    :ivar size: in bytes, for progress and as the read limit.
    """

    url: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme != "http" or not urlsplit(self.url).netloc:
            raise ValueError(f"url {self.url!r} is not an http URL")
        if not _SHA256.match(self.sha256):
            raise ValueError("sha256 is not a SHA-256 digest in lower-case hex")
        if self.size <= 0:
            raise ValueError(f"size is {self.size}, must be positive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstallerConfig:
    """Everything the installer needs to know about the machine it runs on.

    :ivar disk: device to install to, as ``/dev/nvme0n1``. It is wiped.
    :ivar disk_serial: its serial number, which counts where its device's name is not certain; else empty.
    :ivar kernel: what the machine was booted with; None if its boot script is not ours, and may boot anything.
    :ivar initrd_tree: what the installer's initrd must have unpacked to, see :mod:`contracts.payload`.
    :ivar modules_tree: the same of the modules.
    :ivar seed_url: base URL of the NoCloud documents, ends in a slash.
    :ivar report_url: where to post reports.
    :ivar domain: DNS domain, for ``/etc/hosts``.
    :ivar kernel_args: kernel arguments of the installed system, besides ``root=`` and ``ro``.
    """

    schema: int = 1
    name: str
    mac: str
    arch: Arch
    distro: str
    domain: str
    disk: str
    rootfs: PayloadSource
    kernel: PayloadSource | None
    initrd_tree: str
    modules_tree: str
    seed_url: str
    report_url: str
    kernel_args: tuple[str, ...]
    reboot_on_success: bool = True
    disk_serial: str = ""

    def __post_init__(self) -> None:
        if self.schema != 1:
            raise ValueError(f"schema {self.schema} is unknown, this version reads 1")
        validate_machine_name(self.name)
        normalize_mac(self.mac)
        if self.disk not in {bus.device for bus in DiskBus}:
            raise ValueError(f"disk {self.disk!r} is not one the lab attaches")
        for digest in (self.initrd_tree, self.modules_tree):
            if not _SHA256.match(digest):
                raise ValueError(f"{digest!r:.80} is not a SHA-256 digest in lower-case hex")
        if not self.seed_url.endswith("/"):
            raise ValueError("seed_url must end in a slash")
