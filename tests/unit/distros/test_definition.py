"""Distribution files: what they mean, and every fault that is refused in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contracts.arch import Arch
from distros.definition import parse_definition
from distros.family import Family
from distros.lock import parse_lock
from distros.registry import SHIPPED, read_lock
from distros.release import DEFAULT_MAX_SIZE, MediumKind
from distros.strict_yaml import DefinitionError
from pipeline.workspace import REPOSITORY

KEY = "843938DF228D22F7B3742BC0D94AA3F0EFE21092"
CHECKS = f"checksums: {{file: SHA256SUMS, signature: SHA256SUMS.gpg, keys: [{KEY}]}}"
ISO = f"{{mirrors: [https://a.example/], file: u-*.iso, {CHECKS}}}"
CLOUD = "{mirrors: [https://a.example/, 'http://b.example:8080/x/'], file: u.img, max_size: 2 GiB}"
HEAD = "name: u-1\ntitle: U 1\nfamily: ubuntu\nsuite: one\n"
GOOD = f"{HEAD}sources:\n  x86_64:\n    iso: {ISO}\n    cloud_image: {CLOUD}\n    rootfs: iso\n"
DEBIAN = (
    "name: u-1\ntitle: D\nfamily: debian\nsuite: one\nsources:\n"
    "  x86_64: {mmdebstrap: {kernel: linux-image}, installer: debian-installer}\n"
)
FILE = Path("/definitions/u-1.yaml")


def faults(text: str) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(text, file=FILE)
    assert caught.value.details.endswith(str(FILE))
    assert "distribution-files.md" in caught.value.resolution
    return caught.value.details.splitlines()[:-1]


def test_a_whole_definition() -> None:
    release = parse_definition(GOOD, file=FILE)
    assert (release.name, release.title, release.family, release.suite) == ("u-1", "U 1", Family.UBUNTU, "one")
    assert release.arches == (Arch.X86_64,)
    sources = release.sources[Arch.X86_64]
    assert sources.rootfs is MediumKind.ISO
    iso, cloud = sources.media[MediumKind.ISO], sources.media[MediumKind.CLOUD_IMAGE]
    assert iso.checksums is not None
    assert (iso.checksums.file, iso.checksums.signature, iso.checksums.keys) == ("SHA256SUMS", "SHA256SUMS.gpg", (KEY,))
    assert (iso.file, iso.max_size) == ("u-*.iso", DEFAULT_MAX_SIZE)
    assert cloud.mirrors == ("https://a.example/", "http://b.example:8080/x/")
    assert (cloud.checksums, cloud.max_size) == (None, 2 << 30)


def test_a_release_made_of_packages() -> None:
    sources = parse_definition(DEBIAN, file=FILE).sources[Arch.X86_64]
    assert (sources.kernel_package, sources.installer_package) == ("linux-image", "debian-installer")
    assert (sources.rootfs, sources.media) == (None, {})


@pytest.mark.parametrize(
    ("family", "media", "rootfs"),
    [
        ("ubuntu", ["iso"], MediumKind.ISO),
        ("fedora", ["iso"], None),
        ("fedora", ["iso", "cloud_image"], MediumKind.CLOUD_IMAGE),
        ("alpine", ["rootfs_tarball"], MediumKind.ROOTFS_TARBALL),
    ],
)
def test_the_only_medium_that_holds_a_rootfs_need_not_be_named(
    family: str, media: list[str], rootfs: MediumKind | None
) -> None:
    lines = "".join(f"    {medium}: {ISO}\n" for medium in media)
    text = f"name: u-1\ntitle: U\nfamily: {family}\nsources:\n  x86_64:\n{lines}"
    assert parse_definition(text, file=FILE).sources[Arch.X86_64].rootfs is rootfs


def test_a_clear_signed_list_needs_no_signature_and_a_list_may_be_named_after_the_medium() -> None:
    text = GOOD.replace("file: SHA256SUMS, signature: SHA256SUMS.gpg", "file: '{file}.sha256'")
    checksums = parse_definition(text, file=FILE).sources[Arch.X86_64].media[MediumKind.ISO].checksums
    assert checksums is not None
    assert (checksums.file, checksums.signature) == ("{file}.sha256", None)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("name: u-1", "name: u-2", "u-1.yaml:1:7: name: it must be that of the file, 'u-1'"),
        ("name: u-1", "name: U_1", "u-1.yaml:1:7: name: 'U_1' is not right: a name is of a-z, 0-9, dots and hyphens"),
        ("name: u-1", "name: ../u-1", "u-1.yaml:1:7: name: '../u-1' is not right"),
        ("title: U 1", "title: 1", "u-1.yaml:2:8: title: it must be a text, it is a number; quotes make it one"),
        ("title: U 1", "title: |\n  U\n  1", "u-1.yaml:2:8: title: it must be one line of at most 120 characters"),
        ("title: U 1\n", "", "u-1.yaml:1:1: the key 'title' is missing"),
        ("family: ubuntu", "family: beos", "u-1.yaml:3:9: family: there is no family 'beos'; there are: debian, ub"),
        ("suite: one", "suite: One!", "u-1.yaml:4:8: suite: 'One!' is not right: a suite is a word, such as noble"),
        ("suite: one", "colour: red", "u-1.yaml:4:1: colour: there is no such key here; there are: name, title, fa"),
        ("x86_64:", "vax:", "u-1.yaml:6:3: sources.vax: there is no such architecture here; there are: x86_64, aa"),
        ("rootfs: iso", "rootfs: floppy", "u-1.yaml:9:13: sources.x86_64.rootfs: it must be a medium that holds a roo"),
        ("    rootfs: iso\n", "", "u-1.yaml:7:5: sources.x86_64: the key 'rootfs' must say which it is taken from: "),
        ("rootfs: iso", "rootfs: iso\n    cd: 1", "u-1.yaml:10:5: sources.x86_64.cd: there is no such key here; "),
        ("https://a.example/],", "ftp://a.example/],", "u-1.yaml:7:21: sources.x86_64.iso.mirrors[0]: 'ftp://a.exampl"),
        ("https://a.example/],", "https://a.example],", "a base URL ends with a slash"),
        ("https://a.example/],", "'https:///x/'],", "it must be an http or https URL"),
        ("https://a.example/],", "'https://a.example:port/'],", "it must be an http or https URL"),
        ("https://a.example/],", "'https://a example/'],", "it must be an http or https URL"),
        ("https://a.example/],", "'https://me@a.example/'],", "a base URL has no user, no ? and # and no .."),
        ("https://a.example/],", "'https://a.example/?x/'],", "a base URL has no user, no ? and # and no .."),
        ("https://a.example/],", "'https://a.example/../x/'],", "a base URL has no user, no ? and # and no .."),
        ("https://a.example/],", "'https://a.example/{arch}/'],", "there is nothing to put in for what is in braces"),
        ("[https://a.example/],", "[],", "it must name a mirror: the checksums are fetched from there"),
        ("[https://a.example/],", "https://a.example/,", "mirrors: it must be a list, it is a text"),
        ("u-*.iso", "../u.iso", "sources.x86_64.iso.file: '../u.iso' is not right: it must be the name of a file"),
        ("u-*.iso", "a/u.iso", "sources.x86_64.iso.file: 'a/u.iso' is not right"),
        ("u.img", "u-*.img", "of letters, digits and . _ + ~ -; * needs signed checksums to choose by"),
        ("2 GiB", "2 GB", "sources.x86_64.cloud_image.max_size: it must be a size such as 4 GiB"),
        ("2 GiB", "2147483648", "sources.x86_64.cloud_image.max_size: it must be a text, it is a number"),
        (KEY, KEY.lower(), "checksums.keys[0]: '843938df228d22f7b3742bc0d94aa3f0efe21092' is not right: a fingerprint"),
        (KEY, KEY[-16:], "checksums.keys[0]: 'D94AA3F0EFE21092' is not right: a fingerprint has 40 digits 0-9 A-F"),
        (f"[{KEY}]", "[]", "checksums.keys: it must name the fingerprint of a key"),
        ("file: SHA256SUMS,", "", "sources.x86_64.iso.checksums: the key 'file' is missing"),
        ("file: SHA256SUMS,", "file: ../SHA256SUMS,", "'../SHA256SUMS' is not right: it must be the name of a file; {"),
    ],
)  # fmt: skip
def test_faults(before: str, after: str, expected: str) -> None:
    assert before in GOOD
    found = faults(GOOD.replace(before, after))
    assert any(expected in fault for fault in found), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "sources: {}\n", "u-1.yaml:5:10: sources: it must name at least one architecture"),
        (HEAD + "sources: {x86_64: {}}\n", "u-1.yaml:5:19: sources.x86_64: it must hold a source: mmdebstrap, iso, "),
        (HEAD + "sources: [x86_64]\n", "u-1.yaml:5:10: sources: it must be a mapping (key: value), it is a list"),
        (HEAD + "sources: {x86_64: iso}\n", "sources.x86_64: it must be a mapping (key: value), it is a text"),
        (HEAD, "u-1.yaml:1:1: the key 'sources' is missing"),
        ("- a\n", "u-1.yaml:1:1: it must be a mapping (key: value), it is a list"),
        (DEBIAN.replace("family: debian", "family: alpine"), "mmdebstrap: only the family debian is made of packages"),
        (DEBIAN.replace("suite: one\n", ""), "mmdebstrap: it needs the key `suite`: what the packages are taken from"),
        (DEBIAN.replace("suite: one\n", ""), "installer: it needs the key `suite`: where the package is found"),
        (DEBIAN.replace("{kernel: linux-image}", "{}"), "sources.x86_64.mmdebstrap: the key 'kernel' is missing"),
        (DEBIAN.replace("linux-image", "Linux_Image"), "mmdebstrap.kernel: 'Linux_Image' is not right: a Debian pack"),
        (HEAD + "repository: https://r.example/{release}/\n", "repository: 'https://r.example/{release}/' is not "),
    ],
)  # fmt: skip
def test_more_faults(text: str, expected: str) -> None:
    found = faults(text)
    assert any(expected in fault for fault in found), found


def test_a_repository_may_depend_on_the_architecture() -> None:
    release = parse_definition(GOOD + "repository: 'https://r.example/{arch}/os/'\n", file=FILE)
    assert release.repository == "https://r.example/{arch}/os/"


def test_all_faults_come_at_once_in_their_order() -> None:
    text = GOOD.replace("U 1", "''").replace("x86_64", "x86").replace("family", "famili")
    found = faults(text)
    assert [fault.split(": ", 2)[:2] for fault in found] == [
        ["u-1.yaml:1:1", "the key 'family' is missing"],
        ["u-1.yaml:2:8", "title"],
        ["u-1.yaml:3:1", "famili"],
        ["u-1.yaml:6:3", "sources.x86"],
    ]


def test_the_documented_example_is_right() -> None:
    page = (REPOSITORY / "docs/reference/distribution-files.md").read_text()
    release, lock = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    parsed = parse_definition(release, file=Path("ubuntu-24.04.yaml"))
    assert parsed.sources[Arch.X86_64].media[MediumKind.CLOUD_IMAGE].max_size == 4 << 30
    assert parse_lock(lock, file=Path("lock.yaml")) == read_lock(SHIPPED)
