"""Five hundred ways to be wrong: no wrong byte is taken, and where one mirror is honest, the right ones are."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import PvmlabError
from pipeline.fetch.asset import Algorithm, Asset, Digest
from pipeline.fetch.patience import Patience
from pipeline.fetch.store import Store, obtain
from pipeline.workspace import Cache
from tests.fakes.media_server import PAGE, Manner, MediaServer

_CASES = 500
_THREADS = 8
_PATIENCE = Patience(  # an honest mirror has to be heard out on a busy host, too
    connect=5.0, read=1.5, floor=40_000.0, window=3.0, tries=3, worth=8192, most=10, pause=0.001, longest=0.01
)
_REQUESTS = 60  # to one mirror at most: twice ten tries, or three with nine redirects each, twice
_STATUSES = (204, 206, 301, 304, 400, 401, 403, 404, 410, 416, 418, 429, 500, 502, 503, 505, 599)
_LOCATIONS = (
    "file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "data:text/plain,x", "//", "", "http://", "?a",
    "http://[::1", "http://127.0.0.1:0/x", "http://127.0.0.1:99999/x", "https://127.0.0.1:1/x", "http://127.0.0.1\\@x/",
    "HTTP://127.0.0.1:1/x", "javascript:alert(1)", "http://user:pw@127.0.0.1:1/x", "x" * 5000, "http://0.0.0.0:1/",
)  # fmt: skip
_HEADERS = (
    {"Content-Length": "5, 6"}, {"Content-Length": "-1"}, {"Content-Length": "many"}, {"Content-Length": "9" * 30},
    {"Content-Type": "text/html; charset=utf-8"}, {"Content-Type": "application/xhtml+xml"}, {"ETag": "1"},
    {"Transfer-Encoding": "odd"}, {"Transfer-Encoding": "chunked"}, {"Content-Range": "bytes 5-9/10"},
    {"Content-Encoding": "br"}, {"ETag": '"' + "x" * 3000 + '"'},
    {"Content-Disposition": 'attachment; filename="../../evil"'},
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """What the mirrors of one file do, in turn. :ivar is_possible: whether one of them is honest."""

    data: bytes
    mirrors: list[list[Manner]]
    is_possible: bool


def hostile(choice: random.Random, data: bytes) -> Manner:
    """Return one way to answer that is wrong, or right in an odd way."""
    size = len(data)
    etag = choice.choice(['"1"', '"1"', 'W/"1"', None, '"2"'])
    spot = choice.choice([0, 1, size - 1, choice.randrange(size)])
    other = bytearray(data)
    other[spot] ^= 1 << choice.randrange(8)
    ranges = choice.choice(
        ["honour", "ignore", "shifted", "longer", "mute", "other", "unchecked", "416", "416-done", "unasked"]
    )
    plain = Manner(data=data, etag=etag, ranges=ranges)
    ways: list[Callable[[], Manner]] = [
        lambda: dataclasses.replace(plain, cut=spot, reset=choice.random() < 0.5),
        lambda: dataclasses.replace(plain, cut=spot, length=None),
        lambda: dataclasses.replace(plain, cut=spot, chunked=True),
        lambda: dataclasses.replace(plain, chunked=True),
        lambda: dataclasses.replace(plain, length=choice.choice([-spot, -1, 1, 7, size, 10**12])),
        lambda: dataclasses.replace(plain, data=bytes(other)),
        lambda: dataclasses.replace(plain, data=bytes(other), cut=choice.randrange(size)),
        lambda: dataclasses.replace(plain, data=data[:spot] or b"x", length=choice.choice([0, None])),
        lambda: dataclasses.replace(plain, data=data + bytes(choice.randrange(1, 99)), length=choice.choice([0, None])),
        lambda: dataclasses.replace(plain, data=PAGE.ljust(size)[:size], length=choice.choice([0, None])),
        lambda: dataclasses.replace(plain, encoding=True, length=choice.choice([0, None])),
        lambda: dataclasses.replace(plain, endless=True),
        lambda: Manner(status=choice.choice(_STATUSES), headers={"Retry-After": choice.choice(["0", "x", "9999"])}),
        lambda: Manner(status=choice.choice([301, 302, 303, 307, 308]), location=choice.choice(_LOCATIONS)),
        lambda: dataclasses.replace(plain, headers=choice.choice(_HEADERS)),
        Manner,  # an empty file
    ]
    slow: list[Callable[[], Manner]] = [
        lambda: dataclasses.replace(plain, stall=spot),
        lambda: dataclasses.replace(plain, trickle=0.02, trickles_header=choice.random() < 0.5),
        lambda: Manner(hang=True),
    ]
    return choice.choice(slow if choice.random() < 0.06 else ways)()


def make_case(number: int) -> Case:
    """Return the case of this number, always the same."""
    choice = random.Random(number)
    data = choice.randbytes(choice.choice([40, 999, 70_000, 200_000]))
    mirrors = [[hostile(choice, data) for _ in range(choice.randint(1, 3))] for _ in range(choice.randint(1, 3))]
    is_possible = choice.random() < 0.7
    if is_possible:
        mirrors.insert(choice.randint(0, len(mirrors)), [Manner(data=data, etag=choice.choice(['"1"', None]))])
    return Case(data, mirrors, is_possible)


def run_case(number: int, server: MediaServer, store: Store) -> bool:
    """Fetch from the mirrors of a case; return whether that gave the file."""
    case = make_case(number)
    paths = [f"/{number}/{mirror}/x.iso" for mirror in range(len(case.mirrors))]
    for path, manners in zip(paths, case.mirrors, strict=True):
        server.answer(path, manners)
    sha256 = hashlib.sha256(case.data).hexdigest()
    asset = Asset(
        name=f"x{number}.iso",
        urls=tuple(map(server.url, paths)),
        digests=(Digest(Algorithm.SHA256, sha256),),
        size=len(case.data) if number % 3 else None,
        max_size=1 << 20,
    )
    try:
        stored = obtain(asset, store=store, patience=_PATIENCE)
    except PvmlabError as error:
        if case.is_possible:
            raise AssertionError(f"case {number}: {error.brief}: {error.details}") from error
        return store.place(sha256, asset.name).exists()
    assert stored.path.read_bytes() == case.data, f"case {number}"
    return True


@pytest.fixture(name="server", scope="module")
def start_server() -> MediaServer:
    return MediaServer()


def test_five_hundred_hostile_mirrors(server: MediaServer, tmp_path: Path) -> None:
    store = Store(Cache(tmp_path / "cache"))
    with server, ThreadPoolExecutor(_THREADS) as pool:
        given = list(pool.map(lambda number: run_case(number, server, store), range(_CASES)))
    store.state.close()
    possible = sum(make_case(number).is_possible for number in range(_CASES))
    assert possible <= sum(given) < _CASES
    asked: dict[str, int] = {}
    for request in server.requests:
        asked[request.path] = asked.get(request.path, 0) + 1
    assert max(asked.values()) <= _REQUESTS, max(asked.items(), key=lambda item: item[1])
    for path in store.root.rglob("*"):
        if path.is_file() and path.parent != store.parts:
            assert path.parent.name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(list(store.parts.glob("*.part"))) <= _CASES - sum(given)
    assert not list(store.parts.glob("*.lock"))
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
