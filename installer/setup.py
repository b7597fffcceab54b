"""Phase 6: make the unpacked system this machine's own."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from contracts.install import InstallerConfig
from installer.disk import Layout
from installer.errors import InstallError
from installer.seed import Seed

_SEED_FOLDER = "var/lib/cloud/seed/nocloud"

# With one datasource to choose from, cloud-init does not probe for the others.
CLOUD_CONFIG = "# Written by the pvmlab installer.\ndatasource_list: [NoCloud]\n"


def render_fstab(layout: Layout) -> str:
    """Return ``/etc/fstab``."""
    return (
        "# Written by the pvmlab installer.\n"
        f"UUID={layout.root_uuid} / ext4 errors=remount-ro 0 1\n"
        f"UUID={layout.esp_uuid} /boot/efi vfat umask=0077 0 0\n"
    )


def render_hosts(name: str, domain: str) -> str:
    """Return ``/etc/hosts``. Without a line for the machine's own name, sudo waits for DNS."""
    return (
        "127.0.0.1 localhost\n"
        f"127.0.1.1 {name}.{domain} {name}\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
        "ff02::1 ip6-allnodes\n"
        "ff02::2 ip6-allrouters\n"
    )


def plan_files(config: InstallerConfig, layout: Layout, *, machine_id: str) -> Mapping[str, str]:
    """Return the files to write below the new root: path to text."""
    return {
        "etc/fstab": render_fstab(layout),
        "etc/hostname": f"{config.name}\n",
        "etc/hosts": render_hosts(config.name, config.domain),
        # Written here, not at the first boot: it saves systemd's first-boot work, and no two installs share one.
        "etc/machine-id": f"{machine_id}\n",
        "etc/cloud/cloud.cfg.d/90-pvmlab.cfg": CLOUD_CONFIG,
    }


def apply(config: InstallerConfig, layout: Layout, seed: Seed, root: Path) -> None:
    """Write what makes the system at *root* this machine's, and read it back.

    :raises InstallError: if the tree is no system, or what was written is not what is there.
    """
    if not (root / "etc").is_dir() or not (root / "usr/lib").is_dir():
        raise InstallError("the root filesystem has no /etc and /usr/lib: it is not a system")
    for key in root.glob("etc/ssh/ssh_host_*"):
        key.unlink()  # made when the image was: all machines would share them
    files = plan_files(config, layout, machine_id=uuid.uuid4().hex)
    for path, text in files.items():
        _write(root / path, text.encode(), mode=0o644)
    folder = root / _SEED_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name, data in seed.items():
        _write(folder / name, data, mode=0o600)  # user-data holds the private host key
    _mark_updated(root)
    written = {path: text.encode() for path, text in files.items()}
    verify(root, written | {f"{_SEED_FOLDER}/{name}": data for name, data in seed.items()})


def verify(root: Path, expected: Mapping[str, bytes]) -> None:
    """Read the files *expected* back.

    :raises InstallError: naming the first that is empty or not as written.
    """
    for path, data in expected.items():
        found = (root / path).read_bytes() if (root / path).is_file() else b""
        if not found.strip():
            raise InstallError(f"/{path} is empty or missing on the new system")
        if found != data:
            raise InstallError(f"/{path} is not what was written to it")


def _write(path: Path, data: bytes, *, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a symlink of the image must not lead elsewhere
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(data)


def _mark_updated(root: Path) -> None:
    """Tell systemd that /etc and /var match /usr (systemd-update-done.service): its first boot rebuilds no caches."""
    moment = max(time.time(), (root / "usr").stat().st_mtime)  # the clock of a machine without a battery is in the past
    for folder in ("etc", "var"):
        marker = root / folder / ".updated"
        marker.touch()
        os.utime(marker, (moment, moment))
