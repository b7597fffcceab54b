"""Canaries: secrets that were given to an install, looked for in all that is left of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts import nocloud
from contracts.arch import Arch
from contracts.install import ARG_CONFIG_URL, ARG_MAC, InstallerConfig, PayloadSource
from contracts.lan import Lan
from contracts.report import Phase
from contracts.tokens import config_path, report_path, seed_path
from installer import bootloader, kernel_arguments, setup
from installer.client import HttpError, UnreachableError
from installer.disk import Layout
from installer.errors import InstallError
from installer.progress import Progress
from tests.fakes.lab_files import make_machine

TOKEN = "c0ffee00" * 4
BASE = "http://10.0.0.1"
MACHINE = make_machine()  # its host key holds THE-SECRET
CONFIG = InstallerConfig(
    name="web1", mac=MACHINE.mac, arch=Arch.X86_64, distro="debian-12", domain="pvmlab.local", disk="/dev/nvme0n1",
    rootfs=PayloadSource(url=f"{BASE}/rootfs", sha256="0" * 64, size=1), initrd_tree="1" * 64, modules_tree="2" * 64,
    kernel=PayloadSource(url=f"{BASE}/vmlinuz", sha256="3" * 64, size=1),
    seed_url=BASE + seed_path(TOKEN), report_url=BASE + report_path(TOKEN), kernel_args=("console=ttyS0", "quiet"),
)  # fmt: skip
LAYOUT = Layout("/dev/nvme0n1", Arch.X86_64, "disk-uuid", "esp-partuuid", "root-partuuid", "root-uuid", "1a2b3c4d")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system, with the files that an install needs of it."""
    root = tmp_path / "root"
    modules = root / "usr/lib/modules/6.1"
    for folder in ("etc/ssh", "var/lib", "boot/efi", "usr/lib/shim", "usr/lib/grub/x86_64-efi-signed"):
        (root / folder).mkdir(parents=True)
    modules.mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\nkernel/drivers/nvme/nvme.ko\n")
    (root / "boot/vmlinuz-6.1").write_bytes(b"kernel")
    (root / "usr/lib/os-release").write_text("ID=debian\n")
    (root / "usr/lib/shim/shimx64.efi.signed").write_bytes(b"shim")
    (root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed").write_bytes(b"grub")
    return root


def holders(root: Path, secret: str) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    }


def test_what_survives_on_the_disk(root: Path) -> None:
    seed = {name: render(MACHINE, Lan()).encode() for name, render in nocloud.DOCUMENTS.items()}
    setup.apply(CONFIG, LAYOUT, seed, root)
    bootloader.install(LAYOUT, CONFIG.kernel_args, root)
    assert holders(root, TOKEN) == set()
    assert holders(root, "THE-SECRET") == {"var/lib/cloud/seed/nocloud/user-data"}
    folder = root / "var/lib/cloud/seed/nocloud"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_neither_the_console_nor_a_report_tells_the_token() -> None:
    console: list[str] = []
    bodies: list[bytes] = []

    def post(_url: str, body: bytes, *, timeout: float) -> None:
        bodies.append(body)

    url = BASE + config_path(TOKEN)
    arguments = kernel_arguments.parse(f"{ARG_MAC}={MACHINE.mac} {ARG_CONFIG_URL}={url}")
    progress = Progress(arguments.report_url, post=post, write=console.append)
    for phase in Phase:
        progress.begin(phase, f"asking {url}")
    for error in (
        HttpError(url, status=403, sentence="not yours"),
        UnreachableError(f"no answer from {CONFIG.seed_url}user-data within 30 s"),
        InstallError("a program failed", lines=(f"$ wget {url}", f"{TOKEN[:5]} is no token")),
    ):
        progress.failed(error)
    text = "".join(console)
    assert text.count("/m/TOKEN/") > 9
    assert TOKEN not in text
    assert not any(TOKEN.encode() in body for body in bodies)
    assert all("/m/TOKEN/config" in json.loads(body)["message"] for body in bodies[: len(Phase)])
