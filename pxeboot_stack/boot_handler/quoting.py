"""How values are written into documents: one filter for each language, which quotes a value or refuses it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from contracts.nocloud import dump_yaml

_WORD = re.compile(r"[A-Za-z0-9._:/=-]+\Z")


class Quoted(str):
    """Text that is ready for the language it stands in."""

    __slots__ = ()


def plain_line(value: object) -> str:
    """Return *value* as text.

    :raises ValueError: if it is not one line of printable characters.
    """
    text = str(value)
    if not text.isprintable():  # control characters, line and paragraph separators, halves of characters
        raise ValueError(f"{text!r:.80} is not one plain line")
    return text


def _preseed(value: object) -> Quoted:
    """One value of a line of debconf-set-selections(1): it goes on to the end of the line."""
    text = plain_line(value)
    if text.endswith("\\"):  # continues the line
        raise ValueError(f"{text!r:.80} ends in a backslash")
    return Quoted(text)


def _word(value: object) -> Quoted:
    """Something that needs no quotes in any of the languages."""
    text = str(value)
    if not _WORD.match(text):
        raise ValueError(f"{text!r:.80} is not one plain word")
    return Quoted(text)


FILTERS: Mapping[str, Callable[[Any], Quoted]] = {
    "comment": lambda value: Quoted(plain_line(value)),
    "json": lambda value: Quoted(dump_yaml(value)),  # JSON and YAML at once
    "ks": lambda value: Quoted(shlex.quote(plain_line(value))),  # pykickstart splits its lines with shlex
    "line": lambda value: Quoted(plain_line(value)),
    "preseed": _preseed,
    "sh": lambda value: Quoted(shlex.quote(plain_line(value))),
    "word": _word,
}


def require_quoted(value: object) -> object:
    """Return *value*.

    :raises TypeError: if it has passed no filter.
    """
    if not isinstance(value, Quoted):
        raise TypeError(f"{value!r:.80} stands in the template without a filter")
    return value
