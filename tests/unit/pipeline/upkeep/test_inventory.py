"""What is in a cache: known by the graph, a sealed sidecar or its place, or not ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.commit import publish_text
from pipeline.sidecar import publish_sidecar, sidecar_path
from pipeline.upkeep.inventory import Found, Kind, is_download, named_downloads, take_inventory
from pipeline.workspace import Cache
from tests.fakes.toy_cache import DEB_NAME, build_all, toy_graph


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache in which all is built."""
    cache = Cache(tmp_path / "cache")
    build_all(toy_graph(cache))
    return cache


def found_in(cache: Cache) -> dict[str, Found]:
    return {found.path.relative_to(cache.root).as_posix(): found for found in take_inventory(toy_graph(cache), cache)}


def write(cache: Cache, name: str, text: str = "x") -> Path:
    path = cache.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_everything_that_was_built_is_known(cache: Cache) -> None:
    found = found_in(cache)
    kinds = {name: each.kind for name, each in found.items() if each.kind is not Kind.OWN}
    artifacts = ["images/toy/base", "images/toy/one", "images/toy/two", "packages/toy/list", "lonely/file"]
    assert kinds == {
        **dict.fromkeys(artifacts, Kind.ARTIFACT),
        DEB_NAME: Kind.DOWNLOAD,
        **{f"logs/{name}.toy.log": Kind.LOG for name in ("base", "pair", "packages", "lonely")},
    }
    assert {name for name, each in found.items() if each.kind is Kind.OWN} >= {".state.db"}
    assert all(found[name].in_graph for name in artifacts)
    assert found["logs/pair.toy.log"].task == "pair:toy"


def test_an_artifact_is_counted_with_what_lies_beside_it_its_sidecar_last(cache: Cache) -> None:
    found = found_in(cache)["images/toy/one"]
    assert [path.name for path in found.files] == ["one", "one.intoto.json", "one.spdx.json", "one.json"]
    assert found.size == sum(path.stat().st_size for path in found.files)


def test_what_no_task_makes_any_more_is_known_by_its_sidecar(cache: Cache) -> None:
    (cache.root / "images/toy").rename(cache.root / "images/old")
    found = found_in(cache)["images/old/one"]
    assert (found.kind, found.task, found.in_graph, len(found.files)) == (Kind.ARTIFACT, "pair:toy", False, 4)


def test_a_sidecar_whose_file_is_gone_is_still_known(cache: Cache) -> None:
    (cache.root / "images/toy").rename(cache.root / "images/old")
    (cache.root / "images/old/one").unlink()
    assert found_in(cache)["images/old/one"].kind is Kind.ARTIFACT


def test_other_bytes_beside_an_old_sidecar_are_somebody_elses(cache: Cache) -> None:
    (cache.root / "images/toy").rename(cache.root / "images/old")
    write(cache, "images/old/one", "my own image")
    (cache.root / "images/old/two").unlink()
    (cache.root / "images/old/two").symlink_to("one")
    found = found_in(cache)
    for name in ("images/old/one", "images/old/one.json", "images/old/two", "images/old/two.json"):
        assert found[name].kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (".base.123.abc.partial", Kind.HALF_WRITTEN),
        ("images/toy/.base.123.abc.partial", Kind.HALF_WRITTEN),
        (".state.db.damaged", Kind.DAMAGED_STATE),
        (".state.db.damaged-wal", Kind.DAMAGED_STATE),
        ("tmp/rootfs.x/etc/passwd", Kind.SCRATCH),
        ("logs/gone.toy.log", Kind.LOG),
        ("README.md", Kind.OWN),
        (f"downloads/parts/{'a' * 64}.part", Kind.PART),
        (f"downloads/parts/{'a' * 64}.json", Kind.PART),
        (f"downloads/parts/{'a' * 64}.lock", Kind.PART),
        ("downloads/parts/notes.txt", Kind.UNKNOWN),
        ("images/toy/notes.txt", Kind.UNKNOWN),
        ("images/toy/my.json", Kind.UNKNOWN),
        ("downloads/file", Kind.UNKNOWN),
        ("downloads/abc/file", Kind.UNKNOWN),
        (f"{os.path.dirname(DEB_NAME)}/.hidden", Kind.UNKNOWN),  # noqa: PTH120 (a name, no path)
    ],
)
def test_the_rest_is_known_by_its_place(cache: Cache, name: str, kind: Kind) -> None:
    write(cache, name)
    known = "tmp/rootfs.x" if kind is Kind.SCRATCH else name
    found = found_in(cache)[known]
    assert (found.kind, found.size, found.in_graph) == (kind, 1, False)


def test_links_are_never_ours_and_never_followed(cache: Cache, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (cache.root / "images").rename(outside / "images")
    (cache.root / "images").symlink_to(outside / "images")
    (cache.root / "lonely/file").unlink()
    (cache.root / "lonely/file").symlink_to(outside / "images/toy/base")
    (cache.root / "tmp").rmdir()
    (cache.root / "tmp").symlink_to(outside)
    found = found_in(cache)
    assert {name for name, each in found.items() if each.kind is Kind.UNKNOWN} == {"images", "lonely/file", "tmp"}
    assert found["images/toy/base"].files == ()  # built, and not ours to remove
    assert not any("outside" in name for name in found)


def test_a_pipe_is_not_ours(cache: Cache) -> None:
    os.mkfifo(cache.root / "images/pipe")
    assert found_in(cache)["images/pipe"].kind is Kind.UNKNOWN


def test_manifests_name_downloads(cache: Cache) -> None:
    assert named_downloads(found_in(cache).values()) == {DEB_NAME.split("/")[1]}
    (cache.root / "packages/toy/list").unlink()  # its sidecar stays
    assert named_downloads(found_in(cache).values()) == set()


def test_a_medium_is_a_download_under_another_name(cache: Cache) -> None:
    target = cache.root / "media/toy/installer.iso"
    publish_text(target, "x")
    publish_sidecar(target, {"task": "fetch:toy:x86_64:iso", "sha256": "f" * 64, "size": 1})
    assert "f" * 64 in named_downloads(found_in(cache).values())
    target.unlink()
    sidecar_path(target).unlink()
    assert "f" * 64 not in named_downloads(found_in(cache).values())


@pytest.mark.parametrize(
    "name",
    [
        f"downloads/{'a' * 64}/../x", f"downloads/{'a' * 64}/a/b", f"downloads/{'A' * 64}/x", f"downloads/{'a' * 63}/x",
        f"downloads/{'a' * 64}/", f"downloads/{'a' * 64}", f"downloads/{'a' * 64}/.x", f"downloads/{'a' * 64}/x\n",
        f"downloads/{'a' * 64}/-x", f"/downloads/{'a' * 64}/x", f"downloads//{'a' * 64}/x", "",
    ],
)  # fmt: skip
def test_names_that_are_no_downloads(name: str) -> None:
    assert not is_download(name)


def test_an_empty_cache_has_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "none")
    assert take_inventory(toy_graph(cache), cache) == []
    assert not cache.root.exists()
