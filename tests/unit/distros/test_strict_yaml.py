"""What of YAML is read, and what is refused with its place."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distros.strict_yaml import MAX_SIZE, DefinitionError, parse

FILE = Path("x.yaml")


def faults(text: str) -> list[str]:
    with pytest.raises(DefinitionError, match=r"the distribution file x\.yaml is broken") as caught:
        parse(text, file=FILE)
    return caught.value.details.splitlines()[:-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3:1: the key 'a' is repeated; it is first in line 1"),
        ("a:\n  - {c: 1, c: 2}\n", "x.yaml:2:12: a[0]: the key 'c' is repeated; it is first in line 2"),
        ("a: &x 1\nb: *x\n", "x.yaml:1:4: anchors (&) and aliases (*) are not used here; write it out"),
        ("b: *x\n", "x.yaml:1:4: anchors (&) and aliases (*) are not used here; write it out"),
        ("a: !!str 1\n", "x.yaml:1:4: tags (tag:yaml.org,2002:str) are not used here"),
        ("a: !!python/object/apply:os.system [x]\n", "x.yaml:1:4: tags (tag:yaml.org,2002:python/object/apply:os"),
        ("<<: {a: 1}\n", "x.yaml:1:1: merge keys (<<) are not used here; write it out"),
        ("? [1]\n: 2\n", "x.yaml:1:3: a key must be a word, it is a list"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: a second document begins; a file holds one"),
        ("", "x.yaml:1:1: it is empty"),
        ("# nothing\n", "x.yaml:1:1: it is empty"),
        ("a: [\n", "x.yaml:2:1: did not find expected node content"),
        ("a: 1\n\tb: 2\n", "x.yaml:2:1: found a tab character that violates indentation"),
        ("a: \x01\n", "x.yaml:1:1: unacceptable character #x0001"),
        ("[" * 20 + "]" * 20, "x.yaml:1:17: it is nested more than 16 deep"),
        ("a: " + "{a: " * 100_000, "x.yaml:1:64: it is nested more than 16 deep"),
        ("#" * (MAX_SIZE + 1), f"x.yaml:1:1: it is larger than {MAX_SIZE} bytes"),
    ],
)
def test_what_people_do_not_mean_is_refused(text: str, expected: str) -> None:
    assert faults(text)[0].startswith(expected)


def test_an_alias_bomb_ends_at_its_first_anchor() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))  # noqa: B905
    assert len(faults(bomb)) == 1


def test_all_repeated_keys_are_reported() -> None:
    assert len(faults("a: 1\na: 2\nb: 1\nb: 2\n")) == 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("yes", "a text"), ("on", "a text"), ("No", "a text"), ("22:22", "a text"), ("1.2.3", "a text"),
        ("'1'", "a text"), ('""', "a text"), ("1_000", "a text"), ("0b1", "a text"), ("2024-01-01", "a text"),
        ("true", "true or false"), ("False", "true or false"), ("1", "a number"), ("-1", "a number"),
        ("0x1f", "a number"), ("1.5", "a number"), ("1e3", "a number"), (".inf", "a number"), ("~", "null"),
        ("null", "null"), ("", "null"),
        ("[a]", "a list"), ("{a: b}", "a mapping"),
    ],
)  # fmt: skip
def test_words_are_those_of_the_core_schema(text: str, kind: str) -> None:
    assert parse(f"a: {text}\n", file=FILE).mapping()["a"].kind == kind


def test_values_have_their_place_and_path() -> None:
    root = parse("a:\n  b:\n    - x\n    - y: z\n", file=FILE)
    value = root.mapping()["a"].mapping()["b"].items()[1].mapping()["y"]
    assert (value.text(), value.path, value.place, value.key_place) == ("z", "a.b[1].y", (4, 10), (4, 7))
    assert not root.faults


@pytest.mark.parametrize(
    ("text", "reader", "expected"),
    [
        ("1", "text", "it must be a text, it is a number; quotes make it one"),
        ("true", "text", "it must be a text, it is true or false; quotes make it one"),
        ("", "text", "it must be a text, it is null"),
        ("' '", "text", "it must be a text, it is empty"),
        ("[a]", "text", "it must be a text, it is a list"),
        ("x", "number", "it must be a whole number, it is a text"),
        ("-1", "number", "it must be a whole number, it is a number"),
        ("1.5", "number", "it must be a whole number, it is a number"),
        ("9999999999999999999", "number", "it must be a whole number, it is a number"),
        ("x", "items", "it must be a list, it is a text"),
        ("[x]", "mapping", "it must be a mapping (key: value), it is a list"),
    ],
)
def test_a_value_of_another_kind_is_a_fault(text: str, reader: str, expected: str) -> None:
    root = parse(f"a: {text}\n", file=FILE)
    assert not getattr(root.mapping()["a"], reader)()
    assert [fault.what for fault in root.faults] == [expected]


def test_keys_that_are_not_known_and_such_that_are_missing_are_faults() -> None:
    root = parse("a: 1\nx: 2\n", file=FILE)
    assert list(root.fields(("a", "b"), ("c",))) == ["a"]
    assert [(fault.line, fault.column, fault.path, fault.what) for fault in sorted(root.faults)] == [
        (1, 1, "", "the key 'b' is missing"),
        (2, 1, "x", "there is no such key here; there are: a, b, c"),
    ]


@given(st.text(alphabet="ab:-[]{}&*!<'\"#|>?%@, \n\t0.~", max_size=60))
def test_whatever_the_text_only_one_kind_of_error_comes(text: str) -> None:
    with contextlib.suppress(DefinitionError):
        parse(text, file=FILE)
