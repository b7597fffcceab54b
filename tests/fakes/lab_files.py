"""A lab's files as the host writes them: definitions, artifacts with sidecars, and the settings that point at them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from contracts import document, sidecar
from contracts.answers import BOOT_FILES
from contracts.arch import Arch
from contracts.lan import Lan
from contracts.machine import SshHostKey, VmDefinition
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import RunFiles

HOST_KEY = SshHostKey(
    private="-----BEGIN OPENSSH PRIVATE KEY-----\nTHE-SECRET\n-----END OPENSSH PRIVATE KEY-----\n",
    public="ssh-ed25519 AAAAhostkey web1",
)
ROOTFS = b"a root filesystem, as it were"


def make_machine(**changes: Any) -> VmDefinition:
    """Return a good definition of ``web1``, with *changes*."""
    values: dict[str, Any] = {
        "name": "web1",
        "arch": Arch.X86_64,
        "distro": "debian-12",
        "mac": "52:54:00:aa:bb:01",
        "ip": "192.168.100.11",
        "uuid": "6f3b2d56-0a3c-4a7e-9e6f-0123456789ab",
        "ssh_authorized_keys": ("ssh-ed25519 AAAAlabkey lab",),
        "ssh_host_key": HOST_KEY,
    }
    return VmDefinition(**values | changes)


def write_definition(vms: Path, machine: VmDefinition) -> Path:
    """Put the definition in place as the host does: by rename."""
    path = vms / f"{machine.name}.json"
    temporary = vms / f".{machine.name}.partial"
    temporary.write_text(document.dumps(machine))
    temporary.replace(path)
    return path


def write_artifacts(settings: Settings, *, distro: str = "debian-12", arch: Arch = Arch.X86_64) -> None:
    """Write all that an install of *distro* needs."""
    images, initrds = settings.images / distro / arch, settings.initrds / arch
    images.mkdir(parents=True, exist_ok=True)
    initrds.mkdir(parents=True, exist_ok=True)
    for path, data in {
        initrds / "initrd.gz": b"initrd", images / "modules.cpio.gz": b"modules", images / "rootfs.tar.zst": ROOTFS,
        images / "vmlinuz": b"kernel",
    }.items():  # fmt: skip
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        facts = {"tree": digest} if path.name.endswith(".gz") else {}
        record = {"schema": sidecar.SCHEMA, "sha256": digest, "size": len(data), "inputs": {}, "facts": facts}
        path.with_name(f"{path.name}{sidecar.SUFFIX}").write_text(json.dumps(record))


def write_native(settings: Settings, machine: VmDefinition) -> None:
    """Write all that the distribution's own installer is booted from."""
    for name in BOOT_FILES[machine.installer]:
        path = settings.images / machine.distro / machine.arch / "native" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def make_settings(root: Path, lan: Lan | None = None, run: RunFiles | None = None) -> Settings:
    """Return settings for directories below *root*, which are made."""
    settings = Settings(
        lan=lan or Lan(), vms=root / "vms", status=root / "status", images=root / "images", initrds=root / "initrds",
        templates=root / "templates", run=run or RunFiles(root / "run"),
    )  # fmt: skip
    shares = (settings.vms, settings.status, settings.images, settings.initrds, settings.templates)
    for path in (*shares, settings.run.root):
        path.mkdir(parents=True, exist_ok=True)
    return settings
