"""From a signed list on a mirror to one file that is promised; an older list is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ChecksumError, NotFoundError, PvmlabError
from pipeline.fetch.failure import NoMirrorError
from pipeline.fetch.offline import OfflineError
from pipeline.fetch.patience import Patience
from pipeline.fetch.signed_list import Promise, RollbackError, SignedList, read_promise
from pipeline.fetch.store import Store
from tests.fakes.media_server import PAGE, Manner, MediaServer
from tests.fakes.signer import Signer

_TASK = "fetch:toy-1:x86_64:iso"


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
    with MediaServer() as server:
        yield server


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_list(*names: str) -> bytes:
    return "".join(f"{digest_of(name)} *{name}\n" for name in names).encode()


class Mirrors:
    """Two mirrors of a release, each with its list."""

    def __init__(self, server: MediaServer, signer: Signer, key: str, folder: Path) -> None:
        self._server, self._signer, self._key = server, signer, key
        self.wanted = SignedList(
            mirrors=(server.url("/one/"), server.url("/two/")), file="toy-1*.iso", name="SHA256SUMS",
            signature="SHA256SUMS.gpg", keys={key: signer.export(key, folder)},
        )  # fmt: skip

    def publish(self, mirror: str, at: str, *names: str) -> None:
        """Have a mirror hold a list of the files *names*, signed then."""
        text = make_list(*names)
        self._server.answer(f"/{mirror}/SHA256SUMS", Manner(data=text))
        self._server.answer(f"/{mirror}/SHA256SUMS.gpg", Manner(data=self._signer.sign(text, self._key, at=at)))


@pytest.fixture(name="mirrors")
def make_mirrors(server: MediaServer, signer: Signer, key: str, tmp_path: Path) -> Mirrors:
    return Mirrors(server, signer, key, tmp_path)


def test_the_newest_file_of_the_list_is_promised(mirrors: Mirrors, store: Store, hasty: Patience, key: str) -> None:
    mirrors.publish("one", "20250101T000000", "toy-1.9.iso", "toy-1.10.iso", "toy-1.iso", "toy-2.iso")
    promise = read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)
    assert (promise.file, promise.digests[0].value) == ("toy-1.10.iso", digest_of("toy-1.10.iso"))
    assert (promise.signed_by, promise.signed_at) == (key, 1_735_689_600)
    assert Promise.from_json(promise.to_json()) == promise


def test_an_older_list_than_before_is_refused(mirrors: Mirrors, store: Store, hasty: Patience) -> None:
    mirrors.publish("one", "20250101T000000", "toy-1.2.iso")
    read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)
    mirrors.publish("one", "20241231T235959", "toy-1.1.iso")
    mirrors.publish("two", "20200102T000000", "toy-1.0.iso")
    with pytest.raises(RollbackError, match="older than the one that was accepted before") as caught:
        read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)
    assert "signed 2024-12-31 23:59:59 UTC, the last one 2025-01-01 00:00:00 UTC" in caught.value.details
    assert "lock" in caught.value.resolution
    mirrors.publish("two", "20250101T000000", "toy-1.2.iso")  # the same once more
    assert read_promise(_TASK, mirrors.wanted, store.state, patience=hasty).file == "toy-1.2.iso"
    mirrors.publish("two", "20250102T000000", "toy-1.3.iso")
    assert read_promise(_TASK, mirrors.wanted, store.state, patience=hasty).file == "toy-1.3.iso"


def test_each_task_has_a_memory_of_its_own(mirrors: Mirrors, store: Store, hasty: Patience) -> None:
    mirrors.publish("one", "20250101T000000", "toy-1.2.iso")
    read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)
    mirrors.publish("one", "20240101T000000", "toy-1.1.iso")
    assert read_promise("fetch:toy-1:aarch64:iso", mirrors.wanted, store.state, patience=hasty).file == "toy-1.1.iso"


@pytest.mark.parametrize("fault", ["unsigned", "page", "gone", "other file", "swapped"])
def test_the_next_mirror_is_asked_if_one_is_wrong(
    mirrors: Mirrors, server: MediaServer, store: Store, hasty: Patience, fault: str
) -> None:
    mirrors.publish("one", "20250101T000000", *(["other.iso"] if fault == "other file" else ["toy-1.2.iso"]))
    mirrors.publish("two", "20250101T000000", "toy-1.3.iso")
    if fault == "unsigned":
        server.answer("/one/SHA256SUMS.gpg", Manner(data=b"nothing"))
    if fault == "page":
        server.answer("/one/SHA256SUMS", Manner(data=PAGE))
    if fault == "gone":
        server.answer("/one/SHA256SUMS", Manner(status=404))
    if fault == "swapped":
        server.answer("/one/SHA256SUMS", Manner(data=make_list("toy-1.99.iso")))
    assert read_promise(_TASK, mirrors.wanted, store.state, patience=hasty).file == "toy-1.3.iso"


def test_what_no_mirror_has_is_told_of_each(
    mirrors: Mirrors, server: MediaServer, store: Store, hasty: Patience
) -> None:
    with pytest.raises(NoMirrorError) as caught:
        read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)
    assert caught.value.details.count("it does not have the file") == 2
    mirrors.publish("one", "20250101T000000", "other.iso")
    mirrors.publish("two", "20250101T000000", "other.iso")
    with pytest.raises(PvmlabError) as told:
        read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)
    assert "the list of checksums has no toy-1*.iso" in told.value.brief + told.value.details
    for mirror in ("one", "two"):
        server.answer(f"/{mirror}/SHA256SUMS.gpg", Manner(data=b"nothing"))
    with pytest.raises(ChecksumError, match="is not signed as it must be"):
        read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)


def test_offline_the_last_promise_holds(
    mirrors: Mirrors, server: MediaServer, store: Store, hasty: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVMLAB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="toy-1"):
        read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)
    monkeypatch.delenv("PVMLAB_OFFLINE")
    mirrors.publish("one", "20250101T000000", "toy-1.2.iso")
    online = read_promise(_TASK, mirrors.wanted, store.state, patience=hasty)
    asked = server.connections
    monkeypatch.setenv("PVMLAB_OFFLINE", "1")
    assert read_promise(_TASK, mirrors.wanted, store.state, patience=hasty) == online
    assert server.connections == asked


def test_a_list_about_one_file_may_hold_a_digest_alone(
    server: MediaServer, signer: Signer, key: str, store: Store, hasty: Patience, tmp_path: Path
) -> None:
    wanted = SignedList(
        mirrors=(server.url("/"),), file="toy.qcow2", name="toy.qcow2.sha256", signature=None,
        keys={key: signer.export(key, tmp_path)},
    )  # fmt: skip
    text = signer.sign(f"{digest_of('x')}\n".encode(), key, clear=True)
    server.answer("/toy.qcow2.sha256", Manner(data=text))
    assert read_promise(_TASK, wanted, store.state, patience=hasty).digests[0].value == digest_of("x")
    signed = signer.sign(make_list("other.qcow2"), key, clear=True)
    server.answer("/toy.qcow2.sha256", Manner(data=signed))
    with pytest.raises(NotFoundError):
        read_promise(_TASK, wanted, store.state, patience=hasty)
