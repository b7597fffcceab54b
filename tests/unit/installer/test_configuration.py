"""Which configurations the installer takes."""

from __future__ import annotations

import dataclasses

import pytest

from contracts.arch import Arch
from contracts.document import dumps
from contracts.install import InstallerConfig, PayloadSource
from installer.configuration import parse
from installer.errors import InstallError

MAC = "52:54:00:00:00:07"
CONFIG = InstallerConfig(
    name="web1",
    mac=MAC,
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
    kernel_args=("console=ttyS0,115200",),
)


def test_its_own_configuration_is_taken() -> None:
    assert parse(dumps(CONFIG).encode(), mac=MAC, arch=Arch.X86_64) == CONFIG


def test_every_fault_is_in_the_report() -> None:
    body = dumps(CONFIG).replace('"/dev/nvme0n1"', "7").replace('"web1"', "null").encode()
    with pytest.raises(InstallError, match="configuration is not valid") as caught:
        parse(body, mac=MAC, arch=Arch.X86_64)
    assert len(caught.value.lines) == 2
    assert any(line.startswith("disk: expected str") for line in caught.value.lines)


def test_an_error_page_is_no_configuration() -> None:
    with pytest.raises(InstallError) as caught:
        parse(b"<html>", mac=MAC, arch=Arch.X86_64)
    assert caught.value.lines[0].startswith("not JSON")


def test_the_configuration_of_another_machine_is_refused() -> None:
    with pytest.raises(InstallError, match="is for 52:54:00:00:00:08, this machine is 52:54:00:00:00:07"):
        parse(dumps(dataclasses.replace(CONFIG, mac="52:54:00:00:00:08")).encode(), mac=MAC, arch=Arch.X86_64)


def test_the_configuration_of_another_architecture_is_refused() -> None:
    with pytest.raises(InstallError, match="is for x86_64, this machine is aarch64"):
        parse(dumps(CONFIG).encode(), mac=MAC, arch=Arch.AARCH64)
