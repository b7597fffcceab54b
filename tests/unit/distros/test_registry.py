"""The shipped definitions, and those in folders of one's own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from distros import debian, registry
from distros.registry import SHIPPED, key_file, load_folder, releases, require_release
from distros.release import MediumKind
from distros.strict_yaml import DefinitionError
from pipeline.errors import ConflictError, ExitCode, NotFoundError, PvmlabError, UsageError

MINE = "name: mine\ntitle: Mine\nfamily: alpine\nsources: {x86_64: {iso: {mirrors: [], file: m.iso}}}\n"
ENTRY = "{file: m.iso, sha256: '" + "0" * 64 + "', size: 7}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of one's own that ``PVMLAB_DISTROS`` names, still empty."""
    monkeypatch.setenv("PVMLAB_DISTROS", f":{tmp_path}:")
    registry.reload()
    yield tmp_path
    registry.reload()


def test_the_shipped_releases() -> None:
    shipped = load_folder(SHIPPED)
    assert sorted(shipped) == [
        "alma-10", "alma-9", "alpine-3.24", "debian-12", "debian-13", "fedora-43", "fedora-44", "opensuse-leap-16.0",
        "rocky-10", "rocky-9", "ubuntu-22.04", "ubuntu-24.04",
    ]  # fmt: skip
    assert all(
        release.arches == tuple(Arch) for release in shipped.values() if release.suite[:4] not in {"book", "trix"}
    )


def test_no_kernel_version_is_written_down() -> None:
    for release in load_folder(SHIPPED).values():
        for sources in release.sources.values():
            assert not any(character.isdigit() for character in (sources.kernel_package or "").replace("64", ""))


def test_debian_is_made_of_packages_with_kernel_bootloader_and_cloud_init() -> None:
    packages = debian.packages(load_folder(SHIPPED)["debian-12"], Arch.X86_64)
    for needed in ("linux-image-cloud-amd64", "cloud-init", "openssh-server", "shim-signed", "grub-efi-amd64-signed"):
        assert needed in packages


def test_what_is_not_made_of_packages_has_none() -> None:
    with pytest.raises(ValueError, match=r"ubuntu-24\.04, x86_64 is not made of packages"):
        debian.packages(load_folder(SHIPPED)["ubuntu-24.04"], Arch.X86_64)


def fingerprint_of(armored: str) -> str:
    """Return the fingerprint of the first key in an ASCII armor (RFC 4880 6.2, 12.2)."""
    body = armored.split("\n\n", 1)[1].split("\n=", 1)[0]
    packet = base64.b64decode(body)
    assert packet[0] == 0x99  # a public key, old format, two octets of length
    length = int.from_bytes(packet[1:3])
    assert packet[3] == 4  # its version
    return hashlib.sha1(b"\x99" + packet[1:3] + packet[3 : 3 + length]).hexdigest().upper()  # noqa: S324 (the format's)


@pytest.mark.parametrize("path", sorted((SHIPPED / "keys").iterdir()), ids=lambda path: path.name)
def test_each_key_is_the_one_that_its_name_says(path: Path) -> None:
    text = path.read_text()
    assert f"{fingerprint_of(text)}.asc" == path.name
    assert text.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    assert text.count("-----BEGIN ") == 1


def test_each_pinned_key_is_there_and_each_key_is_pinned_but_the_next_fedora() -> None:
    pinned = {
        key
        for release in load_folder(SHIPPED).values()
        for sources in release.sources.values()
        for medium in sources.media.values()
        for key in (medium.checksums.keys if medium.checksums is not None else ())
    }
    assert all(key_file(key).is_file() for key in pinned)
    there = {path.stem for path in (SHIPPED / "keys").iterdir()}
    assert there - pinned == {"4F50A6114CD5C6976A7F1179655A4B02F577861E"}  # Fedora 45


def test_an_unknown_release_lists_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match="there is no distribution 'slackware'") as caught:
        require_release("slackware", Arch.X86_64)
    assert caught.value.exit_code is ExitCode.NOT_FOUND
    assert "debian-12" in caught.value.resolution


def test_releases_are_sorted_by_their_numbers() -> None:
    names = list(releases())
    assert names.index("rocky-9") < names.index("rocky-10")


def test_an_architecture_that_is_not_built_is_refused() -> None:
    with pytest.raises(UsageError, match="debian-12 cannot be built for aarch64"):
        require_release("debian-12", Arch.AARCH64)


def test_a_folder_of_ones_own_with_its_lock(folder: Path) -> None:
    (folder / "mine.yaml").write_text(MINE)
    (folder / "lock.yaml").write_text(f"mine: {{x86_64: {{iso: {ENTRY}}}}}\n")
    release = require_release("mine", Arch.X86_64)
    assert release.locked[Arch.X86_64, MediumKind.ISO].size == 7
    assert registry.definition_file("mine") == folder / "mine.yaml"
    assert "debian-12" in releases()


def test_without_a_lock_no_digest_is_known(folder: Path) -> None:
    (folder / "mine.yaml").write_text(MINE)
    assert require_release("mine", Arch.X86_64).locked == {}


def test_a_release_twice_names_both_files(folder: Path) -> None:
    (folder / "debian-12.yaml").write_text(MINE.replace("name: mine", "name: debian-12"))
    with pytest.raises(ConflictError, match="two files define the distribution 'debian-12'") as caught:
        releases()
    assert caught.value.details.splitlines() == [str(SHIPPED / "debian-12.yaml"), str(folder / "debian-12.yaml")]


def test_a_folder_that_is_not_there_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_DISTROS", str(folder / "none"))
    with pytest.raises(UsageError, match=r"PVMLAB_DISTROS names .*none, which is no folder"):
        releases()


def test_a_folder_named_twice_counts_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_DISTROS", f"{folder}:{folder}:{SHIPPED}")
    assert registry.folders() == (SHIPPED, folder)


@pytest.mark.parametrize(
    ("definition", "lock", "complaint"),
    [
        (MINE, f"other: {{x86_64: {{iso: {ENTRY}}}}}", "other: no file here defines it"),
        (MINE, f"mine: {{aarch64: {{iso: {ENTRY}}}}}", "mine.aarch64.iso: its definition has no such medium"),
        (
            MINE,
            f"mine: {{x86_64: {{cloud_image: {ENTRY}}}}}",
            "mine.x86_64.cloud_image: its definition has no such med",
        ),
        (
            MINE.replace("mirrors: []", f"mirrors: ['https://m/'], checksums: {{file: S, keys: [{'A' * 40}]}}"),
            f"mine: {{x86_64: {{iso: {ENTRY}}}}}",
            "mine.x86_64.iso: its definition has signed checksums, which decide",
        ),
    ],
)
def test_a_lock_that_does_not_fit_is_refused(folder: Path, definition: str, lock: str, complaint: str) -> None:
    (folder / "mine.yaml").write_text(definition)
    (folder / "lock.yaml").write_text(lock)
    with pytest.raises(DefinitionError, match=r"lock\.yaml is broken") as caught:
        releases()
    assert complaint in caught.value.details


def test_a_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "mine.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(DefinitionError, match=r"mine\.yaml is broken") as caught:
        releases()
    assert "it is no UTF-8 text" in caught.value.details


def test_a_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / "mine.yaml").mkdir()
    with pytest.raises(PvmlabError, match=r"mine\.yaml cannot be read: Is a directory"):
        releases()


def test_a_key_that_is_not_there_says_how_to_get_it(folder: Path) -> None:
    with pytest.raises(NotFoundError, match=r"the key A{40} is not there") as caught:
        key_file("A" * 40)
    assert str(folder / "keys") in caught.value.details
    assert "--export-options export-minimal" in caught.value.resolution


def test_a_key_of_ones_own_is_found(folder: Path) -> None:
    (folder / "keys").mkdir()
    (folder / "keys" / f"{'A' * 40}.asc").touch()
    assert key_file("A" * 40).parent == folder / "keys"
