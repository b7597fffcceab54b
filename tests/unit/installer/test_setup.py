"""Making an unpacked system a machine's own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.install import InstallerConfig, PayloadSource
from installer import setup
from installer.disk import Layout
from installer.errors import InstallError

LAYOUT = Layout("/dev/nvme0n1", Arch.X86_64, "disk-uuid", "esp-partuuid", "root-partuuid", "root-uuid", "1a2b3c4d")
CONFIG = InstallerConfig(
    name="web1",
    mac="52:54:00:00:00:07",
    arch=Arch.X86_64,
    distro="debian-12",
    domain="pvmlab.local",
    disk="/dev/nvme0n1",
    rootfs=PayloadSource(url="http://10.0.0.1/rootfs.tar.zst", sha256="0" * 64, size=1000),
    kernel=PayloadSource(url="http://10.0.0.1/vmlinuz", sha256="1" * 64, size=1000),
    initrd_tree="b" * 64,
    modules_tree="c" * 64,
    seed_url="http://10.0.0.1/cloud-init/web1/",
    report_url="http://10.0.0.1/report/x",
    kernel_args=(),
)
SEED = {
    "meta-data": b"instance-id: x\n",
    "user-data": b"#cloud-config\n",
    "network-config": b"{}\n",
    "vendor-data": b"{}\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/ssh", "usr/lib", "var/lib"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_fstab() -> None:
    assert setup.render_fstab(LAYOUT) == (
        "# Written by the pvmlab installer.\n"
        "UUID=root-uuid / ext4 errors=remount-ro 0 1\n"
        "UUID=1A2B-3C4D /boot/efi vfat umask=0077 0 0\n"
    )


def test_hosts() -> None:
    assert setup.render_hosts("web1", "pvmlab.local") == (
        "127.0.0.1 localhost\n"
        "127.0.1.1 web1.pvmlab.local web1\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
        "ff02::1 ip6-allnodes\n"
        "ff02::2 ip6-allrouters\n"
    )


def test_the_system_becomes_the_machine(root: Path) -> None:
    setup.apply(CONFIG, LAYOUT, SEED, root)
    assert (root / "etc/hostname").read_text() == "web1\n"
    assert (root / "etc/fstab").read_text() == setup.render_fstab(LAYOUT)
    assert (root / "etc/cloud/cloud.cfg.d/90-pvmlab.cfg").read_text().endswith("datasource_list: [NoCloud]\n")
    folder = root / "var/lib/cloud/seed/nocloud"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == SEED
    for marker in (root / "etc/.updated", root / "var/.updated"):
        assert marker.stat().st_mtime >= (root / "usr").stat().st_mtime


def test_the_seed_is_for_root_only(root: Path) -> None:
    """user-data holds the machine's private host key."""
    setup.apply(CONFIG, LAYOUT, SEED, root)
    folder = root / "var/lib/cloud/seed/nocloud"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_two_installs_have_two_machine_ids(root: Path) -> None:
    found = set()
    for _ in range(2):
        setup.apply(CONFIG, LAYOUT, SEED, root)
        found.add((root / "etc/machine-id").read_text())
    assert len(found) == 2
    assert all(len(text) == 33 and int(text, 16) for text in found)


def test_host_keys_of_the_image_are_removed(root: Path) -> None:
    (root / "etc/ssh/ssh_host_rsa_key").write_text("shared by all machines")
    (root / "etc/ssh/sshd_config").write_text("kept")
    setup.apply(CONFIG, LAYOUT, SEED, root)
    assert [path.name for path in (root / "etc/ssh").iterdir()] == ["sshd_config"]


def test_a_symlink_in_the_image_does_not_lead_out_of_it(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.write_text("untouched")
    (root / "etc/hostname").symlink_to(outside)
    setup.apply(CONFIG, LAYOUT, SEED, root)
    assert outside.read_text() == "untouched"
    assert (root / "etc/hostname").read_text() == "web1\n"


def test_a_tree_that_is_no_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="it is not a system"):
        setup.apply(CONFIG, LAYOUT, SEED, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "/etc/fstab is empty or missing"),
        (b"\n", "/etc/fstab is empty"),
        (b"torn", "/etc/fstab is not what was written"),
    ],
)
def test_what_was_not_written_is_noticed(tmp_path: Path, content: bytes | None, message: str) -> None:
    (tmp_path / "etc").mkdir()
    if content is not None:
        (tmp_path / "etc/fstab").write_bytes(content)
    with pytest.raises(InstallError, match=message):
        setup.verify(tmp_path, {"etc/fstab": b"whole\n"})
