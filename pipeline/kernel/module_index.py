"""The binary index files of kmod's modprobe: ``modules.dep.bin`` and its like.

The format is depmod's, version 2.1: two big-endian words, magic and version, then the place of the root of a trie. A
node is written behind its children: the text it adds to the key (up to a zero byte); the first and the last character
that goes on from here, and for each of that range the place of the node or zero; how many values end here, each a
priority and a text. The highest bits of a place say which of the three parts the node there has. Keys are ASCII.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence

_MAGIC, _VERSION = 0xB007F457, 0x00020001
_HAS_PREFIX, _HAS_VALUES, _HAS_CHILDREN = 0x80000000, 0x40000000, 0x20000000
_LONGEST_KEY = 512  # each character may be a node, and the writer goes down one level for each
_WORD = struct.Struct(">I")

Line = tuple[str, str, int]
"""A key, a value, and the value's priority: of several the lowest comes first."""


def write_index(lines: Iterable[Line]) -> bytes:
    """Return the index of *lines*; a key may come with several values. The order of lines does not matter."""
    values: dict[str, list[tuple[int, str]]] = {}
    for key, value, priority in lines:
        values.setdefault(key, []).append((priority, value))
    output = bytearray(_WORD.pack(_MAGIC) + _WORD.pack(_VERSION) + bytes(_WORD.size))
    keys = sorted(key for key in values if key.isascii() and "\0" not in key and len(key) < _LONGEST_KEY)
    output[8:12] = _WORD.pack(_write_node(keys, 0, values, output, is_root=True))
    return bytes(output)


def index_key(alias: str) -> str:
    """Return the key of an alias: hyphens are underscores, but not between brackets, where they are ranges."""
    if "-" not in alias:
        return alias
    parts = re.split(r"(\[[^\]]*\])", alias)
    return "".join(part if number % 2 else part.replace("-", "_") for number, part in enumerate(parts))


def _write_node(
    keys: Sequence[str],
    depth: int,
    values: dict[str, list[tuple[int, str]]],
    output: bytearray,
    *,
    is_root: bool = False,
) -> int:
    """Write the node of *keys*, which are sorted and equal up to *depth*; return its place."""
    end = depth if is_root or not keys else _common(keys[0], keys[-1], depth)
    children: dict[int, int] = {}
    start = 1 if keys and len(keys[0]) == end else 0
    for group in _groups(keys[start:], end):
        children[ord(group[0][end])] = _write_node(group, end + 1, values, output)
    place = len(output)
    if keys and end > depth:
        output += keys[0][depth:end].encode() + b"\0"
        place |= _HAS_PREFIX
    if children:
        first, last = min(children), max(children)
        output += bytes((first, last))
        output += b"".join(_WORD.pack(children.get(character, 0)) for character in range(first, last + 1))
        place |= _HAS_CHILDREN
    if start:
        ending = sorted(values[keys[0]])
        output += _WORD.pack(len(ending))
        for priority, value in ending:
            output += _WORD.pack(priority) + value.encode() + b"\0"
        place |= _HAS_VALUES
    return place


def _common(one: str, other: str, place: int) -> int:
    """Return where two texts that are equal up to *place* begin to differ, or one ends."""
    while place < len(one) and place < len(other) and one[place] == other[place]:
        place += 1
    return place


def _groups(keys: Sequence[str], place: int) -> Iterable[Sequence[str]]:
    """Yield runs of *keys* that are equal at *place*."""
    start = 0
    for number in range(1, len(keys) + 1):
        if number == len(keys) or keys[number][place] != keys[start][place]:
            yield keys[start:number]
            start = number
