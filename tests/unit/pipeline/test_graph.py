"""The graph refuses nonsense and orders what is needed first."""

from pathlib import Path

import pytest

from pipeline.artifact import Artifact
from pipeline.graph import Graph
from pipeline.recipes import graph as recipes
from pipeline.workspace import Cache


def node(name: str, *needs: str) -> Artifact:
    cache = Cache(Path("/cache"))
    return Artifact(
        name=f"kind:{name}", doc=name, cache=cache, make=lambda making: None,
        targets=(cache.root / name,), inputs=tuple(cache.root / need for need in needs),
    )  # fmt: skip


def test_closure_is_ordered_and_free_of_repetition() -> None:
    graph = Graph([node("disk", "base", "container"), node("container", "base"), node("base"), node("other")])
    assert [artifact.doc for artifact in graph.closure(["kind:disk", "kind:container"])] == [
        "base",
        "container",
        "disk",
    ]


def test_tasks_carry_their_dependencies() -> None:
    graph = Graph([node("disk", "base"), node("base")])
    tasks = {task["name"]: task for task in graph.tasks("kind")}
    assert tasks["disk"]["task_dep"] == ["kind:base"]
    assert tasks["base"]["targets"] == ["/cache/base"]
    assert list(graph.tasks("another")) == []


def test_an_input_that_nothing_makes_is_refused() -> None:
    with pytest.raises(ValueError, match="kind:disk needs /cache/base, which nothing makes"):
        Graph([node("disk", "base")])


def test_two_makers_of_one_file_are_refused() -> None:
    twin = Artifact(
        name="other:base", doc="", cache=node("base").cache, targets=node("base").targets, make=lambda making: None
    )
    with pytest.raises(ValueError, match=r"other:base and kind:base both make /cache/base"):
        Graph([node("base"), twin])


def test_two_artifacts_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two artifacts are called kind:base"):
        Graph([node("base"), node("base")])


def test_the_graph_is_that_of_the_cache_that_the_environment_names_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "one"):
        monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / name))
        targets = [target for artifact in recipes.graph().artifacts.values() for target in artifact.targets]
        assert targets
        assert all(target.is_relative_to(tmp_path / name) for target in targets)
    assert recipes.graph() is recipes.graph()
