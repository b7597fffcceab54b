"""Media as tasks: from a definition to a file with a sidecar."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from distros.family import Family
from distros.release import Checksums, Locked, Medium, MediumKind, Release, Sources
from pipeline.artifact import Artifact
from pipeline.errors import NotFoundError, PrerequisiteError, UsageError
from pipeline.fetch.offline import OfflineError
from pipeline.progress import Progress
from pipeline.recipes import media
from pipeline.sidecar import read_sidecar
from pipeline.workspace import Cache
from tests.fakes.media_server import Manner, MediaServer
from tests.fakes.signer import Signer

_ARCH, _KIND = Arch.X86_64, MediumKind.ISO
_FILES = {name: name.encode() * 5000 for name in ("toy-1.9.iso", "toy-1.10.iso", "toy-1.11.iso")}


@pytest.fixture(name="signer", scope="module")
def make_signer() -> Iterator[Signer]:
    signer = Signer()
    yield signer
    signer.close()


@pytest.fixture(name="key", scope="module")
def make_key(signer: Signer) -> str:
    return signer.make_key("Media <media@example.org>")


@pytest.fixture(name="server")
def start_server() -> Iterator[MediaServer]:
    with MediaServer({f"/{name}": Manner(data=data) for name, data in _FILES.items()}) as server:
        yield server


@pytest.fixture(name="cache")
def make_cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(name="release")
def make_release(
    server: MediaServer, signer: Signer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Release:
    """A release whose ISO is the newest one of a signed list; there are 1.9 and 1.10."""
    folder = tmp_path / "distros"
    (folder / "keys").mkdir(parents=True)
    signer.export(key, folder / "keys")
    monkeypatch.setenv("PVMLAB_DISTROS", str(folder))
    publish(server, signer, key, "20250101T000000", "toy-1.9.iso", "toy-1.10.iso")
    medium = Medium(
        kind=_KIND, mirrors=(server.url("/"),), file="toy-1*.iso",
        checksums=Checksums(file="CHECKSUM", signature=None, keys=(key,)),
    )  # fmt: skip
    sources = {_ARCH: Sources(media={_KIND: medium}, rootfs=_KIND)}
    return Release(name="toy-1", title="Toy 1", family=Family.UBUNTU, sources=sources)


def publish(server: MediaServer, signer: Signer, key: str, at: str, *names: str) -> None:
    lines = [f"# {name}: {len(_FILES[name])} bytes\nSHA256 ({name}) = {sha256(name)}\n" for name in names]
    server.answer("/CHECKSUM", Manner(data=signer.sign("".join(lines).encode(), key, clear=True, at=at)))


def sha256(name: str) -> str:
    return hashlib.sha256(_FILES[name]).hexdigest()


def lock(release: Release, name: str) -> Release:
    locked = Locked(file=name, sha256=sha256(name), size=len(_FILES[name]))
    return dataclasses.replace(release, locked={(_ARCH, _KIND): locked})


def with_medium(release: Release, **changes: object) -> Release:
    medium = dataclasses.replace(release.sources[_ARCH].media[_KIND], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(release, sources={_ARCH: Sources(media={_KIND: medium})})


def task(release: Release, cache: Cache) -> Artifact:
    return media.fetch(release, _ARCH, _KIND, cache)


def test_a_medium_is_fetched_as_its_signed_list_says(
    release: Release, server: MediaServer, cache: Cache, key: str
) -> None:
    artifact, steps = task(release, cache), list[Progress]()
    assert artifact.name == "fetch:toy-1:x86_64:iso"
    artifact.build(steps.append)
    target = media.medium_path(release, _ARCH, _KIND, cache)
    assert target == cache.root / "media/toy-1/x86_64/installer.iso"
    assert target.read_bytes() == _FILES["toy-1.10.iso"]
    assert target.samefile(cache.root / "downloads" / sha256("toy-1.10.iso") / "toy-1.10.iso")
    record = read_sidecar(target)
    assert record is not None
    assert (record["sha256"], record["size"]) == (sha256("toy-1.10.iso"), len(_FILES["toy-1.10.iso"]))
    assert record["facts"] == {
        "file": "toy-1.10.iso", "url": server.url("/toy-1.10.iso"), "digests": {"sha256": sha256("toy-1.10.iso")},
        "signed_by": key, "signed_at": "2025-01-01T00:00:00Z",
    }  # fmt: skip
    assert steps[0].step == "asking for the checksums of toy-1*.iso"
    assert steps[-1] == Progress(step="fetching toy-1.10.iso", done=60_000, total=60_000)
    assert f"from {server.url('/toy-1.10.iso')}" in artifact.log.read_text()


def test_a_newer_point_release_is_taken_when_asked_for(
    release: Release, server: MediaServer, signer: Signer, key: str, cache: Cache
) -> None:
    artifact = task(release, cache)
    assert not media.renew(release, _ARCH, _KIND, cache)  # nothing is here that could be older
    artifact.build()
    asked = server.connections
    publish(server, signer, key, "20250201T000000", "toy-1.9.iso", "toy-1.10.iso", "toy-1.11.iso")
    assert task(release, cache).reasons() == ()
    assert server.connections == asked
    assert media.renew(release, _ARCH, _KIND, cache)
    assert artifact.reasons() != ()
    artifact.build()
    assert artifact.targets[0].read_bytes() == _FILES["toy-1.11.iso"]
    assert not media.renew(release, _ARCH, _KIND, cache)
    artifact.remove()  # doit clean
    artifact.build()
    assert server.count("/toy-1.11.iso") == 1


def test_the_lock_decides_alone(release: Release, server: MediaServer, cache: Cache) -> None:
    locked = lock(release, "toy-1.9.iso")
    artifact = task(locked, cache)
    artifact.build()
    assert artifact.targets[0].read_bytes() == _FILES["toy-1.9.iso"]
    assert [request.path for request in server.requests] == ["/toy-1.9.iso"]
    assert not media.renew(locked, _ARCH, _KIND, cache)
    elsewhere = with_medium(locked, mirrors=("http://other.invalid/",))
    assert task(dataclasses.replace(elsewhere, locked=locked.locked), cache).reasons() == ()
    assert task(lock(release, "toy-1.10.iso"), cache).reasons() != ()
    assert task(release, cache).reasons() != ()


def test_a_changed_definition_fetches_again_and_the_code_does_not(release: Release, cache: Cache) -> None:
    artifact = task(release, cache)
    artifact.build()
    assert artifact.sources == ()
    for changes in ({"file": "toy-*.iso"}, {"mirrors": ("http://m.invalid/",)}, {"checksums": None}):
        assert task(with_medium(release, **changes), cache).reasons() != ()


def test_what_nobody_promises_is_not_fetched(release: Release, server: MediaServer, cache: Cache) -> None:
    artifact = task(with_medium(release, checksums=None, file="toy-1.9.iso"), cache)
    with pytest.raises(PrerequisiteError, match=r"no digest of toy-1\.9\.iso is known") as caught:
        artifact.build()
    assert "`./pvmlab distro.pull --distro toy-1 --arch x86_64 --lock`" in caught.value.resolution
    assert server.connections == 0


@pytest.mark.parametrize("name", ["../x.iso", "a/x.iso", "/x.iso", "", "-x.iso", ".x.iso", "x\n.iso", "x y", "*/x"])
def test_a_name_with_folders_in_it_is_refused(release: Release, cache: Cache, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a downloaded file"):
        task(with_medium(release, file=name), cache)


def test_a_medium_that_is_not_there_is_told(release: Release, cache: Cache) -> None:
    with pytest.raises(UsageError, match=r"toy-1 has no cloud_image for x86_64"):
        media.fetch(release, _ARCH, MediumKind.CLOUD_IMAGE, cache)
    with pytest.raises(UsageError, match=r"toy-1 has no iso for aarch64"):
        media.fetch(release, Arch.AARCH64, _KIND, cache)


def test_a_list_cannot_be_named_after_what_only_it_tells(release: Release, cache: Cache, key: str) -> None:
    named = with_medium(release, checksums=Checksums(file="{file}.sha256", signature=None, keys=(key,)))
    with pytest.raises(UsageError, match="cannot be named after it"):
        task(named, cache).build()


def test_a_key_that_is_not_there_is_told(release: Release, cache: Cache) -> None:
    unknown = with_medium(release, checksums=Checksums(file="CHECKSUM", signature=None, keys=("0" * 40,)))
    with pytest.raises(NotFoundError, match="the key 0000"):
        task(unknown, cache).build()


def test_offline_a_medium_of_the_store_is_enough(
    release: Release, server: MediaServer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVMLAB_OFFLINE", "1")
    for wanted, what in (
        (release, r"toy-1\*\.iso is not here"),
        (lock(release, "toy-1.9.iso"), r"toy-1\.9\.iso \(55,000"),
    ):
        with pytest.raises(OfflineError, match=what) as caught:
            task(wanted, cache).build()
        assert "cache.export media.tar fetch:toy-1:x86_64:iso" in caught.value.resolution
    assert server.connections == 0
    monkeypatch.delenv("PVMLAB_OFFLINE")
    artifact = task(release, cache)
    artifact.build()
    artifact.remove()
    monkeypatch.setenv("PVMLAB_OFFLINE", "1")
    asked = server.connections
    artifact.build()
    assert artifact.reasons() == ()
    assert server.connections == asked


def test_on_another_file_system_the_target_is_a_copy(release: Release, cache: Cache) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        cache.root.mkdir()
        (cache.root / "media").symlink_to(folder)
        artifact = task(release, cache)
        artifact.build()
        assert artifact.targets[0].stat().st_nlink == 1
        assert artifact.targets[0].read_bytes() == _FILES["toy-1.10.iso"]


def test_a_target_that_was_spoilt_comes_back(release: Release, cache: Cache) -> None:
    """The bytes are there once, under two names: who writes into one has spoilt both."""
    artifact = task(release, cache)
    artifact.build()
    artifact.targets[0].write_bytes(b"spoilt")
    assert artifact.reasons() != ()
    artifact.build()
    assert artifact.targets[0].read_bytes() == _FILES["toy-1.10.iso"]
    assert artifact.reasons() == ()
