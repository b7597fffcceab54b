"""YAML for files that people write: a small part of it, read strictly, with a place for each fault.

What YAML 1.1 readers silently accept and people do not mean is refused: a key twice, tags, a second document; and
merge keys, anchors and aliases, whose expansion may be a billion values, unless the reader says to how many. Plain
words are those of YAML 1.2's core schema (chapter 10.3): ``yes`` and ``on`` are words, ``22:22`` is no number. Nothing
is converted by guess: a reader asks for a text, and ``2024`` without quotes is none.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from pipeline.errors import PvmlabError

MAX_SIZE = 1 << 20  # bytes; a definition has some two thousand
MAX_DEPTH = 16
MAX_KEY = 1024  # characters; YAML has the same limit for keys without a question mark
_OTHER_SCALARS = (
    ("null", re.compile(r"(null|Null|NULL|~|)\Z")),
    ("true or false", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z")),
    ("a number", re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")),
    (
        "a number",
        re.compile(r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"),
    ),
)


@dataclasses.dataclass(frozen=True, order=True)
class Fault:
    """Something wrong. :ivar line: and ``column``, from 1. :ivar path: of the value, ``sources.x86_64.iso``."""

    line: int
    column: int
    path: str
    what: str


class BrokenFileError(PvmlabError):
    """A file cannot be understood. :ivar faults: all that is wrong in it, in its order."""

    what = "file"
    reference = ""

    def __init__(self, file: Path, faults: Sequence[Fault]) -> None:
        self.file = file
        self.faults = tuple(sorted(faults))
        lines = (
            f"{file.name}:{fault.line}:{fault.column}: {fault.path + ': ' if fault.path else ''}{fault.what}"
            for fault in self.faults
        )
        super().__init__(
            f"the {self.what} {file.name} is broken",
            details="\n".join([*lines, str(file)]),
            resolution=f"{self.reference} says what may be in it",
        )


class DefinitionError(BrokenFileError):
    """A distribution file cannot be understood."""

    what = "distribution file"
    reference = "docs/reference/distribution-files.md"


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A value with its place.

    :ivar place: line and column, from 1. :ivar key_place: of its key, in a mapping.
    :ivar content: a text, the values of a list, or those of a mapping by their keys. :ivar kind: what it is, in words.
    :ivar faults: of the whole file; whoever reads a value adds to it.
    """

    place: tuple[int, int]
    path: str
    content: str | list[Node] | dict[str, Node]
    kind: str
    faults: list[Fault]
    key_place: tuple[int, int] = (1, 1)

    def refuse(self, what: str) -> None:
        """Add a fault."""
        self.faults.append(Fault(*self.place, self.path, what))

    def refuse_key(self, what: str) -> None:
        """Add a fault of its key."""
        self.faults.append(Fault(*self.key_place, self.path, what))

    def text(self) -> str:
        """Return a text; an empty one, after adding a fault, if it is anything else or empty."""
        if isinstance(self.content, str) and self.kind == "a text" and self.content.strip():
            return self.content
        kind = "empty" if self.kind == "a text" else self.kind
        hint = "; quotes make it one" if kind in {"a number", "true or false"} else ""
        self.refuse(f"it must be a text, it is {kind}{hint}")
        return ""

    def number(self) -> int:
        """Return a whole number that is not negative; 0, after adding a fault, if it is anything else."""
        if isinstance(self.content, str) and self.kind == "a number" and re.fullmatch("[0-9]{1,18}", self.content):
            return int(self.content)
        self.refuse(f"it must be a whole number, it is {self.kind}")
        return 0

    def items(self) -> list[Node]:
        """Return the values of a list; none, after adding a fault, if it is anything else."""
        if isinstance(self.content, list):
            return self.content
        self.refuse(f"it must be a list, it is {self.kind}")
        return []

    def mapping(self) -> Mapping[str, Node]:
        """Return the values of a mapping; none, after adding a fault, if it is anything else."""
        if isinstance(self.content, dict):
            return self.content
        self.refuse(f"it must be a mapping (key: value), it is {self.kind}")
        return {}

    def fields(self, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Node]:
        """Return the values of a mapping that has all *required* keys and no others than the *optional*.

        Keys that are not known, and such that are missing, are faults; what is known is returned all the same.
        """
        found = self.mapping()
        for key, value in found.items():
            if key not in (*required, *optional):
                value.refuse_key(f"there is no such key here; there are: {', '.join((*required, *optional))}")
        if isinstance(self.content, dict):
            for key in required:
                if key not in found:
                    self.refuse(f"the key {key!r} is missing")
        return {key: value for key, value in found.items() if key in (*required, *optional)}


def parse(text: str, *, file: Path, error: type[BrokenFileError] = DefinitionError, most_values: int = 0) -> Node:
    """Return the one value of a file, a mapping.

    :param file: for the messages. :param error: what is raised.
    :param most_values: how many values the file may come to, with all that aliases (``*name``) and merge keys (``<<``)
        repeat; 0 if it may have neither. Its texts may then come to :data:`MAX_SIZE` characters.
    :raises BrokenFileError: *error*, if it is not such YAML; values are only checked when they are read, see
        :class:`Node`.
    """
    faults: list[Fault] = []
    if len(text) > MAX_SIZE:
        raise error(file, [Fault(1, 1, "", f"it is larger than {MAX_SIZE} bytes")])
    try:
        events = _checked(yaml.parse(text, Loader=yaml.CSafeLoader), faults, aliases=most_values > 0)
        node = _Builder(events, faults, most_values).build()
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise error(file, [*faults, Fault(line, column, "", str(broken.problem or broken.context))]) from None
    except yaml.YAMLError as broken:  # a character that YAML does not have
        raise error(file, [*faults, Fault(1, 1, "", str(broken).replace("\n", " "))]) from None
    except _TooMuch as stop:
        raise error(file, [*faults, stop.fault]) from None
    if faults:
        raise error(file, faults)
    return node


class _TooMuch(Exception):  # noqa: N818 (a way out of the parser, not an error that anybody meets)
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault


def _checked(events: Iterator[yaml.Event], faults: list[Fault], *, aliases: bool) -> Iterator[yaml.Event]:
    """Yield the events of one document; what is no plain value is a fault, and too deep nesting ends it."""
    depth = documents = 0
    for event in events:
        place = _place(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _TooMuch(Fault(*place, "", "a second document begins; a file holds one"))
        if not aliases and (isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None):
            raise _TooMuch(Fault(*place, "", "anchors (&) and aliases (*) are not used here; write it out"))
        if (tag := getattr(event, "tag", None)) is not None:
            faults.append(Fault(*place, "", f"tags ({tag}) are not used here"))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _TooMuch(Fault(*place, "", f"it is nested more than {MAX_DEPTH} deep"))
        yield event


class _Builder:
    """Makes nodes of events. Recursion is bounded: :func:`_checked` ends what is too deep.

    What an alias repeats is made again for its own place in the file's tree: it is counted, and its depth, too.
    """

    def __init__(self, events: Iterator[yaml.Event], faults: list[Fault], most_values: int) -> None:
        self._events = events
        self._faults = faults
        self._most = most_values
        self._made = self._characters = self._depth = self._repeats = 0
        self._anchored: dict[str, list[yaml.Event]] = {}  # whole values, by the names of their anchors

    def build(self) -> Node:
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, "")
                for _ in self._events:  # to its end: a second document is refused there
                    pass
                return root
        raise _TooMuch(Fault(1, 1, "", "it is empty"))

    def _node(self, event: yaml.Event, path: str) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(event, path)
        if anchor := getattr(event, "anchor", None):
            return self._remembered(event, anchor, path)
        self._count(event, path)
        content: str | list[Node] | dict[str, Node]
        is_deep = not isinstance(event, yaml.ScalarEvent)
        self._depth += is_deep
        if self._depth > MAX_DEPTH:
            raise _TooMuch(Fault(*_place(event), path, f"it is nested more than {MAX_DEPTH} deep"))
        if isinstance(event, yaml.ScalarEvent):
            content, kind = event.value, _kind(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            content, kind = self._list(path), "a list"
        else:
            content, kind = self._mapping(path), "a mapping"
        self._depth -= is_deep
        return Node(_place(event), path, content, kind, self._faults)

    def _count(self, event: yaml.Event, path: str) -> None:
        """Count a value and its characters, where aliases may repeat them."""
        self._made += 1
        self._characters += len(event.value) if isinstance(event, yaml.ScalarEvent) else 0
        for count, most, what in (
            (self._made, self._most, "values"),
            (self._characters, MAX_SIZE, "characters"),
        ):
            if self._most and count > most:
                raise _TooMuch(
                    Fault(*_place(event), path, f"with all that aliases repeat, it is more than {most} {what}")
                )

    def _remembered(self, event: yaml.Event, anchor: str, path: str) -> Node:
        """Return a value with an anchor, having kept its events."""
        whole = [copy.copy(event)]
        whole[0].anchor = None  # type: ignore[attr-defined]
        depth = int(isinstance(event, yaml.CollectionStartEvent))
        while depth:
            whole.append(next(self._events))
            depth += isinstance(whole[-1], yaml.CollectionStartEvent) - isinstance(whole[-1], yaml.CollectionEndEvent)
        node = self._replayed(whole, path)  # before it has a name: it may not be in itself
        if self._anchored.setdefault(anchor, whole) is not whole and not self._repeats:
            raise _TooMuch(Fault(*_place(event), path, f"the anchor &{anchor} is there twice"))
        return node

    def _repeated(self, event: yaml.AliasEvent, path: str) -> Node:
        whole = self._anchored.get(event.anchor or "")
        if whole is None:
            raise _TooMuch(Fault(*_place(event), path, f"no whole value above has the anchor &{event.anchor}"))
        self._repeats += 1
        node = self._replayed(whole, path)
        self._repeats -= 1
        return node

    def _replayed(self, whole: Sequence[yaml.Event], path: str) -> Node:
        before, self._events = self._events, iter(whole)
        try:
            return self._node(next(self._events), path)
        finally:
            self._events = before

    def _list(self, path: str) -> list[Node]:
        found: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._node(event, f"{path}[{len(found)}]"))
        return found

    def _mapping(self, path: str) -> dict[str, Node]:
        found: dict[str, Node] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, path)
            name = key.content if isinstance(key.content, str) else ""
            if len(name) > MAX_KEY:  # it is in the path of each value below it
                raise _TooMuch(Fault(*key.place, path, f"a key is longer than {MAX_KEY} characters"))
            if name == "<<" and self._most:
                merged += self._merged(self._node(next(self._events), path))
                continue
            value = self._node(next(self._events), f"{path}.{name}" if path else name)
            if not isinstance(key.content, str):
                key.refuse(f"a key must be a word, it is {key.kind}")
            elif name == "<<":
                key.refuse("merge keys (<<) are not used here; write it out")
            elif name in found:
                key.refuse(f"the key {name!r} is repeated; it is first in line {found[name].key_place[0]}")
            else:
                found[name] = dataclasses.replace(value, key_place=key.place)
        for mapping in merged:  # what is written here counts before it, and the first of several before the others
            found = {**mapping.mapping(), **found}
        return found

    @staticmethod
    def _merged(value: Node) -> list[Node]:
        """Return the mappings that a merge key names (https://yaml.org/type/merge.html)."""
        mappings = value.content if isinstance(value.content, list) else [value]
        for each in mappings:
            if not isinstance(each.content, dict):
                each.refuse(f"a merge key (<<) takes a mapping, or a list of them; this is {each.kind}")
        return [each for each in mappings if isinstance(each.content, dict)]


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _kind(event: yaml.ScalarEvent) -> str:
    if event.style or not event.implicit[0]:
        return "a text"  # in quotes, or a block
    return next((kind for kind, pattern in _OTHER_SCALARS if pattern.match(event.value)), "a text")
