"""What becomes of each kind of answer, request by request; and what is in the store afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ExitCode, UsageError
from pipeline.fetch.asset import Algorithm, Asset, Digest
from pipeline.fetch.failure import NoMirrorError, WrongMirrorsError
from pipeline.fetch.offline import OfflineError
from pipeline.fetch.patience import Patience
from pipeline.fetch.store import Store, ensure_asset, fetch_unpinned, obtain, sweep_parts
from pipeline.progress import Progress
from tests.fakes.media_server import PAGE, Manner, MediaServer

_DATA = random.Random(0).randbytes(100_000)
_OTHER = bytes([_DATA[0] ^ 1]) + _DATA[1:]
_GOOD = Manner(data=_DATA)
_SHA256 = hashlib.sha256(_DATA).hexdigest()


@pytest.fixture(name="server")
def start_server() -> Iterator[MediaServer]:
    with MediaServer() as server:
        yield server


def asset(*urls: str, size: int | None = len(_DATA), algorithm: Algorithm = Algorithm.SHA256) -> Asset:
    digest = Digest(algorithm, hashlib.new(algorithm, _DATA).hexdigest())
    return Asset(name="x.iso", urls=urls, digests=(digest,), size=size)


def ranges(server: MediaServer) -> list[str | None]:
    return [request.headers.get("range") for request in server.requests]


@pytest.mark.parametrize(
    ("manners", "asked"),
    [
        ([Manner(data=_DATA, cut=700)], ["bytes=700-"]),
        ([Manner(data=_DATA, cut=len(_DATA) - 1)], ["bytes=99999-"]),
        ([Manner(data=_DATA, cut=0)], [None]),
        ([Manner(data=_DATA, stall=700)], ["bytes=700-"]),
        ([Manner(data=_DATA, cut=700, chunked=True)], ["bytes=700-"]),
        ([Manner(data=_DATA, cut=700, length=None)], ["bytes=700-"]),
        ([Manner(data=_DATA, cut=700, etag=None)], [None]),
        ([Manner(data=_DATA, cut=700, etag='W/"1"')], [None]),
        ([Manner(data=_DATA, cut=700, etag="1")], [None]),
        ([Manner(data=_OTHER, cut=700, etag='"old"')], ["bytes=700-"]),  # answered with 200: If-Range did not hold
        ([Manner(data=_DATA, cut=700), Manner(data=_DATA, cut=900)], ["bytes=700-", "bytes=1600-"]),
        ([Manner(data=_DATA, cut=700), Manner(data=_DATA, ranges="ignore")], ["bytes=700-"]),
        ([Manner(data=_DATA, cut=700), Manner(data=_DATA, ranges="416")], ["bytes=700-", None]),
        ([Manner(data=_DATA, cut=700), Manner(data=_DATA, ranges="416-done")], ["bytes=700-", None]),
        ([Manner(data=_DATA, cut=700), Manner(data=_DATA, ranges="shifted")], ["bytes=700-", None]),
        ([Manner(data=_DATA, cut=700), Manner(data=_DATA, ranges="longer")], ["bytes=700-", None]),
        ([Manner(data=_DATA, cut=700), Manner(data=_DATA, ranges="mute")], ["bytes=700-", None]),
        ([Manner(data=_DATA, cut=700), Manner(data=_DATA, ranges="other")], ["bytes=700-", None]),
        ([Manner(data=_OTHER, cut=700), Manner(data=_DATA, ranges="unchecked")], ["bytes=700-", None]),  # mixed
        ([Manner(status=503), Manner(status=429, headers={"Retry-After": "0"})], [None, None]),
    ],
)
def test_a_mirror_is_asked_again_for_what_is_missing(
    server: MediaServer, store: Store, hasty: Patience, manners: list[Manner], asked: list[str | None]
) -> None:
    server.answer("/x.iso", [*manners, _GOOD])
    stored = obtain(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert stored.path.read_bytes() == _DATA
    wanted = [None, *asked]
    assert ranges(server)[: len(wanted)] == wanted
    assert len(server.requests) <= len(wanted) + 1
    assert all(request.headers.get("if-range") for request in server.requests if "range" in request.headers)
    assert not list(store.parts.iterdir())


@pytest.mark.parametrize(
    ("manner", "requests", "why"),
    [
        (Manner(data=_OTHER), 1, "it sends other bytes: their sha256 digest is"),
        (Manner(data=_DATA[:-1]), 1, "it has another version: 99,999 bytes; 100,000 were promised"),
        (Manner(data=_DATA + b"x"), 1, "it has another version: 100,001 bytes"),
        (Manner(data=_DATA, encoding=True), 1, "gzip-encoded although nobody asked for that"),
        (Manner(data=PAGE), 1, "it has another version"),
        (Manner(data=PAGE, length=None), 1, "it sends a web page instead of the file"),
        (Manner(data=_DATA, headers={"Content-Type": "text/html"}), 1, "it sends a web page instead of the file"),
        (Manner(data=_DATA, endless=True), 1, "it sends more than the 100,000 bytes"),
        (Manner(data=_DATA, ranges="unasked"), 1, "it refuses: status 206"),
        (Manner(status=404), 1, "it does not have the file"),
        (Manner(status=403), 1, "it refuses: status 403"),
        (Manner(status=503), 3, "it refuses: status 503"),
        (Manner(status=503, headers={"Retry-After": "3600"}), 1, "it refuses: status 503"),
        (Manner(status=302, location="/x.iso"), 9, "it redirects more than 8 times"),
        (Manner(status=302), 1, "it redirects without saying where to"),
        (Manner(status=302, location="file:///etc/passwd"), 1, "only http and https are asked"),
        (Manner(data=_DATA, trickle=0.02), 1, "too slow: under 20000 bytes a second over 0.5 s"),
        (Manner(data=_DATA, trickle=0.02, trickles_header=True), 1, "too slow: under 20000 bytes a second"),
        (Manner(hang=True), 3, "it sent nothing for too long"),
        (Manner(data=_DATA, cut=5, etag=None), 3, "it closed the connection"),
        (Manner(data=_DATA, headers={"Content-Length": "5, 6"}), 3, "it contradicts itself about the length"),
    ],
)
def test_what_is_not_the_file_is_told_and_the_next_mirror_asked(
    server: MediaServer, store: Store, hasty: Patience, manner: Manner, requests: int, why: str
) -> None:
    server.answer("/x.iso", manner)
    with pytest.raises((NoMirrorError, WrongMirrorsError)) as caught:
        obtain(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert why in caught.value.details
    assert server.count("/x.iso") == requests
    assert not store.place(_SHA256, "x.iso").exists()
    assert isinstance(caught.value, WrongMirrorsError) == (manner == Manner(data=_OTHER))
    server.answer("/good/x.iso", _GOOD)
    stored = obtain(asset(server.url("/x.iso"), server.url("/good/x.iso")), store=store, patience=hasty)
    assert stored.url == server.url("/good/x.iso")
    assert stored.path == store.place(_SHA256, "x.iso")


def test_two_hundred_cuts_never_make_a_file(server: MediaServer, store: Store, hasty: Patience) -> None:
    one = Patience(connect=2.0, read=2.0, tries=1)
    data = _DATA[:2000]
    wanted = Asset(
        name="x.iso",
        urls=(server.url("/x.iso"),),
        digests=(Digest(Algorithm.SHA256, hashlib.sha256(data).hexdigest()),),
    )
    for number in range(200):
        cut = 1999 - number * 10
        server.answer("/x.iso", Manner(data=data, cut=cut, etag=None, length=0 if number % 2 else None))
        with pytest.raises((NoMirrorError, WrongMirrorsError)):
            obtain(wanted, store=store, patience=one)
    assert [path.name for path in store.root.iterdir()] == ["parts"]


def test_the_part_of_an_earlier_run_goes_on(server: MediaServer, store: Store, hasty: Patience) -> None:
    server.answer("/x.iso", [Manner(data=_DATA, cut=60_000), Manner(status=404)])
    with pytest.raises(NoMirrorError):
        obtain(asset(server.url("/x.iso")), store=store, patience=hasty)
    note = json.loads((store.parts / f"{_SHA256}.json").read_bytes())
    assert note == {"url": server.url("/x.iso"), "source": None, "etag": '"1"', "modified": None, "length": 100_000}
    server.answer("/x.iso", _GOOD)
    seen: list[Progress] = []
    obtain(asset(server.url("/x.iso")), store=store, patience=hasty, listener=seen.append)
    assert ranges(server)[-1] == "bytes=60000-"
    assert seen[-1] == Progress(step="fetching x.iso", done=100_000, total=100_000)
    assert seen[0].done > 60_000


def test_the_next_mirror_is_asked_from_the_start(server: MediaServer, store: Store, hasty: Patience) -> None:
    """Whose bytes were wrong could not be told otherwise; and its ETag says nothing about another's file."""
    server.answer("/one/x.iso", [Manner(data=_OTHER, cut=60_000), Manner(status=404)])
    server.answer("/two/x.iso", _GOOD)
    obtain(asset(server.url("/one/x.iso"), server.url("/two/x.iso")), store=store, patience=hasty)
    assert ranges(server) == [None, "bytes=60000-", None]


def test_a_part_that_a_crash_has_damaged_costs_a_second_round_with_the_same_mirror(
    server: MediaServer, store: Store, hasty: Patience
) -> None:
    """After a power cut a part may have its length and none of its bytes."""
    server.answer("/x.iso", [Manner(data=_DATA, cut=60_000), Manner(status=404)])
    with pytest.raises(NoMirrorError):
        obtain(asset(server.url("/x.iso")), store=store, patience=hasty)
    (store.parts / f"{_SHA256}.part").write_bytes(bytes(60_000))
    server.answer("/x.iso", _GOOD)
    obtain(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert ranges(server)[-2:] == ["bytes=60000-", None]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"url": 1}', b"\xff", b'{"url":"x","source":null,"etag":"1"}'])
def test_a_damaged_note_has_the_part_begin_anew(
    server: MediaServer, store: Store, hasty: Patience, note: bytes
) -> None:
    store.parts.mkdir(parents=True)
    (store.parts / f"{_SHA256}.part").write_bytes(_DATA[:500])
    (store.parts / f"{_SHA256}.json").write_bytes(note)
    server.answer("/x.iso", _GOOD)
    obtain(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert ranges(server) == [None]


def test_a_note_that_a_kill_left_unfinished_goes_with_the_part(
    server: MediaServer, store: Store, hasty: Patience
) -> None:
    store.parts.mkdir(parents=True)
    unfinished, of_another = (store.parts / f".{identity}.json.1.0000.partial" for identity in (_SHA256, "0" * 64))
    for path in (unfinished, of_another):
        path.write_text("{")
    server.answer("/x.iso", _GOOD)
    ensure_asset(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert list(store.parts.iterdir()) == [of_another]


def test_a_whole_part_is_taken_without_a_request(server: MediaServer, store: Store, hasty: Patience) -> None:
    """Of a process that was killed between the last byte and the comparison."""
    server.answer("/x.iso", [Manner(data=_DATA, cut=60_000), Manner(status=404)])
    with pytest.raises(NoMirrorError):
        obtain(asset(server.url("/x.iso")), store=store, patience=hasty)
    (store.parts / f"{_SHA256}.part").write_bytes(_DATA)
    asked = server.connections
    assert obtain(asset(server.url("/x.iso")), store=store, patience=hasty).path.read_bytes() == _DATA
    assert server.connections == asked


def test_a_part_goes_on_where_a_redirect_led(server: MediaServer, store: Store, hasty: Patience) -> None:
    server.answer("/x.iso", Manner(status=302, location="/far/x.iso"))
    server.answer("/far/x.iso", [Manner(data=_DATA, cut=60_000), _GOOD])
    obtain(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert [request.path for request in server.requests] == ["/x.iso", "/far/x.iso", "/far/x.iso"]
    server.answer("/y.iso", Manner(status=302, location="/gone/x.iso"))
    server.answer("/gone/x.iso", [Manner(data=_DATA, cut=60_000), Manner(status=404), _GOOD])
    store.place(_SHA256, "x.iso").unlink()
    obtain(asset(server.url("/y.iso")), store=store, patience=hasty)


def test_what_is_there_is_not_asked_for(server: MediaServer, store: Store, hasty: Patience) -> None:
    server.answer("/x.iso", _GOOD)
    path = ensure_asset(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert ensure_asset(asset(server.url("/x.iso"), size=None), store=store) == path
    other = Asset(name="y.iso", urls=(), digests=(Digest(Algorithm.SHA256, _SHA256),))
    assert ensure_asset(other, store=store) == path  # another name of the same bytes
    assert server.connections == 1


def test_a_damaged_file_of_the_store_is_fetched_again(server: MediaServer, store: Store, hasty: Patience) -> None:
    server.answer("/x.iso", _GOOD)
    path = ensure_asset(asset(server.url("/x.iso")), store=store, patience=hasty)
    path.write_bytes(_OTHER)
    ensure_asset(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert path.read_bytes() == _DATA
    assert len(server.requests) == 2


def test_a_file_that_only_has_a_sha512_is_found_again(server: MediaServer, store: Store, hasty: Patience) -> None:
    server.answer("/x.iso", _GOOD)
    wanted = asset(server.url("/x.iso"), algorithm=Algorithm.SHA512)
    assert ensure_asset(wanted, store=store, patience=hasty) == store.place(_SHA256, "x.iso")
    assert ensure_asset(wanted, store=store) == store.place(_SHA256, "x.iso")
    assert len(server.requests) == 1
    server.answer("/y.iso", Manner(data=_OTHER))
    store.place(_SHA256, "x.iso").unlink()
    with pytest.raises(WrongMirrorsError, match="thrown away") as caught:
        ensure_asset(asset(server.url("/y.iso"), algorithm=Algorithm.SHA512), store=store, patience=hasty)
    assert caught.value.exit_code is ExitCode.CHECKSUM


def test_the_server_has_no_say_in_names(server: MediaServer, store: Store, hasty: Patience, tmp_path: Path) -> None:
    for name in ("../../evil", "/tmp/evil", "..\\evil", "evil.iso", "\u00e9vil"):
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Location": f"/{name}"}
        server.answer("/a/x.iso", Manner(data=_DATA, headers=headers))
        path = ensure_asset(asset(server.url("/a/x.iso")), store=store, patience=hasty)
        path.unlink()
    names = {path.name for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".state.db")}
    assert names == set()


def test_offline_what_is_missing_is_told_at_once(
    server: MediaServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer("/x.iso", _GOOD)
    monkeypatch.setenv("PVMLAB_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        obtain(asset(server.url("/x.iso")), store=store, task="fetch:toy:x86_64:iso")
    assert caught.value.exit_code is ExitCode.PREREQUISITE
    assert caught.value.brief == "x.iso (100,000 bytes) is not here, and PVMLAB_OFFLINE is set"
    assert "cache.export media.tar fetch:toy:x86_64:iso" in caught.value.resolution
    assert server.connections == 0
    monkeypatch.setenv("PVMLAB_OFFLINE", "0")
    path = ensure_asset(asset(server.url("/x.iso")), store=store)
    monkeypatch.setenv("PVMLAB_OFFLINE", "1")
    assert ensure_asset(asset(server.url("/x.iso")), store=store) == path


def test_eight_threads_make_one_download(server: MediaServer, store: Store, hasty: Patience) -> None:
    server.answer("/x.iso", Manner(data=_DATA, pace=0.05))
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(ensure_asset(asset(server.url("/x.iso")), store=store)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(server.requests), set(paths), len(paths)) == (1, {store.place(_SHA256, "x.iso")}, 8)


def test_a_lock_that_was_removed_while_it_was_taken_is_none(
    server: MediaServer, store: Store, hasty: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others lock the one that has its name by then."""
    taken: list[int] = []

    def removed_before(descriptor: int, operation: int) -> None:
        if not taken:
            (store.parts / f"{_SHA256}.lock").unlink()
        taken.append(descriptor)
        flock(descriptor, operation)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", removed_before)
    server.answer("/x.iso", _GOOD)
    seen: list[Progress] = []
    ensure_asset(asset(server.url("/x.iso")), store=store, patience=hasty, listener=seen.append)
    assert len(taken) == 2
    assert seen[0].step == "waiting for another process that fetches x.iso"


def test_old_parts_are_swept_and_no_others(server: MediaServer, store: Store, hasty: Patience) -> None:
    store.parts.mkdir(parents=True)
    for name, age in (("old.part", 20), ("old.json", 20), ("mixed.part", 1), ("mixed.json", 20), ("new.part", 0)):
        path = store.parts / name
        path.touch()
        os.utime(path, (time.time() - age * 86400,) * 2)
    (store.parts / "not-ours").touch()
    server.answer("/x.iso", _GOOD)
    ensure_asset(asset(server.url("/x.iso")), store=store, patience=hasty)
    assert {path.name for path in store.parts.iterdir()} == {"mixed.part", "mixed.json", "new.part", "not-ours"}
    sweep_parts(store, older_than=0.0)
    assert {path.name for path in store.parts.iterdir()} == {"not-ours"}


def test_what_is_unknown_is_fetched_to_be_locked(server: MediaServer, store: Store, hasty: Patience) -> None:
    server.answer("/x.iso", [Manner(data=_DATA, cut=700), _GOOD])
    stored = fetch_unpinned("x.iso", [server.url("/x.iso")], store=store, patience=hasty)
    assert (stored.sha256, stored.size, stored.path.read_bytes()) == (_SHA256, len(_DATA), _DATA)
    server.answer("/x.iso", Manner(data=_DATA, length=None))
    with pytest.raises(WrongMirrorsError) as caught:
        fetch_unpinned("x.iso", [server.url("/x.iso")], store=store, patience=hasty)
    assert "it does not say how long the file is" in caught.value.details
    server.answer("/x.iso", Manner(data=_DATA))
    with pytest.raises(NoMirrorError, match="could not be downloaded"):
        fetch_unpinned("x.iso", [server.url("/x.iso")], store=store, patience=hasty, max_size=len(_DATA) - 1)
    assert not list(store.parts.iterdir())


def test_without_a_mirror_nothing_can_be_fetched(store: Store) -> None:
    with pytest.raises(UsageError, match="there is no mirror to download"):
        obtain(asset(), store=store)
