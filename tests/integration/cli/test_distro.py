"""The verbs of distributions, against a mirror on the loopback and discs made by xorriso."""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.distro_add import Wishes, add
from cli.distro_list import list_distros, show_distro
from cli.distro_verbs import pull, remove, require_private_way
from contracts.arch import Arch
from distros import authoring, registry
from distros.release import MediumKind
from distros.strict_yaml import DefinitionError
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.artifact import Artifact, Making
from pipeline.errors import ChecksumError, ConflictError, NotFoundError, PrerequisiteError, PvmlabError, UsageError
from pipeline.fetch.offline import is_offline
from pipeline.fetch.store import Store
from pipeline.media.recognize import UnknownMediumError
from pipeline.recipes import graph as recipes
from pipeline.recipes import media
from pipeline.workspace import Cache, Workspace
from tests.fakes.discs import make_fedora_disc, make_iso, make_ubuntu_disc, write_tree
from tests.fakes.lab_files import make_machine
from tests.fakes.media_server import Manner, MediaServer
from tests.fakes.signer import Signer

Said = pytest.CaptureFixture[str]
IMAGE = b"QFI\xfb" + bytes(range(256)) * 16
UBUNTU = {".disk/info": 'Ubuntu-Server 24.04 LTS "N" - Release amd64 (1)', "casper/vmlinuz": "kernel"}


@dataclasses.dataclass
class Place:
    """Where a test works. :ivar folder: what ``PVMLAB_DISTROS`` names."""

    folder: Path
    cache: Cache
    root: Path


def small_graph(cache: Cache) -> Iterator[Artifact]:
    """Yield for each release of one's own the real download, and an empty root filesystem that needs it."""
    for release in registry.releases().values():
        if registry.definition_file(release.name).parent == registry.SHIPPED:
            continue
        for arch, sources in release.sources.items():
            for kind in sources.media:
                yield media.fetch(release, arch, kind, cache)
            if sources.rootfs is not None:
                yield rootfs(release.name, arch, media.medium_path(release, arch, sources.rootfs, cache), cache)


def rootfs(name: str, arch: Arch, medium: Path, cache: Cache) -> Artifact:
    def make(making: Making) -> Mapping[str, Any]:
        making.output.write_bytes(bytes(10240))  # a tar without members
        return {"kernel": "6.1.0-x"}

    return Artifact(
        name=f"rootfs:{name}:{arch}", doc="", cache=cache, targets=(cache.image(name, arch, "rootfs.tar.zst"),),
        inputs=(medium,), make=make,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A folder of definitions, a cache and a lab, all empty."""
    (tmp_path / "distros").mkdir()
    for variable, name in (("PVMLAB_DISTROS", "distros"), ("PVMLAB_CACHE", "cache"), ("PVMLAB_HOME", "home")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.delenv("PVMLAB_OFFLINE", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(recipes, "artifacts", small_graph)
    registry.reload()
    recipes.reload()
    yield Place(tmp_path / "distros", Workspace.from_environment().cache, tmp_path)
    registry.reload()
    recipes.reload()


@pytest.fixture
def mirror() -> Iterator[MediaServer]:
    with MediaServer() as server:
        yield server


def make_disc(folder: Path, files: Mapping[str, str]) -> Path:
    """Return an ISO with Rock Ridge names that holds *files*."""
    tree = write_tree(folder / "tree", {path: text.encode() for path, text in files.items()})
    return make_iso(tree, folder / "disc.iso", "-rational-rock", label="DISC")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def add_image(mirror: MediaServer, *, name: str = "mine", file: str = "image.qcow2") -> str:
    """Define a release of an image that the mirror has; return the address."""
    mirror.answer(f"/pub/{file}", Manner(data=IMAGE))
    url = mirror.url(f"/pub/{file}")
    add(url, Wishes(name=name, family="alpine", arch="x86_64"))
    return url


def pull_all(*names: str, **options: Any) -> int:
    usual = {"everything": not names, "arch": "", "media_only": False, "offline": False, "newest": False, "lock": False}
    return pull(names, **{**usual, **options})


def test_an_iso_is_added_by_its_address_pulled_listed_shown_and_removed(
    place: Place, mirror: MediaServer, capsys: Said
) -> None:
    iso = make_ubuntu_disc(place.root).read_bytes()
    mirror.answer("/24.04/noble-1.iso", Manner(data=iso))
    with pytest.raises(ConflictError, match=r"there is a distribution 'ubuntu-24\.04' already") as caught:
        add(mirror.url("/24.04/noble-1.iso"), Wishes())  # it is recognized, and shipped
    assert "--name gives it another name" in caught.value.resolution
    assert list(place.folder.iterdir()) == []

    add(mirror.url("/24.04/noble-1.iso"), Wishes(name="noble"))
    said = capsys.readouterr().err
    assert "noble: Ubuntu 24.04 LTS, x86_64, iso (a root filesystem and its own installer)" in said
    assert f"sha256 {digest(iso)}: compare it with what the distribution publishes" in said
    assert (place.folder / "noble.yaml").read_text() == (
        "name: noble\ntitle: 'Ubuntu 24.04 LTS'\nfamily: ubuntu\nsources:\n  x86_64:\n    iso:\n      mirrors:\n"
        f"        - {mirror.url('/24.04/')}\n      file: 'noble-1.iso'\n"
    )
    locked = registry.find_release("noble").locked[Arch.X86_64, MediumKind.ISO]
    assert (locked.file, locked.sha256, locked.size) == ("noble-1.iso", digest(iso), len(iso))

    asked = mirror.count("/24.04/noble-1.iso")
    assert pull_all("noble") == 0
    assert mirror.count("/24.04/noble-1.iso") == asked  # it is in the store
    assert (
        media.medium_path(registry.find_release("noble"), Arch.X86_64, MediumKind.ISO, place.cache).read_bytes() == iso
    )
    assert pull_all("noble") == 0
    assert "0 tasks done, 2 up to date already" in capsys.readouterr().err

    list_distros(output="json")
    (view,) = [each for each in json.loads(capsys.readouterr().out)["distributions"] if each["name"] == "noble"]
    (of_arch,) = view["arches"]
    assert (view["is_shipped"], of_arch["state"], of_arch["rootfs"]) == (False, "built", "iso")
    assert of_arch["size"] > len(iso) + 10240
    assert of_arch["sources"][0]["urls"] == [mirror.url("/24.04/noble-1.iso")]
    assert of_arch["sources"][0]["state"] == "fetched"
    show_distro("noble", output="table")
    shown = capsys.readouterr().out
    assert f"the lock: sha256 {digest(iso)}" in shown
    assert "kernel 6.1.0-x" in shown

    remove("noble", yes=True, with_artifacts=True)
    assert "noble" not in registry.releases()
    assert {path.name for path in place.folder.iterdir()} == {"lock.yaml"}
    assert registry.read_lock(place.folder) == {}
    assert not [path for path in place.cache.root.rglob("*") if path.is_file() and path.stat().st_size >= len(iso)]


def test_a_disc_that_holds_an_installer_alone_has_no_root_filesystem(place: Place, capsys: Said) -> None:
    add(str(make_fedora_disc(place.root)), Wishes())
    assert "fedora-42: Fedora Linux 42, x86_64, iso (its own installer)" in capsys.readouterr().err
    assert registry.find_release("fedora-42").sources[Arch.X86_64].rootfs is None


def test_a_cloud_image_is_known_by_its_name(place: Place, mirror: MediaServer) -> None:
    mirror.answer("/i/Rocky-9-GenericCloud-Base.latest.x86_64.qcow2", Manner(data=IMAGE))
    with pytest.raises(ConflictError, match="'rocky-9'"):
        add(mirror.url("/i/Rocky-9-GenericCloud-Base.latest.x86_64.qcow2"), Wishes())
    add(mirror.url("/i/Rocky-9-GenericCloud-Base.latest.x86_64.qcow2"), Wishes(name="rocky-9-daily"))
    release = registry.find_release("rocky-9-daily")
    assert (release.title, release.family) == ("Rocky Linux 9", "fedora")
    assert release.sources[Arch.X86_64].rootfs is MediumKind.CLOUD_IMAGE


def test_an_archive_of_a_root_filesystem_is_added(place: Place, mirror: MediaServer) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("etc"))
    mirror.answer("/alpine-minirootfs-3.99.0-aarch64.tar.gz", Manner(data=gzip.compress(raw.getvalue())))
    add(mirror.url("/alpine-minirootfs-3.99.0-aarch64.tar.gz"), Wishes(title='It\'s "mine"'))
    release = registry.find_release("alpine-3.99")
    assert (release.title, release.arches) == ('It\'s "mine"', (Arch.AARCH64,))
    assert release.sources[Arch.AARCH64].rootfs is MediumKind.ROOTFS_TARBALL


def test_a_file_of_this_host_is_added_and_its_copy_is_found_without_a_mirror(place: Place, capsys: Said) -> None:
    (place.root / "my.qcow2").write_bytes(IMAGE)
    add(str(place.root / "my.qcow2"), Wishes(name="mine", family="fedora", arch="x86_64"))
    assert "it has no address to fetch it from again: keep the file" in capsys.readouterr().err
    assert "mirrors: []" in (place.folder / "mine.yaml").read_text()
    assert Store(place.cache).place(digest(IMAGE), "my.qcow2").read_bytes() == IMAGE


def test_what_was_added_from_a_file_is_pulled_as_long_as_its_copy_is_there(place: Place, capsys: Said) -> None:
    (place.root / "my.qcow2").write_bytes(IMAGE)
    add(str(place.root / "my.qcow2"), Wishes(name="mine", family="fedora", arch="x86_64"))
    assert pull_all("mine") == 0
    Store(place.cache).place(digest(IMAGE), "my.qcow2").unlink()
    (place.cache.root / "media/mine/x86_64/cloud.img").unlink()
    assert pull_all("mine") != 0
    assert "my.qcow2" in capsys.readouterr().err
    add(str(place.root / "my.qcow2"), Wishes(name="mine", family="fedora", arch="x86_64"))
    assert "mine is defined so already; my.qcow2 is in the cache" in capsys.readouterr().err
    assert pull_all("mine") == 0


def test_a_digest_may_be_said_and_is_compared(place: Place, mirror: MediaServer, capsys: Said) -> None:
    mirror.answer("/i.qcow2", Manner(data=IMAGE))
    (place.root / "i.qcow2").write_bytes(IMAGE)
    wishes = Wishes(name="mine", family="fedora", arch="x86_64", sha256="0" * 64)
    for source in (mirror.url("/i.qcow2"), str(place.root / "i.qcow2")):
        with pytest.raises(PvmlabError) as caught:
            add(source, wishes)
        assert isinstance(caught.value, ChecksumError)
    assert list(place.folder.iterdir()) == []
    add(mirror.url("/i.qcow2"), dataclasses.replace(wishes, sha256=digest(IMAGE)))
    assert "compare it with" not in capsys.readouterr().err
    with pytest.raises(UsageError, match="is no sha256 digest"):
        add(mirror.url("/i.qcow2"), dataclasses.replace(wishes, name="other", sha256="abc"))


@pytest.mark.parametrize(
    ("files", "wishes", "complaint", "details"),
    [
        ({"README.TXT": "hello"}, Wishes(), "it cannot be told what the disc 'DISC' holds", "there is: README.TXT"),
        (
            {".alpine-release": "alpine-standard-3.99.1 260101", "apks/x86_64/a": "x"},
            Wishes(),
            "is Alpine Linux 3.99, and nothing pvmlab could use is on it",
            "volume 'DISC'",
        ),
        (UBUNTU, Wishes(name="mine", arch="aarch64"), "disc.iso is for x86_64, not aarch64", ""),
        (
            {"README.TXT": "hello"},
            Wishes(name="mine", family="fedora"),
            "it cannot be told what disc.iso is",
            "neither",
        ),
    ],
)
def test_discs_that_cannot_be_used_are_refused_and_nothing_is_written(
    place: Place, files: Mapping[str, str], wishes: Wishes, complaint: str, details: str
) -> None:
    iso = make_disc(place.root, files)
    with pytest.raises(PvmlabError) as caught:
        add(str(iso), wishes)
    assert complaint in caught.value.brief
    assert details in caught.value.details
    assert list(place.folder.iterdir()) == []


def test_a_disc_that_is_not_recognized_is_taken_at_ones_word(place: Place) -> None:
    iso = make_disc(place.root, {"images/pxeboot/vmlinuz": "k"})
    add(str(iso), Wishes(name="odd", family="fedora", arch="x86_64"))
    assert registry.find_release("odd").sources[Arch.X86_64].rootfs is None


@pytest.mark.parametrize(
    ("content", "name", "complaint"),
    [
        (b"<!doctype html>", "page.qcow2", "it cannot be told what page.qcow2 is"),
        (gzip.compress(IMAGE), "image.raw.gz", "image.raw.gz is compressed"),
        (IMAGE, "odd name.qcow2", "'odd name.qcow2' is no name for a medium"),
        (IMAGE, "unheard-of.qcow2", "it cannot be told what unheard-of.qcow2 is"),
    ],
)
def test_files_that_cannot_be_used_are_refused(place: Place, content: bytes, name: str, complaint: str) -> None:
    (place.root / name).write_bytes(content)
    with pytest.raises((UsageError, UnknownMediumError)) as caught:
        add(str(place.root / name), Wishes())
    assert caught.value.brief.startswith(complaint)
    assert caught.value.resolution


@pytest.mark.parametrize(
    ("wishes", "complaint"),
    [
        (Wishes(name="No Name"), "--name 'No Name' is no name"),
        (Wishes(family="beos"), "--family 'beos' is unknown"),
        (Wishes(arch="vax"), "--arch 'vax' is unknown"),
        (Wishes(name="x" * 64), "is no name"),
    ],
)
def test_wishes_without_sense_are_refused_before_anything_is_fetched(
    place: Place, mirror: MediaServer, wishes: Wishes, complaint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        add(mirror.url("/i.qcow2"), wishes)
    assert complaint in caught.value.brief
    assert not mirror.requests


@pytest.mark.parametrize("path", ["/", "/i.qcow2?token=1", "/a%20b.qcow2", "/i.qcow2#x"])
def test_an_address_that_does_not_end_with_a_name_is_refused(place: Place, mirror: MediaServer, path: str) -> None:
    with pytest.raises(UsageError):
        add(mirror.url(path), Wishes(name="mine"))
    assert not mirror.requests


def test_what_is_neither_a_file_nor_an_address_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError, match=r"there is no file nothing\.iso"):
        add("nothing.iso", Wishes())
    with pytest.raises(UsageError):
        add("ftp://a.example/x.iso", Wishes())


def test_a_mirror_that_others_can_speak_for_is_not_trusted_without_a_digest(place: Place) -> None:
    with pytest.raises(UsageError, match="anybody on the way there could send something else"):
        add("http://media.example/i.qcow2", Wishes(name="mine"))
    require_private_way(["https://media.example/", "http://127.0.0.1:1/", "http://localhost/"])


def test_what_a_mirror_does_not_have_is_an_error_and_nothing_is_written(place: Place, mirror: MediaServer) -> None:
    with pytest.raises(PvmlabError, match=r"i\.qcow2"):
        add(mirror.url("/i.qcow2"), Wishes(name="mine", family="fedora", arch="x86_64"))
    assert list(place.folder.iterdir()) == []


def test_a_name_that_is_taken_is_refused_before_anything_is_fetched(place: Place, mirror: MediaServer) -> None:
    with pytest.raises(ConflictError, match="there is a distribution 'debian-12' already"):
        add(mirror.url("/i.qcow2"), Wishes(name="debian-12"))
    assert not mirror.requests


def test_a_definition_that_somebody_else_writes_meanwhile_is_not_overwritten(place: Place, mirror: MediaServer) -> None:
    add_image(mirror)
    release = registry.find_release("mine")
    text = (place.folder / "mine.yaml").read_text()
    new = authoring.NewRelease(
        name="mine", title="Other", family=release.family, arch=Arch.X86_64,
        medium=release.sources[Arch.X86_64].media[MediumKind.CLOUD_IMAGE],
        locked=release.locked[Arch.X86_64, MediumKind.CLOUD_IMAGE],
    )  # fmt: skip
    with pytest.raises(ConflictError, match="there is a distribution 'mine' already"):
        authoring.define(new, folder=place.folder)
    with pytest.raises(DefinitionError):
        authoring.define(dataclasses.replace(new, name="other", title="x" * 200), folder=place.folder)
    with pytest.raises(UsageError, match="cannot be printed"):
        authoring.define(dataclasses.replace(new, name="other", title="a\nb"), folder=place.folder)
    assert (place.folder / "mine.yaml").read_text() == text
    assert sorted(path.name for path in place.folder.iterdir()) == ["lock.yaml", "mine.yaml"]


def test_beside_a_broken_lock_nothing_is_written(place: Place, mirror: MediaServer) -> None:
    (place.folder / "lock.yaml").write_text("mine: [\n")
    with pytest.raises(DefinitionError, match=r"lock\.yaml is broken"):
        add_image(mirror)
    assert [path.name for path in place.folder.iterdir()] == ["lock.yaml"]
    assert (place.folder / "lock.yaml").read_text() == "mine: [\n"


def test_two_writers_take_turns_and_one_that_never_ends_is_named(
    place: Place, mirror: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(mirror)
    monkeypatch.setattr(authoring, "_PATIENCE", 0.2)
    descriptor = os.open(place.folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(ConflictError, match="another pvmlab writes to"):
        authoring.undefine("mine")
    os.close(descriptor)
    authoring.undefine("mine")
    assert "mine" not in registry.releases()


def unlocked(place: Place, mirror: MediaServer, *, mirrors: str = "") -> None:
    """Define ``mine``, of whose image no digest is known."""
    mirror.answer("/pub/image.qcow2", Manner(data=IMAGE))
    (place.folder / "mine.yaml").write_text(
        "name: mine\ntitle: Mine\nfamily: alpine\nsources:\n  x86_64:\n    cloud_image:\n"
        f"      mirrors: ['{mirrors or mirror.url('/pub/')}']\n      file: image.qcow2\n"
    )
    registry.reload()
    recipes.reload()


def test_without_a_digest_nothing_is_pulled_and_lock_trusts_the_mirror_once(
    place: Place, mirror: MediaServer, capsys: Said
) -> None:
    unlocked(place, mirror)
    with pytest.raises(
        PrerequisiteError, match="no digest is known of what mine, x86_64 is made from: cloud_image"
    ) as no:
        pull_all("mine")
    assert "distro.pull mine --arch x86_64 --lock" in no.value.resolution
    assert not mirror.requests
    list_distros(output="table")
    assert "cloud_image: no digest known" in capsys.readouterr().out
    show_distro("mine", output="table")
    assert "nothing yet: distro.pull --lock" in capsys.readouterr().out

    assert pull_all("mine", lock=True, media_only=True) == 0
    said = capsys.readouterr().err
    assert f"sha256 {digest(IMAGE)}" in said
    assert "compare the digest with what the distribution publishes" in said
    assert registry.find_release("mine").locked[Arch.X86_64, MediumKind.CLOUD_IMAGE].sha256 == digest(IMAGE)
    assert (place.cache.root / "media/mine/x86_64/cloud.img").read_bytes() == IMAGE
    assert mirror.count("/pub/image.qcow2") == 1
    assert pull_all("mine", lock=True) == 0  # it is known now
    assert mirror.count("/pub/image.qcow2") == 1


def test_lock_does_not_trust_an_open_way(place: Place, mirror: MediaServer) -> None:
    unlocked(place, mirror, mirrors="http://media.example/")
    with pytest.raises(UsageError, match="anybody on the way there"):
        pull_all("mine", lock=True)
    assert not (place.folder / "lock.yaml").exists()


def test_all_leaves_out_what_no_digest_is_known_of(place: Place, mirror: MediaServer, capsys: Said) -> None:
    add_image(mirror, name="good", file="good.qcow2")
    unlocked(place, mirror)
    assert pull_all(media_only=True) == 0
    assert "mine, x86_64 is left out: no digest is known of cloud_image (--lock)" in capsys.readouterr().err
    assert (place.cache.root / "media/good/x86_64/cloud.img").is_file()


@pytest.fixture
def signer() -> Iterator[Signer]:
    made = Signer()
    yield made
    made.close()


def test_what_a_signed_list_promises_is_pulled_and_newer_media_only_when_they_are_asked_for(
    place: Place, mirror: MediaServer, signer: Signer, capsys: Said
) -> None:
    key = signer.make_key("Images <images@example.org>")

    def publish(day: int, *versions: int) -> None:
        contents = {f"m-1.{version}.qcow2": IMAGE + bytes([version]) for version in versions}
        text = "".join(f"{digest(data)} *{name}\n" for name, data in contents.items())
        mirror.answer("/m/SUMS", Manner(data=text.encode()))
        mirror.answer("/m/SUMS.gpg", Manner(data=signer.sign(text.encode(), key, at=f"2025070{day}T120000")))
        for name, data in contents.items():
            mirror.answer(f"/m/{name}", Manner(data=data))

    (place.folder / "signed.yaml").write_text(
        f"name: signed\ntitle: Signed\nfamily: alpine\nsources:\n  x86_64:\n    cloud_image:\n"
        f"      mirrors: ['{mirror.url('/m/')}']\n      file: m-1.*.qcow2\n"
        f"      checksums: {{file: SUMS, signature: SUMS.gpg, keys: [{key}]}}\n"
    )
    registry.reload()
    recipes.reload()
    image = place.cache.root / "media/signed/x86_64/cloud.img"
    publish(1, 1, 9)
    list_distros(output="table")
    assert f"cloud_image: no key {key}" in capsys.readouterr().out
    assert pull_all("signed", media_only=True) == 3
    assert "the key" in capsys.readouterr().err
    (place.folder / "keys").mkdir()
    signer.export(key, place.folder / "keys")
    assert pull_all("signed", media_only=True) == 0
    assert image.read_bytes() == IMAGE + b"\x09"

    publish(2, 9, 10)
    assert pull_all("signed") == 0
    assert image.read_bytes() == IMAGE + b"\x09"
    assert pull_all("signed", newest=True) == 0
    assert image.read_bytes() == IMAGE + b"\x0a"
    assert "fetch:signed:x86_64:cloud_image: there is a newer one" in capsys.readouterr().err
    show_distro("signed", output="table")
    assert f"SUMS, signed by {key}" in capsys.readouterr().out


def test_offline_takes_what_is_here_and_says_what_is_not(place: Place, mirror: MediaServer, capsys: Said) -> None:
    add_image(mirror)
    assert pull_all("mine", offline=True) == 0
    assert not is_offline()
    Store(place.cache).place(digest(IMAGE), "image.qcow2").unlink()
    (place.cache.root / "media/mine/x86_64/cloud.img").unlink()
    asked = len(mirror.requests)
    assert pull_all("mine", offline=True) == 5
    assert "PVMLAB_OFFLINE" in capsys.readouterr().err
    assert len(mirror.requests) == asked
    for wrong in ({"newest": True}, {"lock": True}):
        with pytest.raises(UsageError, match="--offline forbids it"):
            pull_all("mine", offline=True, **wrong)


def test_other_bytes_than_the_locked_ones_are_exit_code_7(place: Place, mirror: MediaServer, capsys: Said) -> None:
    add_image(mirror)
    Store(place.cache).place(digest(IMAGE), "image.qcow2").unlink()
    mirror.answer("/pub/image.qcow2", Manner(data=IMAGE[:-1] + b"?"))
    assert pull_all("mine") == 7
    capsys.readouterr()
    list_distros(output="table")
    assert "not fetched" in capsys.readouterr().out


def test_an_outdated_release_is_listed_as_such(place: Place, mirror: MediaServer, capsys: Said) -> None:
    add_image(mirror)
    assert pull_all("mine") == 0
    medium = place.cache.root / "media/mine/x86_64/cloud.img"
    medium.write_bytes(b"other")
    capsys.readouterr()
    list_distros(output="json")
    (view,) = [each for each in json.loads(capsys.readouterr().out)["distributions"] if each["name"] == "mine"]
    assert view["arches"][0]["state"] == "outdated"
    show_distro("mine", output="table")
    assert "outdated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "options", "error", "complaint"),
    [
        ((), {"everything": False}, UsageError, "wants the names of distributions, or --all"),
        (("debian-12",), {"everything": True}, UsageError, "wants the names of distributions, or --all"),
        (("beos",), {}, NotFoundError, "there is no distribution 'beos'"),
        (("debian-12",), {"arch": "vax"}, UsageError, "--arch 'vax' is unknown"),
        (("debian-12",), {"arch": "aarch64"}, UsageError, "debian-12 cannot be built for aarch64"),
    ],
)
def test_words_without_sense_are_refused_by_pull(
    place: Place, names: tuple[str, ...], options: Mapping[str, Any], error: type[PvmlabError], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        pull_all(*names, **options)


def test_a_release_that_a_machine_is_installed_from_is_not_removed(place: Place, mirror: MediaServer) -> None:
    add_image(mirror)
    lab = Lab.from_environment()
    lab.ensure_folders()
    DefinitionStore(lab).write(make_machine(distro="mine"))
    with pytest.raises(ConflictError, match="mine is in use: web1") as caught:
        remove("mine", yes=True, with_artifacts=True)
    assert "./pvmlab vm.clean web1" in caught.value.resolution
    assert "mine" in registry.releases()


def test_a_shipped_release_is_only_removed_on_ones_word(place: Place) -> None:
    with pytest.raises(UsageError, match="debian-13 is among those that come with pvmlab") as caught:
        remove("debian-13", yes=False, with_artifacts=False)
    assert "git checkout -- distros/debian-13.yaml distros/lock.yaml" in caught.value.resolution
    assert (registry.SHIPPED / "debian-13.yaml").is_file()


def test_removal_is_asked_and_what_was_fetched_stays_unless_said_otherwise(
    place: Place, mirror: MediaServer, capsys: Said
) -> None:
    add_image(mirror)
    assert pull_all("mine") == 0
    with pytest.raises(UsageError, match="This cannot be asked without a terminal"):
        remove("mine", yes=False, with_artifacts=False)
    assert "mine" in registry.releases()
    remove("mine", yes=True, with_artifacts=False)
    assert "stay in the cache; ./pvmlab cache.prune removes them" in capsys.readouterr().err
    assert (place.cache.root / "media/mine/x86_64/cloud.img").is_file()
    with pytest.raises(NotFoundError, match="there is no distribution 'mine'"):
        remove("mine", yes=True, with_artifacts=False)


def test_an_unknown_release_is_not_shown(place: Place) -> None:
    with pytest.raises(NotFoundError, match="there is no distribution 'beos'"):
        show_distro("beos", output="table")
    with pytest.raises(UsageError, match="--output 'xml' is unknown"):
        list_distros(output="xml")
