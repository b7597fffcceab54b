"""Versions are read in kernels of each kind, and compared as people mean them."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from pipeline.kernel.packed import DamagedFileError
from pipeline.kernel.version import AmbiguousKernelError, NotAKernelError, flavour, newest, read_version, version_key
from tests.fakes.kernels import make_arm64_image, make_vmlinuz, make_zboot

IMAGE = make_arm64_image("6.8.0-31-generic")


@pytest.mark.parametrize(
    ("kernel", "version"),
    [
        (make_vmlinuz("6.1.0-56-cloud-amd64"), "6.1.0-56-cloud-amd64"),
        (IMAGE, "6.8.0-31-generic"),
        (gzip.compress(IMAGE), "6.8.0-31-generic"),
        (make_zboot(gzip.compress(IMAGE), "gzip"), "6.8.0-31-generic"),
        (make_zboot(zstandard.compress(IMAGE), "zstd22"), "6.8.0-31-generic"),
        (make_zboot(b"?", "lzo"), None),  # a method that is not read here
        (IMAGE.replace(b"Linux version", b"Linux wersion"), None),
    ],
)
def test_the_version_is_read_in_the_kernel(kernel: bytes, version: str | None) -> None:
    assert read_version(kernel, path="boot/vmlinuz") == version


@pytest.mark.parametrize(
    "data", [b"", b"<html>not found</html>", bytes(4096), gzip.compress(b"text"), b"MZ" + bytes(600)]
)
def test_what_is_no_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(NotAKernelError, match="/boot/vmlinuz-1 is no Linux kernel"):
        read_version(data, path="boot/vmlinuz-1")


def test_a_kernel_cut_off_in_its_compressed_part_is_refused() -> None:
    with pytest.raises(DamagedFileError, match=r"boot/vmlinuz-1 is damaged"):
        read_version(gzip.compress(IMAGE)[:-20], path="boot/vmlinuz-1")


def test_versions_in_order() -> None:
    ordered = [
        "5.14.0-70.el9.x86_64", "5.14.0-427.13.1.el9_4.x86_64", "5.14.0-427.20.1.el9_4.x86_64", "5.14.0-503.el9.x86_64",
        "6.1~rc1", "6.1", "6.1.0-9-amd64", "6.1.0-10-amd64", "6.12.117+deb13-amd64", "6.12.118+deb13-amd64",
    ]  # fmt: skip
    backwards = ordered[::-1]
    assert sorted(backwards, key=version_key) == ordered


@pytest.mark.parametrize(
    ("version", "word"),
    [
        ("6.1.0-56-cloud-amd64", "cloud-amd64"),
        ("6.12.117+deb13-amd64", "amd64"),
        ("6.1.0-0.deb11.7-amd64", "amd64"),
        ("6.8.0-31-generic", "generic"),
        ("5.14.21-150500.55.7-default", "default"),
        ("6.6.58-0-virt", "virt"),
        ("6.12.0-rc3-amd64", "amd64"),
        ("5.14.0-427.13.1.el9_4.x86_64", ""),
        ("5.14.0-427.13.1.el9_4.aarch64+64k", "64k"),
        ("6.11.4-301.fc41.x86_64", ""),
        ("6.11.0", ""),
    ],
)
def test_the_flavour_of_a_version(version: str, word: str) -> None:
    assert flavour(version) == word


def test_the_newest_of_one_flavour_counts() -> None:
    assert newest(["6.1.0-9-amd64", "6.1.0-10-amd64"]) == "6.1.0-10-amd64"


def test_several_flavours_need_a_decision() -> None:
    with pytest.raises(AmbiguousKernelError, match="several flavours") as caught:
        newest(["6.1.0-10-cloud-amd64", "6.1.0-9-amd64"])
    assert caught.value.versions == ("6.1.0-9-amd64", "6.1.0-10-cloud-amd64")
    assert "6.1.0-9-amd64, 6.1.0-10-cloud-amd64" in caught.value.details
