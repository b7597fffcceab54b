"""What a live-server disc says it installs, and which packages are needed on top."""

from __future__ import annotations

import pytest

from contracts.arch import Arch
from pipeline.errors import NotFoundError
from pipeline.media.live_server import (
    Catalog,
    Source,
    Suite,
    UnfitDiscError,
    choose_kernel,
    choose_source,
    find_suites,
    layer_chain,
    package_names,
    parse_catalog,
    plan_packages,
)
from pipeline.media.live_system import SCRIPT, mmdebstrap_arguments

ARCH = Arch.X86_64
DISC = "live.iso"
VERSION_1 = b"""\
- id: ubuntu-server-minimal
  path: ubuntu-server-minimal.squashfs
  type: fsimage
- default: true
  id: ubuntu-server
  path: ubuntu-server-minimal.ubuntu-server.squashfs
  size: 1066115072
  type: fsimage-layered
"""
VERSION_2 = (
    b"version: 2\nkernel:\n  default: linux-generic-hwe-24.04\n  bridge: linux-generic-brg-24.04\nsources:\n"
    + VERSION_1
)
INSTALLED = {"initramfs-tools", "cloud-init", "openssh-server", "sudo", "dpkg"}
AVAILABLE = {"linux-generic", "grub-efi-amd64-signed", "shim-signed"}


def test_the_default_comes_first_with_its_layers() -> None:
    assert parse_catalog(VERSION_1, DISC) == Catalog(
        sources=(
            Source(
                id="ubuntu-server",
                layers=("ubuntu-server-minimal.squashfs", "ubuntu-server-minimal.ubuntu-server.squashfs"),
            ),
            Source(id="ubuntu-server-minimal", layers=("ubuntu-server-minimal.squashfs",)),
        )
    )


def test_the_second_version_names_the_kernel() -> None:
    catalog = parse_catalog(VERSION_2, DISC)
    assert catalog.kernel == "linux-generic-hwe-24.04"
    assert catalog.sources == parse_catalog(VERSION_1, DISC).sources


def test_an_image_that_is_not_layered_stands_alone() -> None:
    catalog = parse_catalog(b"[{id: x, type: fsimage, path: a.b.squashfs}]", DISC)
    assert catalog.sources == (Source(id="x", layers=("a.b.squashfs",)),)


def test_of_variations_the_first_counts() -> None:
    text = b"[{id: x, type: fsimage-layered, path: '', variations: {classic: {path: a.b.squashfs}, other: {path: c}}}]"
    assert parse_catalog(text, DISC).sources[0].layers == ("a.squashfs", "a.b.squashfs")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"sources: 7", b"- 7", b"- [x]", b"{}", b"- {id: core, type: null, path: ''}",
        b"- {id: x, type: fsimage, path: ../../etc/shadow.squashfs}", b"- {id: x, type: fsimage, path: /a.squashfs}",
        b"- {id: x, type: fsimage, path: a..squashfs}", b"- {id: x, type: fsimage, path: 7}",
        b"- {id: x, type: [fsimage], path: a.squashfs}", b"- {id: x, type: fsimage, variations: [a]}",
    ],
)  # fmt: skip
def test_a_catalog_of_nothing_is_refused(text: bytes) -> None:
    with pytest.raises(UnfitDiscError, match=r"the catalog of live\.iso names nothing that can be installed"):
        parse_catalog(text, DISC)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe\xfd", b"a: b: c", b"- !!python/object:os.system x", b"&a [*b]"])
def test_a_damaged_catalog_is_said_to_be(text: bytes) -> None:
    with pytest.raises(UnfitDiscError, match=r"the catalog of live\.iso is damaged"):
        parse_catalog(text, DISC)


def test_a_kernel_that_is_no_name_is_not_used() -> None:
    assert parse_catalog(b"kernel: {default: 'x; rm -rf /'}\nsources:\n" + VERSION_1, DISC).kernel is None


def test_a_source_is_chosen_by_its_id() -> None:
    catalog = parse_catalog(VERSION_1, DISC)
    assert choose_source(catalog, None, DISC).id == "ubuntu-server"
    assert choose_source(catalog, "ubuntu-server-minimal", DISC).id == "ubuntu-server-minimal"
    with pytest.raises(NotFoundError, match=r"live\.iso does not install desktop") as caught:
        choose_source(catalog, "desktop", DISC)
    assert caught.value.details == "it has ubuntu-server, ubuntu-server-minimal"


def test_a_name_is_a_chain_of_layers() -> None:
    assert layer_chain("a.b-c.d.squashfs") == ("a.squashfs", "a.b-c.squashfs", "a.b-c.d.squashfs")
    assert layer_chain("filesystem.squashfs") == ("filesystem.squashfs",)


def test_suites_are_found_by_their_indices() -> None:
    paths = [
        "dists/noble/InRelease", "dists/noble/main/binary-amd64/Packages.gz", "dists/noble/main/binary-i386/Packages",
        "dists/noble/restricted/binary-amd64/Packages.gz", "dists/own/main/binary-amd64/Packages", "pool/main/x.deb",
    ]  # fmt: skip
    suites, indices = find_suites(paths, ARCH)
    assert [suite.source_line("/mnt") for suite in suites] == [
        "deb file:/mnt noble main restricted", "deb [trusted=yes] file:/mnt own main",
    ]  # fmt: skip
    assert indices == (paths[1], paths[3], paths[4])
    assert find_suites(paths, Arch.AARCH64) == ((), ())


def test_only_what_is_lacking_is_installed() -> None:
    assert plan_packages(INSTALLED, AVAILABLE, ARCH, kernel=None, disc=DISC) == [
        "linux-generic", "grub-efi-amd64-signed", "shim-signed",
    ]  # fmt: skip
    everything = INSTALLED | {"grub-efi-amd64-signed", "shim-signed", "linux-image-6.8.0-71-generic"}
    assert plan_packages(everything, set(), ARCH, kernel=None, disc=DISC) == []
    assert plan_packages(everything - {"sudo"}, {"sudo"}, ARCH, kernel=None, disc=DISC) == ["sudo"]


def test_another_maker_of_initrds_will_do() -> None:
    tools = INSTALLED - {"initramfs-tools"}
    assert "dracut" in plan_packages(tools, AVAILABLE | {"dracut"}, ARCH, kernel=None, disc=DISC)
    assert plan_packages(tools | {"dracut"}, AVAILABLE, ARCH, kernel=None, disc=DISC)[-1] == "shim-signed"


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(UnfitDiscError) as caught:
        plan_packages(INSTALLED - {"cloud-init"}, {"shim-signed"}, ARCH, kernel="linux-generic", disc=DISC)
    assert caught.value.brief == (
        "live.iso lacks what an installed machine needs: a kernel (linux-generic), grub-efi-amd64-signed, cloud-init"
    )
    assert caught.value.details == "neither its layers (4 packages) nor its archive (1) have it"


@pytest.mark.parametrize(
    ("available", "named", "chosen"),
    [
        ({"linux-generic", "linux-virtual"}, None, "linux-generic"),
        ({"linux-generic", "linux-virtual"}, "linux-virtual", "linux-virtual"),
        ({"linux-generic", "linux-generic-hwe-24.04"}, "linux-not-there", "linux-generic"),
        ({"linux-generic-hwe-22.04", "linux-generic-hwe-9.10"}, None, "linux-generic-hwe-22.04"),
        ({"linux-image-amd64", "linux-image-cloud-amd64", "linux-image-6.1.0-9-amd64"}, None, "linux-image-amd64"),
        ({"linux-image-6.8.0-9-generic", "linux-image-6.8.0-10-generic"}, None, "linux-image-6.8.0-10-generic"),
        ({"linux-image-unsigned-6.8.0-9-generic", "linux-image-extra-virtual", "linux-headers-generic"}, None, None),
        (set(), "linux-generic", None),
    ],
)  # fmt: skip
def test_the_kernel_is_chosen_by_rule(available: set[str], named: str | None, chosen: str | None) -> None:
    assert choose_kernel(available, ARCH, named=named) == chosen


def test_names_of_packages_are_read_from_indices() -> None:
    text = "Package: a\nVersion: 1\nDescription: x\n Package: no\n\nPackage: b\nDepends: a\n"
    assert package_names([text, "Package: c\n"]) == {"a", "b", "c"}


def test_a_suite_without_a_signature_is_trusted_like_the_disc() -> None:
    suite = Suite(name="noble", components=("main",), is_signed=False)
    assert suite.source_line("/mnt") == "deb [trusted=yes] file:/mnt noble main"


def test_mmdebstrap_installs_nothing_by_itself() -> None:
    arguments = mmdebstrap_arguments(ARCH)
    assert arguments[:4] == [
        "--format=tar", "--variant=custom", "--skip=update,cleanup/apt", "--architectures=amd64",
    ]  # fmt: skip
    assert f"--customize-hook={SCRIPT.read_text()}" in arguments
    assert arguments[-3:] == ["", "-", "deb file:/nowhere ./"]
