"""Every path, computed once.

Two roots: the *cache* (artifacts, reproducible, may be deleted or shared) and the *home* of a lab (its machines'
state, the user's). ``PVMLAB_CACHE`` and ``PVMLAB_HOME`` move them.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from contracts.arch import BIOS_BINARY, Arch
from pipeline.errors import PrerequisiteError

REPOSITORY = Path(__file__).resolve().parent.parent


def in_repository(*names: str) -> tuple[Path, ...]:
    """Return files and folders of the repository by their names relative to it."""
    return tuple(REPOSITORY / name for name in names)


@dataclasses.dataclass(frozen=True)
class Cache:
    """Where artifacts are."""

    root: Path

    def image(self, distro: str, arch: Arch, name: str) -> Path:
        """A file of a distribution: ``rootfs.tar.zst``, ``vmlinuz``, ``initrd``, ``modules.cpio.gz``."""
        return self.root / "images" / distro / arch / name

    def installer_initrd(self, arch: Arch) -> Path:
        """The initrd the installer runs in."""
        return self.root / "initrds" / arch / "initrd.gz"

    def ipxe(self, arch: Arch) -> Path:
        """The iPXE EFI program for *arch* machines."""
        return self.root / "ipxe" / arch.ipxe_binary

    @property
    def ipxe_bios(self) -> Path:
        """The network boot program for BIOS machines."""
        return self.root / "ipxe" / BIOS_BINARY

    def container(self, arch: Arch) -> Path:
        """The services container, loadable by ``docker load`` and a valid OCI layout."""
        return self.root / "containers" / f"pxeboot_stack_{arch}.tar"

    def provisioner(self, arch: Arch, name: str) -> Path:
        """A file of the provisioner: ``disk.qcow2``, ``vmlinuz``, ``initrd``."""
        return self.root / "images" / "provisioner" / arch / name

    @property
    def images(self) -> Path:
        """Shared read-only into the provisioner."""
        return self.root / "images"

    @property
    def initrds(self) -> Path:
        """Shared read-only into the provisioner."""
        return self.root / "initrds"

    @property
    def logs(self) -> Path:
        """One log file per task."""
        return self.root / "logs"

    @property
    def scratch(self) -> Path:
        """Working directories of running tasks."""
        return self.root / "tmp"

    @property
    def lock(self) -> Path:
        """Held by the one build that may write to the cache."""
        return self.root / ".lock"

    @property
    def children_marker(self) -> Path:
        """Open in every program that a build runs; empty."""
        return self.root / ".children"

    @property
    def state(self) -> Path:
        """What is remembered from run to run (SQLite). Nothing is lost with it, see :mod:`pipeline.state`."""
        return self.root / ".state.db"


@dataclasses.dataclass(frozen=True)
class Home:
    """The state of one lab: ``$PVMLAB_HOME``."""

    root: Path

    @property
    def vms(self) -> Path:
        """Definitions, shared read-only into the provisioner."""
        return self.root / "vms"

    @property
    def status(self) -> Path:
        """Install states and events, written by the provisioner."""
        return self.root / "status"

    @property
    def config(self) -> Path:
        """The provisioner's own configuration and keys, shared read-only into it."""
        return self.root / "config"

    @property
    def templates(self) -> Path:
        """Templates of the person who runs the lab, shared read-only into the provisioner."""
        return self.root / "templates"

    @property
    def disks(self) -> Path:
        """Disk images and UEFI variables of the machines."""
        return self.root / "disks"

    @property
    def bases(self) -> Path:
        """Cloud images, unpacked: what disks are overlays of. Nobody writes into them."""
        return self.root / "bases"

    @property
    def logs(self) -> Path:
        """Ours, serial and QEMU's logs, three per machine."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Process records, QMP sockets, the network's socket. Mode 0700."""
        return self.root / "run"

    @property
    def ssh(self) -> Path:
        """The lab's key pair, known hosts and ssh configuration. Mode 0700."""
        return self.root / "ssh"


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The cache and the home this process works with."""

    cache: Cache
    home: Home

    @classmethod
    def from_environment(cls) -> Workspace:
        """Return the workspace that ``PVMLAB_CACHE`` and ``PVMLAB_HOME`` name, or their defaults.

        :raises PrerequisiteError: if it cannot be told where that is.
        """
        return cls(Cache(_folder("PVMLAB_CACHE", REPOSITORY / "cache")), Home(_folder("PVMLAB_HOME", "~/.pvmlab")))


def _folder(variable: str, usual: str | Path) -> Path:
    named = os.environ.get(variable) or usual
    try:
        return Path(named).expanduser().absolute()
    except (RuntimeError, FileNotFoundError) as error:  # no such user, no HOME; or the folder we stand in was removed
        raise PrerequisiteError(
            f"it cannot be told where {named} is", details=str(error),
            resolution=f"set {variable} to the full path of a folder of yours",
        ) from None  # fmt: skip
