"""A manifest keeps what is needed of an index, in a stable form."""

from pathlib import Path

from contracts.arch import Arch
from pipeline.debian.package_set import PackageSet, parse_package, read_manifest, render_manifest

PARAGRAPH = """\
Package: libzstd1
Source: libzstd (1.5.7+dfsg-1)
Version: 1.5.7+dfsg-1+b1
Installed-Size: 800
Maintainer: Somebody <somebody@example.org>
Architecture: amd64
Depends: libc6 (>= 2.38)
Description: fast lossless compression algorithm
Description-md5: 0f
Multi-Arch: same
Tag: role::shared-lib,
 works-with::archive
Section: libs
Priority: optional
Filename: pool/main/libz/libzstd/libzstd1_1.5.7+dfsg-1+b1_amd64.deb
Size: 304168
SHA256: aa"""
MANIFEST = """\
Package: libzstd1
Version: 1.5.7+dfsg-1+b1
Architecture: amd64
Source: libzstd (1.5.7+dfsg-1)
Priority: optional
Multi-Arch: same
Depends: libc6 (>= 2.38)
Filename: pool/main/libz/libzstd/libzstd1_1.5.7+dfsg-1+b1_amd64.deb
Size: 304168
SHA256: aa
Archive: main
"""


def test_a_paragraph_keeps_what_matters_in_a_fixed_order() -> None:
    assert render_manifest([parse_package(PARAGRAPH, archive="main")]) == MANIFEST


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    packages = [parse_package(PARAGRAPH, archive="main"), parse_package("Package: z\nSHA256: b", archive="security")]
    (tmp_path / "m").write_text(render_manifest(packages))
    assert [package.fields for package in read_manifest(tmp_path / "m")] == [package.fields for package in packages]
    assert [package.is_security_update for package in packages] == [False, True]


def test_beside_the_manifest_the_files_have_no_folders() -> None:
    text = render_manifest([parse_package(PARAGRAPH, archive="main")], local=True)
    assert "Filename: ./libzstd1_1.5.7+dfsg-1+b1_amd64.deb\n" in text


def test_what_a_sidecar_says_of_a_package() -> None:
    assert parse_package(PARAGRAPH, archive="main").fact() == {
        "type": "deb", "name": "libzstd1", "version": "1.5.7+dfsg-1+b1", "arch": "amd64", "sha256": "aa",
        "source": "libzstd",
    }  # fmt: skip


def test_a_system_has_the_essential_and_required_packages_too() -> None:
    files_alone = PackageSet(name="x", suite="trixie", arch=Arch.X86_64, packages=("a", "b"), base=False)
    assert files_alone.wanted() == ["a", "b"]
    system = PackageSet(name="x", suite="trixie", arch=Arch.X86_64, packages=("a",))
    of_suite = "?or(?archive(^trixie$),?codename(^trixie$)),?architecture(amd64)"
    assert system.wanted() == [
        f"?narrow({of_suite},?essential)", f"?narrow({of_suite},?and(?priority(required),?not(?essential)))", "a",
    ]  # fmt: skip
