"""Out of one cache, into another: the same artifacts, up to date."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import ChecksumError, ConflictError, PvmlabError
from pipeline.graph import Graph
from pipeline.progress import ignore_progress
from pipeline.sidecar import publish_sidecar, read_sidecar
from pipeline.upkeep.bundle import (
    export_bundle,
    header,
    plan_bundle,
    write_bundle,
)
from pipeline.upkeep.bundle_import import Fate, Imported
from pipeline.workspace import Cache
from tests.fakes.toy_bundle import ALL, content, exported, imported, members, packed, reasons
from tests.fakes.toy_cache import DEB, DEB_NAME, build_all, files_in, toy_graph, with_recipe


def test_everything_arrives_and_is_up_to_date(source: Cache, cache: Cache, bundle: bytes) -> None:
    result = imported(bundle, cache)
    assert result == Imported(dict.fromkeys(ALL, Fate.IMPORTED), 1)
    assert files_in(cache) == files_in(source)
    assert set(reasons(toy_graph(cache)).values()) == {None}
    assert (cache.root / "images/toy/one").stat().st_mode & 0o777 == 0o644
    assert not any(cache.scratch.iterdir())


def test_it_is_a_tar_whose_index_comes_first(source: Cache, bundle: bytes) -> None:
    found = members(bundle)
    index = json.loads(found.pop("bundle.json"))
    assert [entry["path"] for entry in index["entries"]] == list(found)
    assert found == files_in(source)
    names = list(found)
    assert names[-1] == DEB_NAME
    order = ["one.json", "one.spdx.json", "one.intoto.json", "one"]
    assert [name.rpartition("/")[2] for name in names if "toy/one" in name] == order
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        assert {(each.mtime, each.uid, each.gid, each.mode, each.isfile()) for each in archive} == {
            (0, 0, 0, 0o644, True)
        }


def test_equal_artifacts_give_equal_bytes(cache: Cache, bundle: bytes) -> None:
    imported(bundle, cache)
    assert exported(cache) == bundle


def test_what_a_task_needs_comes_along_and_nothing_else(source: Cache) -> None:
    names = set(members(exported(source, ["pair:toy"])))
    assert {"images/toy/base", "images/toy/one", "images/toy/two"} <= names
    assert not any(name.startswith(("lonely", "packages", "downloads")) for name in names)


def test_only_what_is_up_to_date_is_exported(cache: Cache) -> None:
    with pytest.raises(ConflictError, match="not all of that is up to date") as caught:
        plan_bundle(toy_graph(cache), ["pair:toy"], cache)
    assert "base:toy: images/toy/base is not built" in caught.value.details
    build_all(toy_graph(cache))
    with pytest.raises(ConflictError) as caught:
        plan_bundle(toy_graph(cache, "changed"), ["lonely:toy"], cache)
    assert caught.value.details == "lonely:toy: option text changed:  -> changed"


def test_downloads_that_are_absent_are_told(cache: Cache) -> None:
    build_all(toy_graph(cache))
    (cache.root / DEB_NAME).unlink()
    plan = plan_bundle(toy_graph(cache), ALL, cache)
    assert plan.absent == (DEB_NAME.split("/")[1],)
    assert DEB_NAME not in [entry.path for entry in plan.entries]


@pytest.mark.parametrize("damage", [DEB[:-1], b"X" + DEB[1:], b""])
def test_damage_is_not_exported(cache: Cache, tmp_path: Path, damage: bytes) -> None:
    build_all(toy_graph(cache))
    plan = plan_bundle(toy_graph(cache), ALL, cache)
    (cache.root / DEB_NAME).write_bytes(damage)
    file = tmp_path / "bundle.tar"
    file.write_text("the last one")
    with pytest.raises(ChecksumError, match="is damaged"):
        export_bundle(plan, cache, file, ignore_progress)
    assert file.read_text() == "the last one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.tar", "cache"]


def test_a_link_is_not_replaced_but_what_it_leads_to(source: Cache, tmp_path: Path, bundle: bytes) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").touch()
    export_bundle(plan_bundle(toy_graph(source), ALL, source), source, tmp_path / "link", ignore_progress)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == bundle


def test_a_device_is_written_to_and_stays_one(source: Cache) -> None:
    export_bundle(plan_bundle(toy_graph(source), ALL, source), source, Path("/dev/null"), ignore_progress)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("size", [0, 1, 8**11 - 1, 8**11, 1 << 40])
@pytest.mark.parametrize("name", ["a", "a" * 100, f"downloads/{'b' * 64}/{'c' * 100}"])
def test_headers_are_those_of_a_tar(name: str, size: int) -> None:
    found = tarfile.TarInfo.frombuf(header(name, size), "utf-8", "strict")
    assert (found.name, found.size, found.isreg(), found.mtime) == (name, size, True, 0)


def test_a_name_too_long_for_a_tar_is_told() -> None:
    with pytest.raises(PvmlabError, match="too long for a bundle"):
        header(f"downloads/{'b' * 64}/{'c' * 101}", 1)


def test_what_is_there_is_left_alone(cache: Cache, bundle: bytes) -> None:
    build_all(toy_graph(cache))
    before = {path: path.stat().st_ino for path in cache.root.rglob("*") if path.is_file()}
    assert imported(bundle, cache) == Imported(dict.fromkeys(ALL, Fate.PRESENT), 0)
    assert {path: path.stat().st_ino for path in before} == before


def test_only_what_is_missing_or_damaged_is_taken(cache: Cache, source: Cache, bundle: bytes) -> None:
    build_all(toy_graph(cache))
    (cache.root / "images/toy/one").write_text("damaged")
    toy_graph(cache).artifacts["lonely:toy"].remove()
    (cache.root / DEB_NAME).write_text("damaged")
    fates = {"base:toy": Fate.PRESENT, "pair:toy": Fate.IMPORTED, "packages:toy": Fate.PRESENT,
             "lonely:toy": Fate.IMPORTED}  # fmt: skip
    assert imported(bundle, cache) == Imported(fates, 1)
    assert files_in(cache) == files_in(source)


def local_variant(cache: Cache) -> Graph:
    """Build what another recipe makes, which is up to date by that recipe."""
    variant = with_recipe(toy_graph(cache), "base:toy", lambda _making: "ours")
    build_all(variant)
    return variant


def test_what_differs_and_is_up_to_date_is_kept(cache: Cache, bundle: bytes) -> None:
    graph = local_variant(cache)
    result = imported(bundle, cache, graph=graph)
    assert (result.fates["base:toy"], result.fates["pair:toy"]) == (Fate.KEPT, Fate.KEPT)
    assert (cache.root / "images/toy/base").read_text() == "ours"
    assert set(reasons(graph).values()) == {None}


def test_replace_takes_the_bundles(cache: Cache, source: Cache, bundle: bytes) -> None:
    graph = local_variant(cache)
    result = imported(bundle, cache, graph=graph, replace=True)
    assert (result.fates["base:toy"], result.fates["pair:toy"]) == (Fate.IMPORTED, Fate.IMPORTED)
    assert files_in(cache) == files_in(source)
    assert set(reasons(graph).values()) == {None}


def test_what_would_be_stale_by_an_imported_input_is_imported_too(cache: Cache, source: Cache, bundle: bytes) -> None:
    graph = local_variant(cache)
    (cache.root / "images/toy/base.intoto.json").unlink()  # base is out of date, pair is not
    result = imported(bundle, cache, graph=graph)
    assert (result.fates["base:toy"], result.fates["pair:toy"]) == (Fate.IMPORTED, Fate.IMPORTED)
    assert files_in(cache) == files_in(source)


def test_documents_of_other_bytes_do_not_stay(cache: Cache, bundle: bytes, source: Cache) -> None:
    build_all(toy_graph(cache, "older"))
    parts = [(name, data) for name, data in content(bundle) if "lonely" in name]
    record = read_sidecar(source.root / "lonely/file") or {}
    publish_sidecar(cache.root / "plain", {**record, "documents": {}})
    plain = [("lonely/file.json", (cache.root / "plain.json").read_bytes()), parts[-1]]
    imported(packed(plain), cache)
    assert toy_graph(cache).artifacts["lonely:toy"].reason() is None
    assert sorted(path.name for path in (cache.root / "lonely").iterdir()) == ["file", "file.json"]


def test_a_host_without_the_tools_takes_it_as_up_to_date(cache: Cache, tmp_path: Path) -> None:
    made = Cache(tmp_path / "made")
    graph = toy_graph(made, tools=("py:zstandard",))
    build_all(graph)
    for artifact in graph.artifacts.values():  # as if made with a program that is nowhere here
        for target in artifact.targets:
            record = read_sidecar(target) or {}
            publish_sidecar(target, {**record, "tools": {"no-such-packer": "1.0"}})
    here = toy_graph(made, tools=("no-such-packer",))
    sink = io.BytesIO()
    write_bundle(plan_bundle(here, ["base:toy"], made), made, sink, ignore_progress)
    there = toy_graph(cache, tools=("no-such-packer",))
    imported(sink.getvalue(), cache, graph=there)
    assert there.artifacts["base:toy"].reason() is None
