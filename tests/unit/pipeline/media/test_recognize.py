"""What discs say of themselves, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.media.recognize import (
    LONGEST_NOTE,
    DiscFacts,
    MediumFormat,
    UnknownMediumError,
    guess_from_name,
    recognize_disc,
    recognize_format,
)

UBUNTU = {
    ".disk/info": 'Ubuntu-Server 24.04.3 LTS "Noble Numbat" - Release amd64 (20250805.1)',
    "casper/vmlinuz": "k",
    "casper/initrd": "i",
    "casper/ubuntu-server-minimal.squashfs": "s",
}
DEBIAN = {
    ".disk/info": 'Debian GNU/Linux 12.5.0 "Bookworm" - Official arm64 NETINST with firmware 20240210-11:28\n',
    "install.a64/vmlinuz": "k",
}
TREEINFO = (
    "[general]\n; WARNING.0 = deprecated\nname = Rocky Linux 9.8\nfamily = Rocky Linux\nversion = 9.8\narch = x86_64\n"
)
PXEBOOT = {"images/pxeboot/vmlinuz": "k", "images/pxeboot/initrd.img": "i"}
ROCKY = {".treeinfo": TREEINFO, **PXEBOOT}
FEDORA = {".discinfo": "1777000000.0\n44\nx86_64\n", **PXEBOOT}
ALPINE = {".alpine-release": "alpine-standard-3.24.2 260917\n", "apks/aarch64/APKINDEX.tar.gz": "x"}
YAST = {"media.1/products": "/ openSUSE-Leap 15.6-1\n", "boot/x86_64/loader/linux": "k"}
AGAMA = {"LiveOS/squashfs.img": "s"}


def disc(files: Mapping[str, str], volume_id: str = "DISC") -> DiscFacts:
    return DiscFacts(
        volume_id=volume_id,
        members={name: len(text) for name, text in files.items()},
        read=lambda name: files[name].encode(),
    )


@pytest.mark.parametrize(
    ("files", "volume_id", "expected"),
    [
        (UBUNTU, "Ubuntu-Server", ("ubuntu", "24.04", "ubuntu", Arch.X86_64, "Ubuntu 24.04 LTS", True, True)),
        (DEBIAN, "Debian", ("debian", "12", "debian", Arch.AARCH64, "Debian 12", False, True)),
        (ROCKY, "Rocky-9-8", ("rocky", "9", "fedora", Arch.X86_64, "Rocky Linux 9", False, True)),
        (FEDORA, "Fedora-E-dvd-x86_64-44", ("fedora", "44", "fedora", Arch.X86_64, "Fedora Linux 44", False, True)),
        (
            {".treeinfo": "[release]\nname = Fedora\nversion = 44\n[tree]\narch = aarch64\n", **PXEBOOT},
            "F",
            ("fedora", "44", "fedora", Arch.AARCH64, "Fedora Linux 44", False, True),
        ),
        (
            {**FEDORA, ".treeinfo": "[release]\nname = Fedora\nversion = 44\n"},
            "F",
            ("fedora", "44", "fedora", Arch.X86_64, "Fedora Linux 44", False, True),
        ),
        (
            {**UBUNTU, ".disk/info": 'Debian-Server 12.9 LTS "Box" - Release amd64 (20250805.1)'},
            "D",
            ("debian", "12", "ubuntu", Arch.X86_64, "Debian 12", True, True),
        ),
        (ALPINE, "alpine", ("alpine", "3.24", "alpine", Arch.AARCH64, "Alpine Linux 3.24", False, False)),
        (YAST, "S", ("opensuse-leap", "15.6", "suse", Arch.X86_64, "openSUSE Leap 15.6", False, False)),
        (
            AGAMA,
            "Install-Leap-16.0-x86_64",
            ("opensuse-leap", "16.0", "suse", Arch.X86_64, "openSUSE Leap 16.0", False, False),
        ),
    ],
)
def test_discs_are_recognized(files: Mapping[str, str], volume_id: str, expected: tuple[object, ...]) -> None:
    found = recognize_disc(disc(files, volume_id))
    assert found.volume_id == volume_id
    assert expected == (
        found.distribution, found.version, found.family, found.arch, found.title, found.holds_rootfs,
        found.holds_installer,
    )  # fmt: skip


def test_an_ubuntu_disc_without_its_layers_holds_no_rootfs_and_without_its_kernel_no_installer() -> None:
    found = recognize_disc(disc({".disk/info": UBUNTU[".disk/info"]}))
    assert (found.holds_rootfs, found.holds_installer) == (False, False)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"README.TXT": "a UDF disc"},
        {".disk/info": ""},
        {".disk/info": "Kubuntu"},
        {".disk/info": 'Ubuntu-Server 24.04 LTS "Noble Numbat" - Release sparc (1)'},
        {".treeinfo": "no ini [\n"},
        {".treeinfo": "[stage2]\nmainimage = x\n"},
        {".treeinfo": "[general]\nfamily = Unheard Linux\nversion = 1\narch = x86_64\n"},
        {".treeinfo": TREEINFO.replace("x86_64", "s390x")},
        {".treeinfo": TREEINFO.replace("9.8\narch", "\narch")},
        {".discinfo": "1\n"},
        {".alpine-release": "3.24"},
        {".alpine-release": "alpine-standard-3.24.2 260917"},
        {"media.1/products": "/ SLES 15.6-1\n"},
    ],
)
def test_what_is_not_known_is_said_with_what_was_looked_for(files: Mapping[str, str]) -> None:
    with pytest.raises(UnknownMediumError, match=r"it cannot be told what the disc 'DISC' holds") as caught:
        recognize_disc(disc(files))
    assert ".disk/info (Ubuntu, Debian), .treeinfo" in caught.value.details
    assert (min(files, default="nothing").split("/")[0]) in caught.value.details
    assert "cloud image" in caught.value.resolution


def test_a_note_that_is_far_too_large_is_not_read() -> None:
    huge = DiscFacts(volume_id="D", members={".disk/info": LONGEST_NOTE + 1}, read=lambda _: pytest.fail("was read"))
    with pytest.raises(UnknownMediumError, match=r"\.disk/info on the disc has 65537 bytes"):
        recognize_disc(huge)


def test_a_note_of_garbage_is_not_a_crash() -> None:
    garbage = DiscFacts(volume_id="D", members={".disk/info": 4, ".treeinfo": 4}, read=lambda _: b"\xff\xfe\0\1")
    with pytest.raises(UnknownMediumError):
        recognize_disc(garbage)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (bytes(32768) + b"\x01CD001\x01", MediumFormat.ISO),
        (bytes(32768) + b"\x00BEA01\x01", MediumFormat.ISO),
        (bytes(510) + b"\x55\xaa" + bytes(32256) + b"\x01CD001\x01", MediumFormat.ISO),
        (b"QFI\xfb\0\0\0\x03", MediumFormat.QCOW2),
        (bytes(510) + b"\x55\xaa" + bytes(512), MediumFormat.DISK),
        (bytes(512) + b"EFI PART", MediumFormat.DISK),
        (bytes(1080) + b"\x53\xef", MediumFormat.DISK),
        (b"\x1f\x8b\x08", MediumFormat.TARBALL),
        (b"\xfd7zXZ\0", MediumFormat.TARBALL),
        (b"\x28\xb5\x2f\xfd", MediumFormat.TARBALL),
        (bytes(257) + b"ustar\x0000", MediumFormat.TARBALL),
    ],
)
def test_formats_are_told_by_their_content(tmp_path: Path, content: bytes, expected: MediumFormat) -> None:
    (tmp_path / "file").write_bytes(content)
    assert recognize_format(tmp_path / "file") is expected


@pytest.mark.parametrize("content", [b"", b"<!doctype html><title>404</title>", bytes(70000), b"PK\x03\x04"])
def test_other_formats_are_refused_with_what_they_begin_with(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "medium").write_bytes(content)
    with pytest.raises(UnknownMediumError, match="it cannot be told what medium is") as caught:
        recognize_format(tmp_path / "medium")
    assert repr(content[:24]) in caught.value.details


@pytest.mark.parametrize(
    ("name", "distribution", "version", "arch"),
    [
        ("ubuntu-24.04-server-cloudimg-amd64.img", "ubuntu", "24.04", Arch.X86_64),
        ("Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2", "fedora", "44", Arch.AARCH64),
        ("Rocky-9-GenericCloud-Base.latest.x86_64.qcow2", "rocky", "9", Arch.X86_64),
        ("AlmaLinux-10-GenericCloud-10.2-20260526.0.x86_64.qcow2", "alma", "10", Arch.X86_64),
        ("alpine-minirootfs-3.24.2-x86_64.tar.gz", "alpine", "3.24", Arch.X86_64),
        ("nocloud_alpine-3.23.4-aarch64-uefi-cloudinit-r0.qcow2", "alpine", "3.23", Arch.AARCH64),
        ("openSUSE-Leap-15.6-Minimal-VM.x86_64-Cloud.qcow2", "opensuse-leap", "15.6", Arch.X86_64),
        ("debian-12-genericcloud-arm64.qcow2", "debian", "12", Arch.AARCH64),
        ("noble-server-cloudimg-amd64.img", "", "", Arch.X86_64),
        ("image.qcow2", "", "", None),
    ],
)
def test_names_are_read_as_far_as_they_go(name: str, distribution: str, version: str, arch: Arch | None) -> None:
    found = guess_from_name(name)
    assert (found.distribution, found.version, found.arch) == (distribution, version, arch)
    assert bool(found.family) == bool(found.title) == bool(distribution)
