"""Bundles that are cut, damaged or made to harm: refused, and nothing half imported counts as built."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.digests import json_digest
from pipeline.errors import ExitCode, PvmlabError
from pipeline.sidecar import publish_sidecar, read_sidecar
from pipeline.state import state_of
from pipeline.upkeep.bundle import (
    LARGEST_INDEX,
    TRAILER,
    Bundle,
    Entry,
    header,
    parse_index,
    render_index,
)
from pipeline.upkeep.bundle_import import DamagedBundleError, Imported, NotABundleError
from pipeline.workspace import Cache
from tests.fakes.toy_bundle import content, exported, imported, members, packed, reasons
from tests.fakes.toy_cache import build_all, files_in, toy_graph


def refused(data: bytes, cache: Cache) -> PvmlabError:
    """Import what must not come in; return what was said. What counts as built then is right to its last byte."""
    with pytest.raises(PvmlabError) as caught:
        imported(data, cache)
    assert caught.value.exit_code is ExitCode.CHECKSUM or isinstance(caught.value, NotABundleError)
    assert not list(cache.root.rglob(".*.partial"))
    assert not list(cache.scratch.glob("*"))
    return caught.value


def assert_what_counts_is_right(cache: Cache, source: Cache) -> None:
    right = files_in(source)
    for artifact in toy_graph(cache).artifacts.values():
        if artifact.reason() is None:
            for target in artifact.targets:
                name = target.relative_to(cache.root).as_posix()
                assert target.read_bytes() == right[name], name
    for path in cache.root.glob("downloads/*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Cache]]:
    """Make empty caches."""
    made: list[Cache] = []

    def make() -> Cache:
        made.append(Cache(tmp_path / f"cache-{len(made)}"))
        return made[-1]

    yield make
    for cache in made:
        state_of(cache).close()


@pytest.mark.parametrize("step", [1499, pytest.param(11, marks=pytest.mark.nightly)])
def test_a_bundle_is_refused_wherever_it_is_cut(
    source: Cache, bundle: bytes, fresh: Callable[[], Cache], step: int
) -> None:
    for end in {*range(0, len(bundle), step), len(bundle) - 1, len(bundle) - len(TRAILER)}:
        cache = fresh()
        error = refused(bundle[:end], cache)
        assert isinstance(error, NotABundleError) is (end < 512)
        assert_what_counts_is_right(cache, source)


@pytest.mark.parametrize("step", [797, pytest.param(11, marks=pytest.mark.nightly)])
def test_a_bundle_is_refused_whichever_byte_is_flipped(
    source: Cache, bundle: bytes, fresh: Callable[[], Cache], step: int
) -> None:
    for offset in range(0, len(bundle), step):
        cache = fresh()
        refused(bundle[:offset] + bytes([bundle[offset] ^ 1 << offset % 8]) + bundle[offset + 1 :], cache)
        assert_what_counts_is_right(cache, source)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_bundle_never_harms_what_is_there(
    source: Cache, bundle: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(bundle) - 1))
    junk = data.draw(st.binary(max_size=64))
    damaged = bundle[:start] + junk + bundle[start + len(junk) + data.draw(st.integers(0, 600)) :]
    if damaged == bundle:
        return
    cache = Cache(tmp_path_factory.mktemp("built") / "cache")
    build_all(toy_graph(cache))
    refused(damaged, cache)
    assert set(reasons(toy_graph(cache)).values()) == {None}
    assert files_in(cache) == files_in(source)
    state_of(cache).close()


@pytest.mark.parametrize("number", range(3))
def test_an_artifact_that_is_half_replaced_counts_as_not_built(source: Cache, cache: Cache, number: int) -> None:
    """Cut between the two files of one artifact, of which older ones are there."""
    build_all(toy_graph(cache, "older"))
    data = exported(source, ["pair:toy"])
    marks = [
        header(f"images/toy/{name}", (source.root / f"images/toy/{name}").stat().st_size) for name in ("one", "two")
    ]
    cuts = [data.index(marks[0]) + 512, data.index(marks[1]), data.index(marks[1]) + 520]
    refused(data[: cuts[number]], cache)
    graph = toy_graph(cache)
    assert graph.artifacts["base:toy"].reason() is None
    assert graph.artifacts["pair:toy"].reason() is not None
    imported(data, cache)
    assert graph.artifacts["pair:toy"].reason() is None


HOSTILE = [
    "../evil", "/etc/evil", "images/../../evil", "images/toy/../../../evil", "images//toy/base", "./images/toy/base",
    "images/toy/base/", ".state.db", ".lock", "README.md", "logs/base.toy.log", "tmp/x", "images/toy/other",
    "images/toy/base.json.json", "images/toy/base\0x", "images\\toy\\base", "bundle.json", "", ".", "..", "~/evil",
    f"downloads/{'0' * 64}/x", f"downloads/{hashlib.sha256(b'evil').hexdigest()}/../x",
    f"downloads/{hashlib.sha256(b'evil').hexdigest()}/.x", f"downloads/{hashlib.sha256(b'evil').hexdigest()}/a/b",
    f"downloads/{hashlib.sha256(b'evil').hexdigest().upper()}/x",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_a_cache_cannot_have_are_refused_before_anything_is_read(
    cache: Cache, bundle: bytes, name: str
) -> None:
    before = {path for path in cache.root.parent.rglob("*") if path.is_file()}
    error = refused(packed([*content(bundle), (name, b"evil")]), cache)
    assert "which no cache of this version of pvmlab has" in error.details
    assert {path for path in cache.root.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"x", b"g", b"L", b"K", b"S"])
def test_links_devices_and_extensions_are_refused(cache: Cache, bundle: bytes, kind: bytes) -> None:
    start = bundle.index(header("images/toy/base", len(dict(content(bundle))["images/toy/base"])))
    block = bytearray(bundle[start : start + 512])
    block[156:157] = kind
    block[157:168] = b"/etc/passwd"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    refused(bundle[:start] + bytes(block) + bundle[start + 512 :], cache)
    assert not (cache.root / "images/toy/base").exists()


def test_files_beyond_the_index_are_refused(cache: Cache, bundle: bytes) -> None:
    files = content(bundle)
    index = render_index([Entry(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in files[:-1]])
    refused(packed(files, index), cache)
    refused(bundle + b"\0", cache)
    refused(bundle + bundle, cache)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda files: [*files, files[-1]], "there twice"),
        (lambda files: [files[0], files[0], *files[1:]], "there twice"),
        (lambda files: files[::-1], "not in the order"),
        (lambda files: [each for each in files if each[0] != "images/toy/one"], "pair:toy in parts only"),
        (lambda files: [each for each in files if each[0] != "images/toy/one.json"], "pair:toy in parts only"),
        (lambda files: [each for each in files if "toy/one" not in each[0]], "pair:toy in parts only"),
        (lambda files: [each for each in files if each[0] != "lonely/file.spdx.json"], "is not the sidecar of"),
        (lambda files: [(n, b"other" if n == "lonely/file" else d) for n, d in files], "is not the sidecar of"),
        (lambda files: [(n, b"{}" if n == "lonely/file.json" else d) for n, d in files], "is not the sidecar of"),
        (lambda files: [(n, b"[" * 9999 if n == "lonely/file.json" else d) for n, d in files], "is not the sidecar of"),
        (lambda files: [(n, b"x" * (17 << 20) if n == "lonely/file.json" else d) for n, d in files], "a sidecar of"),
    ],
)
def test_bundles_that_make_no_sense_are_refused(
    cache: Cache, bundle: bytes, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]], why: str
) -> None:
    assert why in refused(packed(change(content(bundle))), cache).details


@pytest.mark.parametrize(
    "change",
    [{"task": "base:toy"}, {"size": 0}, {"sha256": "0" * 64}, {"documents": {}}, {"inputs": []}, {"options": None},
     {"tools": "x"}, {"documents": {"/../../x": "0" * 64}}],
)  # fmt: skip
def test_a_sidecar_that_is_whole_but_about_something_else_is_refused(
    source: Cache, cache: Cache, bundle: bytes, tmp_path: Path, change: dict[str, object]
) -> None:
    publish_sidecar(tmp_path / "file", {**(read_sidecar(source.root / "lonely/file") or {}), **change})
    forged = (tmp_path / "file.json").read_bytes()
    error = refused(packed([(n, forged if n == "lonely/file.json" else d) for n, d in content(bundle)]), cache)
    assert "lonely/file.json is not the sidecar of lonely/file" in error.details
    assert not (cache.root / "lonely/file").exists()


@pytest.mark.parametrize("data", [b"", b"x" * 511, b"x" * 4096, bytes(10240), b"\x1f\x8b" + bytes(600)])
def test_other_files_are_no_bundles(cache: Cache, data: bytes) -> None:
    assert isinstance(refused(data, cache), NotABundleError)


@pytest.mark.parametrize("size", [b"-0000000001", b"77777777777", b"0000000000 ", f"{LARGEST_INDEX + 1:011o}".encode()])
def test_an_index_of_nonsensical_size_is_not_read(cache: Cache, size: bytes) -> None:
    block = bytearray(header("bundle.json", 0))
    block[124:135] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert isinstance(refused(bytes(block) + bytes(4096), cache), NotABundleError)


def sealed(document: dict[str, Any]) -> bytes:
    """Return an index that may be nonsense, with the seal of a good one."""
    unsealed = {key: value for key, value in document.items() if key != "seal"}
    return json.dumps(unsealed | {"seal": json_digest(unsealed)}, indent=1, sort_keys=True).encode() + b"\n"


@pytest.mark.parametrize(
    "entry",
    [
        {"size": -1}, {"size": 1 << 88}, {"size": 1.5}, {"size": True}, {"size": "1"}, {"size": None},
        {"sha256": "g" * 64}, {"sha256": "a" * 63}, {"sha256": "A" * 64}, {"sha256": 1}, {"path": "\ud800"},
        {"path": 1}, {"path": ["a"]}, {"mode": 0o777}, {"link": "/etc/passwd"},
    ],
)  # fmt: skip
def test_an_index_with_a_nonsensical_entry_is_refused(cache: Cache, bundle: bytes, entry: dict[str, object]) -> None:
    document = json.loads(members(bundle)["bundle.json"])
    document["entries"][3] |= entry
    assert isinstance(refused(packed(content(bundle), sealed(document)), cache), DamagedBundleError)


@pytest.mark.parametrize("change", [{"entries": 1}, {"entries": [[]]}, {"entries": {}}, {"more": 1}, {"format": "tar"}])
def test_a_nonsensical_index_is_refused(cache: Cache, bundle: bytes, change: dict[str, object]) -> None:
    document = json.loads(members(bundle)["bundle.json"])
    assert isinstance(refused(packed(content(bundle), sealed(document | change)), cache), DamagedBundleError)


@pytest.mark.parametrize(
    "index", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"format": "pvmlab-bundle"}', b"1" * 9999]
)
def test_other_data_is_no_index(cache: Cache, bundle: bytes, index: bytes) -> None:
    assert isinstance(refused(packed(content(bundle), index), cache), DamagedBundleError)


def test_an_index_is_good_in_one_form_only(bundle: bytes) -> None:
    good = members(bundle)["bundle.json"]
    parse_index(good)
    for other in (good + b" ", good[:-1], b" " + good, good.replace(b'"path"', b'"path": "x", "path"', 1)):
        with pytest.raises(ValueError, match="it is not as we write it"):
            parse_index(other)


def test_no_flipped_bit_of_an_index_is_taken_for_anything_but_damage(bundle: bytes) -> None:
    good = render_index(parse_index(members(bundle)["bundle.json"])[:2])
    for offset, bit in itertools.product(range(len(good)), range(8)):
        with pytest.raises(ValueError):  # noqa: PT011 (of json, of us)
            parse_index(good[:offset] + bytes([good[offset] ^ 1 << bit]) + good[offset + 1 :])


def test_a_later_format_is_told_apart_from_damage() -> None:
    with pytest.raises(PvmlabError, match="of the format 2, this pvmlab reads 1") as caught:
        parse_index(sealed(json.loads(render_index([])) | {"schema": 2}))
    assert caught.value.exit_code is ExitCode.FAILED


def test_an_empty_bundle_is_fine(cache: Cache) -> None:
    assert Bundle((), (), ()).size == 0
    assert imported(packed([]), cache) == Imported({}, 0)
