"""Anchors, aliases and merge keys, for readers that allow them: bounded (threat M18, the alias bomb)."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from distros.strict_yaml import MAX_SIZE, DefinitionError, Node, parse


def read(text: str, most: int = 1000) -> Any:
    return plain(parse(text, file=Path("x.yaml"), most_values=most))


def plain(node: Node) -> Any:
    if isinstance(node.content, dict):
        return {key: plain(value) for key, value in node.content.items()}
    return list(map(plain, node.content)) if isinstance(node.content, list) else node.content


def faults(text: str, most: int = 1000) -> str:
    with pytest.raises(DefinitionError) as caught:
        read(text, most)
    return caught.value.details


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x 1\nb: *x\n", {"a": "1", "b": "1"}),
        ("a: &x [p, {q: r}]\nb: *x\n", {"a": ["p", {"q": "r"}], "b": ["p", {"q": "r"}]}),
        ("a: &x {p: 1}\nb: {<<: *x, q: 2}\n", {"a": {"p": "1"}, "b": {"q": "2", "p": "1"}}),
        ("a: &x {p: 1}\nb: {p: 2, <<: *x}\n", {"a": {"p": "1"}, "b": {"p": "2"}}),  # what is written there counts
        ("a: &x {p: 1}\nb: &y {p: 2, q: 3}\nc: {<<: [*x, *y]}\n",
         {"a": {"p": "1"}, "b": {"p": "2", "q": "3"}, "c": {"p": "1", "q": "3"}}),
        ("a: &x {n: &y [1]}\nb: *x\nc: *y\n", {"a": {"n": ["1"]}, "b": {"n": ["1"]}, "c": ["1"]}),
        ("a: &x {p: 1}\nb: &y {<<: *x, q: 2}\nc: {<<: *y}\n",
         {"a": {"p": "1"}, "b": {"q": "2", "p": "1"}, "c": {"q": "2", "p": "1"}}),
    ],
)  # fmt: skip
def test_a_repeated_value_is_as_if_it_were_written_out(text: str, value: object) -> None:
    assert read(text) == value


def test_faults_have_the_path_of_the_use_and_the_place_of_the_value() -> None:
    node = parse("a: &x [p]\nb: *x\n", file=Path("x.yaml"), most_values=10)
    use = node.mapping()["b"]
    assert (use.path, use.place, use.key_place) == ("b", (1, 4), (2, 1))
    assert use.items()[0].path == "b[0]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: *x\n", "x.yaml:1:4: a: no whole value above has the anchor &x"),
        ("a: &x [*x]\n", "no whole value above has the anchor &x"),
        ("a: &x [&x 1]\nb: *x\n", "x.yaml:1:4: a: the anchor &x is there twice"),
        ("a: &x {b: {<<: *x}}\n", "no whole value above has the anchor &x"),
        ("a: &x 1\nb: &x 2\n", "x.yaml:2:4: b: the anchor &x is there twice"),
        ("a: {<<: 1}\n", "a merge key (<<) takes a mapping"),
        ("a: &x 1\nb: {<<: [{p: 1}, *x]}\n", "a merge key (<<) takes a mapping"),
        ("a: " + "[" * 20 + "]" * 20, "nested more than 16 deep"),
        ("a: &x [[[[[[[[[1]]]]]]]]]\nb: [[[[[[[[*x]]]]]]]]\n", "nested more than 16 deep"),
    ],
)
def test_what_cannot_be_repeated_is_refused(text: str, said: str) -> None:
    assert said in faults(text)


@pytest.mark.parametrize("width", [2, 9, 50])
def test_a_bomb_of_aliases_is_refused_before_it_takes_memory(width: int) -> None:
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, 15)]
    tracemalloc.start()
    assert "more than 20000 values" in faults("\n".join(lines), 20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


def test_without_leave_they_are_refused() -> None:
    assert "anchors (&) and aliases (*) are not used here" in faults("a: &x 1\n", 0)


def test_what_aliases_repeat_is_bounded_in_characters_too() -> None:
    text = f"a: &x {'z' * (MAX_SIZE // 3)}\n"
    assert len(read(f"{text}b: *x\n")["b"]) == MAX_SIZE // 3
    assert f"x.yaml:1:4: c[0]: with all that aliases repeat, it is more than {MAX_SIZE} characters" in faults(
        f"{text}b: *x\nc: [*x, *x]\n"
    )


def test_a_long_key_is_refused_before_it_is_in_the_path_of_each_value_below_it() -> None:
    values = ",".join("1" * 900)
    tracemalloc.start()
    try:
        assert "a key is longer than 1024 characters" in faults(f"? {'k' * 500_000}\n: [{values}]\n")
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
