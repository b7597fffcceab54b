from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.manifest_order import find_cycle, levels


@pytest.mark.parametrize(
    ("graph", "cycle"),
    [
        ({}, []),
        ({"a": ["b"], "b": []}, []),
        ({"a": ["b", "c"], "b": ["c"], "c": []}, []),
        ({"a": ["a"]}, ["a", "a"]),
        ({"x": ["a"], "a": ["b"], "b": ["a"]}, ["a", "b", "a"]),
        ({"a": ["elsewhere"]}, []),
    ],
)
def test_the_first_way_back_is_found(graph: dict[str, list[str]], cycle: list[str]) -> None:
    assert find_cycle(graph) == cycle


def test_a_long_chain_is_no_problem() -> None:
    graph = {str(n): [str(n + 1)] for n in range(20_000)}
    assert find_cycle(graph) == []


def test_each_group_waits_only_for_those_before() -> None:
    graph = {"web": ["db", "cache"], "db": [], "cache": ["db"], "edge": ["web"], "alone": ["elsewhere"]}
    assert levels(graph) == [["db", "alone"], ["cache"], ["web"], ["edge"]]


def test_a_cycle_has_no_order() -> None:
    with pytest.raises(ValueError, match="a cycle among a, b"):
        levels({"a": ["b"], "b": ["a"]})


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), max_size=4)))
def test_either_there_is_an_order_or_a_cycle(graph: dict[str, list[str]]) -> None:
    cycle = find_cycle(graph)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(following in graph[name] for name, following in pairwise(cycle))
        return
    place = {name: number for number, group in enumerate(levels(graph)) for name in group}
    assert set(place) == set(graph)
    assert all(place[other] < place[name] for name in graph for other in graph[name] if other in graph)
