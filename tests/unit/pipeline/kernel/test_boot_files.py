"""Kernel and initrd are found as each family of distributions names them, and a doubtful root filesystem is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipeline.documents.contents import files_in
from pipeline.errors import PvmlabError
from pipeline.kernel.boot_files import BootFiles, extract_boot_files
from pipeline.kernel.rootfs import KernelMismatchError, NoKernelError
from pipeline.kernel.version import AmbiguousKernelError, NotAKernelError
from tests.fakes.kernels import make_arm64_image, make_rootfs, make_vmlinuz

RPM = "5.14.0-503.el9.x86_64"


def modules(version: str, prefix: str = "usr/lib/modules") -> dict[str, bytes | str]:
    return {f"{prefix}/{version}/modules.builtin": b""}


def extract(folder: Path, files: dict[str, bytes | str]) -> tuple[BootFiles, bytes, bytes]:
    vmlinuz, initrd = folder / "vmlinuz", folder / "initrd"
    found = extract_boot_files(make_rootfs(folder / "rootfs.tar.zst", files), vmlinuz=vmlinuz, initrd=initrd)
    return found, vmlinuz.read_bytes(), initrd.read_bytes()


FAMILIES: dict[str, tuple[str, dict[str, bytes | str]]] = {
    "debian": (
        "6.1.0-9-amd64",
        {
            "./vmlinuz": "boot/vmlinuz-6.1.0-9-amd64",
            "./boot/vmlinuz-6.1.0-9-amd64": make_vmlinuz("6.1.0-9-amd64"),
            "./boot/initrd.img-6.1.0-9-amd64": b"initrd",
            "./boot/System.map-6.1.0-9-amd64": b"",
            **modules("6.1.0-9-amd64", "./usr/lib/modules"),
        },
    ),
    "ubuntu": (
        "6.8.0-31-generic",
        {
            "boot/vmlinuz": "vmlinuz-6.8.0-31-generic",
            "boot/initrd.img": "initrd.img-6.8.0-31-generic",
            "boot/vmlinuz-6.8.0-31-generic": gzip.compress(make_arm64_image("6.8.0-31-generic")),
            "boot/initrd.img-6.8.0-31-generic": b"initrd",
            "boot/initrd.img-6.8.0-31-generic.old-dkms": b"not this one",
            **modules("6.8.0-31-generic", "lib/modules"),
        },
    ),
    "fedora": (
        RPM,
        {
            "boot/vmlinuz-0-rescue-4b3f": make_vmlinuz(RPM),
            "boot/initramfs-0-rescue-4b3f.img": b"not this one",
            f"boot/.vmlinuz-{RPM}.hmac": b"",
            f"boot/initramfs-{RPM}.img": b"initrd",
            f"boot/initramfs-{RPM}kdump.img": b"not this one",
            f"boot/vmlinuz-{RPM}": make_vmlinuz(RPM),
            f"usr/lib/modules/{RPM}/vmlinuz": make_vmlinuz(RPM),
            **modules(RPM),
        },
    ),
    "fedora, kernel beside its modules only": (
        RPM,
        {
            f"usr/lib/modules/{RPM}/vmlinuz": make_vmlinuz(RPM),
            f"boot/initramfs-{RPM}.img": b"initrd",
            **modules(RPM),
        },
    ),
    "suse": (
        "6.4.0-150600.21-default",
        {
            "boot/vmlinuz": "vmlinuz-6.4.0-150600.21-default",
            "boot/vmlinuz-6.4.0-150600.21-default": "../usr/lib/modules/6.4.0-150600.21-default/vmlinuz",
            "boot/initrd-6.4.0-150600.21-default": b"initrd",
            "boot/initrd-6.4.0-150600.21-default-kdump": b"not this one",
            "usr/lib/modules/6.4.0-150600.21-default/vmlinuz": make_vmlinuz("6.4.0-150600.21-default"),
            **modules("6.4.0-150600.21-default"),
        },
    ),
    "suse, arm64": (
        "6.4.0-150600.21-default",
        {
            "boot/Image-6.4.0-150600.21-default": make_arm64_image("6.4.0-150600.21-default"),
            "boot/initrd-6.4.0-150600.21-default": b"initrd",
            **modules("6.4.0-150600.21-default"),
        },
    ),
    "alpine": (
        "6.12.1-0-virt",
        {
            "boot/vmlinuz-virt": make_vmlinuz("6.12.1-0-virt"),
            "boot/initramfs-virt": b"initrd",
            "boot/config-6.12.1-0-virt": b"",
            **modules("6.12.1-0-virt", "lib/modules"),
        },
    ),
    "a hard link": (
        RPM,
        {
            f"usr/lib/modules/{RPM}/vmlinuz": make_vmlinuz(RPM),
            f"boot/vmlinuz-{RPM}": f"=usr/lib/modules/{RPM}/vmlinuz",
            f"boot/initramfs-{RPM}.img": b"initrd",
            **modules(RPM),
        },
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_both_are_found_in_every_family(tmp_path: Path, family: str) -> None:
    kver, files = FAMILIES[family]
    found, vmlinuz, initrd = extract(tmp_path, files)
    assert (found, initrd) == (BootFiles(kver=kver, has_initrd=True), b"initrd")
    assert vmlinuz in files.values()


def test_the_kernel_is_left_compressed_as_it_is(tmp_path: Path) -> None:
    _, vmlinuz, _ = extract(tmp_path, FAMILIES["ubuntu"][1])
    assert vmlinuz.startswith(b"\x1f\x8b")


def test_the_newest_of_several_counts_with_its_own_initrd(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for version in ("6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-8-amd64"):
        files |= {f"boot/vmlinuz-{version}": make_vmlinuz(version), f"boot/initrd.img-{version}": version.encode()}
        files |= modules(version)
    found, _, initrd = extract(tmp_path, files)
    assert (found.kver, initrd) == ("6.1.0-10-amd64", b"6.1.0-10-amd64")


def test_a_kernel_without_its_modules_does_not_count(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"boot/vmlinuz-6.1-{number}": make_vmlinuz(f"6.1-{number}") for number in (1, 2)}
    assert extract(tmp_path, {**files, **modules("6.1-1")})[0].kver == "6.1-1"


def test_without_an_initrd_an_archive_of_nothing_is_written(tmp_path: Path) -> None:
    found, _, initrd = extract(tmp_path, {"boot/vmlinuz-6.1": make_vmlinuz("6.1"), **modules("6.1")})
    assert not found.has_initrd
    assert (len(initrd), initrd[:6], b"TRAILER!!!" in initrd) == (512, b"070701", True)
    assert list(files_in(tmp_path / "initrd")) == []  # the bill of materials reads it


def test_an_initrd_that_nobody_wants_is_not_written(tmp_path: Path) -> None:
    rootfs = make_rootfs(tmp_path / "r", FAMILIES["debian"][1])
    assert not extract_boot_files(rootfs, vmlinuz=tmp_path / "vmlinuz").has_initrd
    assert not (tmp_path / "initrd").exists()


@pytest.mark.parametrize(
    ("files", "error", "complaint"),
    [
        ({"etc/os-release": b""}, NoKernelError, "has no kernel, neither /boot/vmlinuz"),
        (modules("6.1"), NoKernelError, "has no kernel"),
        ({"boot/vmlinuz-6.1": b"<html>"}, NotAKernelError, "/boot/vmlinuz-6.1 is no Linux kernel"),
        ({"boot/vmlinuz-6.1": make_vmlinuz("6.2")}, KernelMismatchError, "/boot/vmlinuz-6.1 is the kernel 6.2"),
        (
            {"boot/vmlinuz-6.1": make_vmlinuz("6.1"), **modules("6.2")},
            KernelMismatchError,
            "the modules are not those of the kernel: 6.2",
        ),
        (
            {f"boot/vmlinuz-6.1-1-{name}": make_vmlinuz(f"6.1-1-{name}") for name in ("amd64", "rt-amd64")},
            AmbiguousKernelError,
            "no single kernel to boot",
        ),
        (
            {"boot/vmlinuz-virt": make_arm64_image("none").replace(b"none", b"")},
            KernelMismatchError,
            "of what version /boot/vmlinuz-virt is cannot be told",
        ),
    ],
)
def test_a_doubtful_root_filesystem_is_refused(
    tmp_path: Path, files: dict[str, bytes | str], error: type[PvmlabError], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        extract(tmp_path, files)
