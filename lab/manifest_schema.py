"""Checks a lab.yaml against its JSON Schema, and says every fault in words, with its place."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from distros.strict_yaml import Fault, Node

SCHEMA_FILE = Path(__file__).with_name("lab.schema.json")
_EXTENSION = "x-"
_OCTAL_ONCE = re.compile(r"[-+]?0[0-9]+\Z")


@functools.cache
def schema() -> Mapping[str, Any]:
    """Return the published schema."""
    found: Mapping[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return found


def plain(node: Node) -> Any:
    """Return the plain data of *node*: text, number, truth, nothing, list, mapping."""
    if isinstance(node.content, dict):
        return {key: plain(value) for key, value in node.content.items()}
    if isinstance(node.content, list):
        return [plain(value) for value in node.content]
    match node.kind:
        case "null":
            return None
        case "true or false":
            return node.content.lower() == "true"
        case "a number":
            return _number(node.content)
        case _:
            return node.content


def find_faults(node: Node) -> list[Fault]:
    """Return all that the schema refuses in the whole file."""
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415 (0.1 s that only these verbs pay)

    # JSON Schema takes 2.0 for an integer; no reader of ours does
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    strict = validators.extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    validator = strict(schema())
    faults: list[Fault] = []
    for error in validator.iter_errors(plain(node)):
        faults += _faults(error, _find(node, error.absolute_path))
    return faults


def find_octals(node: Node) -> list[Fault]:
    """Return the numbers in *node* that mean something else to cloud-init, a reader of YAML 1.1, than they do here."""
    if isinstance(node.content, (dict, list)):
        values = node.content.values() if isinstance(node.content, dict) else node.content
        return [fault for value in values for fault in find_octals(value)]
    if node.kind != "a number" or not _OCTAL_ONCE.match(node.content):
        return []
    return [Fault(*node.place, node.path, f"{node.content} may be read as octal or decimal; put it in quotes")]


def _faults(error: Any, node: Node) -> Iterable[Fault]:
    match error.validator:
        case "additionalProperties":
            known = [*error.schema["properties"]]
            content = node.content if isinstance(node.content, dict) else {}
            for key, value in content.items():
                if key not in known and not (key.startswith(_EXTENSION) and "patternProperties" in error.schema):
                    yield Fault(
                        *value.key_place, value.path, f"there is no such key here; there are: {', '.join(known)}"
                    )
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            yield from (Fault(*node.place, node.path, f"the key {key!r} is missing") for key in missing)
        case _:
            meant = error.schema.get("description", "something else")
            what = node.kind if isinstance(node.content, (list, dict)) or node.kind == "null" else repr(node.content)
            yield Fault(*node.place, node.path, f"it must be {meant}; it is {what:.80}")


def _find(node: Node, path: Iterable[str | int]) -> Node:
    """Return the value at *path*; the last one on the way that there is."""
    for step in path:
        content = node.content
        if isinstance(content, dict) and isinstance(step, str):
            node = content.get(step, node)
        elif isinstance(content, list) and isinstance(step, int):
            node = content[step]
    return node


def _number(text: str) -> int | float | str:
    readers: tuple[Callable[[str], int | float], ...] = (int, float, lambda text: int(text, base=0))  # last: 0x1f, 0o17
    for read in readers:
        with contextlib.suppress(ValueError):
            return read(text)
    return text  # .inf: no number that is asked for anywhere
