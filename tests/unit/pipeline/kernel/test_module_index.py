"""The binary index, read back as modprobe reads it. tests/integration compares it with depmod's, byte for byte."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernel.module_index import index_key, write_index


def read_index(data: bytes) -> dict[str, list[tuple[int, str]]]:
    """Return all keys of an index with their values."""
    found: dict[str, list[tuple[int, str]]] = {}

    def text(place: int) -> tuple[str, int]:
        end = data.index(b"\0", place)
        return data[place:end].decode(), end + 1

    def visit(word: int, key: str) -> None:
        place, children = word & 0x0FFF_FFFF, []
        if word & 0x8000_0000:
            more, place = text(place)
            key += more
        if word & 0x2000_0000:
            first, last = data[place : place + 2]
            words = struct.unpack_from(f">{last - first + 1}I", data, place + 2)
            children = [(chr(first + number), child) for number, child in enumerate(words) if child]
            place += 2 + 4 * len(words)
        if word & 0x4000_0000:
            (count,) = struct.unpack_from(">I", data, place)
            place += 4
            values = []
            for _ in range(count):
                (priority,) = struct.unpack_from(">I", data, place)
                value, place = text(place + 4)
                values.append((priority, value))
            found[key] = values
        for character, child in children:
            visit(child, key + character)

    magic, version, root = struct.unpack_from(">III", data)
    assert (magic, version) == (0xB007F457, 0x00020001)
    visit(root, "")
    return found


KEYS = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=12)


@given(st.lists(st.tuples(KEYS, st.text(st.sampled_from("abc_"), max_size=3), st.integers(0, 9))))
def test_every_key_is_found_with_its_values_in_order(lines: list[tuple[str, str, int]]) -> None:
    expected: dict[str, list[tuple[int, str]]] = {}
    for key, value, priority in lines:
        expected.setdefault(key, []).append((priority, value))
    assert read_index(write_index(lines)) == {key: sorted(values) for key, values in expected.items()}


def test_the_order_of_lines_does_not_matter() -> None:
    lines = [("ab", "x", 1), ("abc", "y", 0), ("b", "z", 2), ("ab", "w", 0)]
    assert write_index(lines) == write_index(lines[::-1])


def test_keys_that_the_format_cannot_hold_are_left_out() -> None:
    assert read_index(write_index([("é", "x", 0), ("a\0b", "x", 0), ("a" * 5000, "x", 0), ("ok", "x", 0)])) == {
        "ok": [(0, "x")]
    }


def test_hyphens_are_underscores_but_in_ranges() -> None:
    assert index_key("pci:v-d[0-9a-f]x-[A-Z]-") == "pci:v_d[0-9a-f]x_[A-Z]_"
    assert index_key("fs_ext4") == "fs_ext4"
