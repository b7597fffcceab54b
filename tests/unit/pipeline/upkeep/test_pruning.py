"""What of a cache can go, and that nothing else does."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from pipeline.upkeep.inventory import take_inventory
from pipeline.upkeep.pruning import PrunePlan, plan_prune, prune
from pipeline.workspace import Cache
from tests.fakes.toy_cache import DEB_NAME, build_all, files_in, toy_graph


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache in which all is built."""
    cache = Cache(tmp_path / "cache")
    build_all(toy_graph(cache))
    return cache


def plan(
    cache: Cache, *, needed: Collection[str] = (), only_needed: bool = False, base_images: Collection[Path] = ()
) -> PrunePlan:
    graph = toy_graph(cache)
    return plan_prune(
        take_inventory(graph, cache), graph, needed=needed, only_needed=only_needed, base_images=base_images
    )


def removed(plan: PrunePlan, cache: Cache) -> dict[str, str]:
    return {removal.found.path.relative_to(cache.root).as_posix(): removal.why for removal in plan.removals}


def test_a_tidy_cache_keeps_everything(cache: Cache) -> None:
    assert plan(cache).removals == ()


def test_leftovers_and_what_nobody_makes_or_names_go(cache: Cache) -> None:
    (cache.root / "lonely").rename(cache.root / "former")
    half = cache.root / ".base.123.abc.partial"
    half.write_text("half")
    (cache.root / "logs/gone.log").touch()
    stray = cache.root / f"downloads/{'a' * 64}/old.deb"
    stray.parent.mkdir()
    stray.touch()
    made = plan(cache)
    assert removed(made, cache) == {
        ".base.123.abc.partial": "half-written file of a build that ended",
        "former/file": "no task makes it any more",
        "logs/gone.log": "no task makes it any more",
        f"downloads/{'a' * 64}/old.deb": "no manifest names it",
    }
    before = files_in(cache)
    prune(made, cache)
    assert set(before) - set(files_in(cache)) >= {"former/file", "former/file.json", "former/file.spdx.json"}
    assert not half.exists()
    assert not stray.parent.exists(), "a folder that is empty goes with the file"
    assert (cache.root / "former").exists(), "a folder right in the cache may be shared with a machine"
    assert DEB_NAME in files_in(cache)
    assert plan(cache).removals == ()


def test_only_what_is_needed_stays(cache: Cache) -> None:
    made = plan(cache, needed={"base:toy", "pair:toy"}, only_needed=True)
    assert set(removed(made, cache)) == {"lonely/file", "packages/toy/list", DEB_NAME}
    assert made.size == sum(removal.found.size for removal in made.removals) > 0
    prune(made, cache)
    names = [f"images/toy/{name}{end}" for name in ("base", "one", "two") for end in ("", ".json")]
    assert set(names) <= set(files_in(cache))
    assert not any(name.startswith(("lonely", "packages", "downloads")) for name in files_in(cache))


def test_downloads_of_a_manifest_that_stays_stay(cache: Cache) -> None:
    assert DEB_NAME not in removed(plan(cache, needed={"packages:toy"}, only_needed=True), cache)


def test_a_download_in_the_lock_stays_though_nothing_is_made_of_it_yet(cache: Cache) -> None:
    stray = cache.root / f"downloads/{'a' * 64}/mine.iso"
    stray.parent.mkdir()
    stray.touch()
    graph = toy_graph(cache)
    made = plan_prune(
        take_inventory(graph, cache), graph, needed=(), only_needed=False, locked={"a" * 64}, base_images=()
    )
    assert made.removals == ()


@pytest.mark.parametrize("only_needed", [True, False])
def test_what_a_machine_needs_stays_even_if_no_task_makes_it_any_more(cache: Cache, only_needed: bool) -> None:
    target = cache.root / "lonely/file"
    target.parent.rename(cache.root / "former")
    graph = toy_graph(cache)
    without = type(graph)(artifact for artifact in graph.artifacts.values() if artifact.name != "lonely:toy")
    made = plan_prune(
        take_inventory(without, cache), without, needed={"lonely:toy"}, only_needed=only_needed, base_images=()
    )
    assert "former/file" not in removed(made, cache)


def test_a_file_that_its_task_makes_elsewhere_now_goes_though_the_task_is_needed(cache: Cache) -> None:
    (cache.root / "lonely").rename(cache.root / "former")
    assert "former/file" in removed(plan(cache, needed={"lonely:toy"}), cache)


@pytest.mark.parametrize("is_former", [True, False])
def test_a_base_image_stays_whatever_else_holds(cache: Cache, tmp_path: Path, is_former: bool) -> None:
    (tmp_path / "link").symlink_to(cache.root)
    folder = "lonely"
    if is_former:
        folder = "former"
        (cache.root / "lonely").rename(cache.root / folder)
    made = plan(cache, only_needed=True, base_images={tmp_path / "link" / folder / "file"})
    assert made.spared == (cache.root / folder / "file",)
    assert f"{folder}/file" not in removed(made, cache)
    prune(made, cache)
    assert set(files_in(cache)) == {f"{folder}/file{end}" for end in ("", ".json", ".spdx.json", ".intoto.json")}


def test_a_download_that_is_a_base_image_stays_too(cache: Cache) -> None:
    made = plan(cache, only_needed=True, base_images={cache.root / DEB_NAME})
    assert made.spared == (cache.root / DEB_NAME,)


def test_unknown_files_and_links_are_told_and_stay(cache: Cache, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (cache.root / "images").rename(outside)
    (cache.root / "images").symlink_to(outside)
    (cache.root / "packages").rename(tmp_path / "manifests")
    (cache.root / "packages").symlink_to(tmp_path / "manifests")
    mine = cache.root / "lonely/mine.qcow2"
    mine.write_text("my disk")
    made = plan(cache, only_needed=True)
    assert made.unknown == (cache.root / "images", mine, cache.root / "packages")
    assert set(removed(made, cache)) == {"lonely/file"}, "the download is named by a manifest behind a link"
    prune(made, cache)
    assert mine.read_text() == "my disk"
    assert (outside / "toy/base").exists()
