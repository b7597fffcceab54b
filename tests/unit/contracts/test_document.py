"""Documents that do not fit are refused, with every fault and its place."""

import dataclasses
import enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.document import DocumentError, decode, dumps, loads


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Part:
    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size is {self.size}, must not be negative")


@dataclasses.dataclass(frozen=True)
class Thing:
    name: str
    colour: Colour
    parts: tuple[Part, ...]
    weight: float = 1.0
    note: str | None = None


GOOD = Thing("a", Colour.RED, (Part(1), Part(2)), 2.5, "n")


def test_a_document_survives_the_way_there_and_back() -> None:
    assert loads(Thing, dumps(GOOD)) == GOOD


@given(
    st.builds(Thing, st.text(), st.sampled_from(Colour), st.lists(st.builds(Part, st.integers(min_value=0))).map(tuple))
)
def test_any_document_survives(thing: Thing) -> None:
    assert loads(Thing, dumps(thing)) == thing


def test_the_text_is_sorted_and_ends_in_a_newline() -> None:
    assert dumps(Part(1)) == '{\n  "size": 1\n}\n'


def test_defaults_fill_what_is_left_out_and_whole_numbers_pass_as_floats() -> None:
    thing = decode(Thing, {"name": "a", "colour": "blue", "parts": [], "weight": 3})
    assert thing == Thing("a", Colour.BLUE, (), 3.0, None)


def test_all_faults_are_listed_with_their_paths() -> None:
    with pytest.raises(DocumentError) as caught:
        decode(Thing, {"name": 7, "colour": "green", "parts": [{"size": -1}, {"size": True}, {}], "extra": 1})
    assert caught.value.faults == (
        "document: unknown key 'extra'",
        "name: expected str, found int 7",
        "colour: 'green' is none of red, blue",
        "parts[0]: size is -1, must not be negative",
        "parts[1].size: expected int, found bool True",
        "parts[2]: missing key 'size'",
    )


@pytest.mark.parametrize("text", ["", "{", b"\xff", "nul"])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(DocumentError, match="not a valid Thing: not JSON"):
        loads(Thing, text)


@pytest.mark.parametrize("data", [[], "x", None, 1])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(DocumentError, match="expected an object"):
        decode(Thing, data)


def test_a_list_is_asked_for_where_there_is_one() -> None:
    with pytest.raises(DocumentError, match="parts: expected a list, found str"):
        decode(Thing, {"name": "a", "colour": "red", "parts": "ab"})
