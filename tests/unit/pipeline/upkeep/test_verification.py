"""Damage is found by reading, a recipe that gives other bytes by running it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.artifact import Making
from pipeline.errors import ConflictError, PvmlabError
from pipeline.graph import Graph
from pipeline.progress import Progress, ignore_progress
from pipeline.state import State, state_of
from pipeline.upkeep import verification
from pipeline.upkeep.inventory import take_inventory
from pipeline.upkeep.verification import Remade, candidates, choose, remake, require_candidates
from pipeline.workspace import Cache
from tests.fakes.toy_cache import DEB, DEB_NAME, build_all, files_in, toy_graph, with_recipe


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache in which all is built."""
    cache = Cache(tmp_path / "cache")
    build_all(toy_graph(cache))
    return cache


def read_all(cache: Cache) -> dict[str, str]:
    damages = verification.read_all(take_inventory(toy_graph(cache), cache), cache, ignore_progress)
    return {damage.path.relative_to(cache.root).as_posix(): damage.what for damage in damages}


def test_a_whole_cache_is_undamaged_and_read_to_its_end(cache: Cache) -> None:
    told: list[Progress] = []
    assert verification.read_all(take_inventory(toy_graph(cache), cache), cache, told.append) == []
    size = sum(len(data) for name, data in files_in(cache).items())
    assert told[-1].total == size
    sidecars = sum(len(data) for name, data in files_in(cache).items() if name + ".json" in files_in(cache))
    assert told[-1].done >= sidecars


@pytest.mark.parametrize(
    "name", ["images/toy/base", "images/toy/two", "lonely/file.spdx.json", "lonely/file.intoto.json", DEB_NAME]
)
def test_a_flipped_byte_is_found_in_every_kind_of_file(cache: Cache, name: str) -> None:
    path = cache.root / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (what,) = read_all(cache).items()
    assert what[0] == name
    assert "its digest is" in what[1]


def test_a_damaged_sidecar_is_found(cache: Cache) -> None:
    path = cache.root / "lonely/file.json"
    path.write_text(path.read_text().replace("lonely", "lovely"))
    assert read_all(cache) == {"lonely/file": "its sidecar is damaged, or of another version of pvmlab"}


def test_what_is_not_built_is_no_damage(cache: Cache) -> None:
    (cache.root / "lonely/file").unlink()
    (cache.root / "images/toy/base.json").unlink()
    assert read_all(cache) == {}


def test_damage_that_left_no_trace_in_the_files_times_is_built_again(cache: Cache) -> None:
    """A disk that returns other bytes: whoever trusts the file's times does not notice."""
    artifact = toy_graph(cache).artifacts["lonely:toy"]
    path = cache.root / "lonely/file"
    right = state_of(cache).digest_of(path)
    path.write_bytes(path.read_bytes().upper())
    _pretend_unread(cache, path, right)
    assert artifact.reason() is None
    assert set(read_all(cache)) == {"lonely/file"}
    assert artifact.reason() == "lonely/file was changed since it was built"


def _pretend_unread(cache: Cache, path: Path, digest: str) -> None:
    """Have the state believe that the file is what it was."""
    state: State = state_of(cache)
    while True:
        state.learn_digest(path, digest)  # not remembered while the file is too young
        if state.digest_of(path) == digest:
            return


def test_the_same_bytes_come_out(cache: Cache) -> None:
    before = files_in(cache)
    remade = remake(toy_graph(cache).artifacts["pair:toy"], toy_graph, listener=ignore_progress)
    assert [(each.path.name, each.is_equal) for each in remade] == [("one", True), ("two", True)]
    assert files_in(cache) == before
    assert not any(cache.scratch.iterdir())
    assert (cache.logs / "verify/pair.toy.log").read_text() == "pair:toy\n"


def test_inputs_and_the_downloads_they_name_are_lent(cache: Cache) -> None:
    def make(making: Making) -> None:
        download = making.output.parent.parent / DEB_NAME
        making.output.write_bytes(download.read_bytes())

    def graph_of(where: Cache) -> Graph:
        graph = toy_graph(where)
        image = dataclasses.replace(
            graph.artifacts["lonely:toy"], name="image:toy", make=make,
            targets=(where.root / "image/file",), inputs=(where.root / "packages/toy/list",),
        )  # fmt: skip
        return Graph([*graph.artifacts.values(), image])

    image = graph_of(cache).artifacts["image:toy"]
    image.build()
    (remade,) = remake(image, graph_of, listener=ignore_progress)
    assert remade.is_equal
    assert (cache.root / "image/file").read_bytes() == (cache.root / DEB_NAME).read_bytes() == DEB


def restless(cache: Cache) -> Graph:
    """Return a graph one of whose recipes writes where it runs."""
    return with_recipe(toy_graph(cache), "lonely:toy", lambda making: str(making.output))


def test_other_bytes_are_told_and_both_kept(cache: Cache, tmp_path: Path) -> None:
    lonely = restless(cache).artifacts["lonely:toy"]
    lonely.build()
    (remade,) = remake(lonely, restless, listener=ignore_progress)
    assert not remade.is_equal
    assert remade.kept is None
    (kept,) = remake(lonely, restless, keep=tmp_path / "kept", listener=ignore_progress)
    assert kept.kept == tmp_path / "kept/remade/lonely/file"
    assert kept.kept.read_text() != (tmp_path / "kept/recorded/lonely/file").read_text()
    assert (tmp_path / "kept/recorded/lonely/file").read_text() == (cache.root / "lonely/file").read_text()


def test_a_recipe_that_fails_now_leaves_its_log(cache: Cache) -> None:
    def fail(making: Making) -> None:
        making.note("no more")
        raise PvmlabError("it fails")

    def failing(where: Cache) -> Graph:
        return Graph([dataclasses.replace(toy_graph(where).artifacts["lonely:toy"], make=fail)])

    with pytest.raises(PvmlabError, match="it fails"):
        remake(toy_graph(cache).artifacts["lonely:toy"], failing, listener=ignore_progress)
    assert (cache.logs / "verify/lonely.toy.log").read_text() == "no more\n"
    assert not any(cache.scratch.iterdir())


def test_only_what_can_be_made_once_more_is_chosen(cache: Cache) -> None:
    (cache.root / "images/toy/base").write_text("damaged")
    names = {artifact.name for artifact in candidates(toy_graph(cache))}
    assert names == {"pair:toy", "packages:toy", "lonely:toy"}
    assert {artifact.name for artifact in choose(toy_graph(cache), number=99)} == names
    assert len(choose(toy_graph(cache), number=2)) == 2
    assert choose(toy_graph(cache), number=0) == []


def test_a_snapshot_is_not_taken_again_to_compare_it(cache: Cache) -> None:
    graph = toy_graph(cache)
    taken = dataclasses.replace(graph.artifacts["lonely:toy"], name="snapshot:toy")
    taken.build()
    assert taken.reason() is None
    assert candidates(Graph([taken])) == []


def test_what_cannot_be_made_once_more_says_why(cache: Cache) -> None:
    (cache.root / "lonely/file").unlink()
    with pytest.raises(ConflictError, match="lonely:toy cannot be made once more") as caught:
        require_candidates(toy_graph(cache), ["base:toy", "lonely:toy"])
    assert caught.value.details == "lonely/file is not built"
    lacking = toy_graph(cache, tools=("no-such-packer",))
    with pytest.raises(ConflictError):
        require_candidates(lacking, ["base:toy"])


def test_equal_means_equal_digests() -> None:
    assert Remade(task="t", path=Path("p"), recorded="a", remade="a").is_equal
    assert not Remade(task="t", path=Path("p"), recorded="a", remade="b").is_equal
