"""Why an artifact must be made: which output, input, source, option or tool is not what it was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

_PARTS = ("inputs", "sources", "options", "tools")
_LONGEST = 60  # characters of a value that are shown
_DIGEST = 12  # characters of a digest that are shown


@dataclasses.dataclass(frozen=True)
class Reason:
    """One reason; its text is what people read.

    :ivar part: ``output``, ``input``, ``source``, ``option`` or ``tool``.
    :ivar name: which one: a path, an option's name, a program.
    :ivar before: what it was, in words or shortened; None if there was none.
    :ivar after: what it is now; None if there is none any more.
    """

    part: str
    name: str
    before: str | None = None
    after: str | None = None

    @property
    def is_missing_input(self) -> bool:
        """Whether an input is not built."""
        return self.part == "input" and self.after == "not built"

    def __str__(self) -> str:
        if self.part == "output":
            return f"{self.name} is {self.after}" if self.after == "not built" else f"{self.name} was {self.after}"
        if self.is_missing_input:
            return f"input {self.name} is not built"
        if self.part in {"input", "source"}:  # nobody reads digests
            change = "is new" if self.before is None else "is gone" if self.after is None else "changed"
            return f"{self.part} {self.name} {change}"
        if self.before is None:
            return f"{self.part} {self.name} is new: {self.after}"
        if self.after is None:
            return f"{self.part} {self.name} is gone, it was {self.before}"
        return f"{self.part} {self.name} changed: {self.before} -> {self.after}"


def differences(recorded: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[Reason]:
    """Yield what of *recipe* is not as *recorded* in a sidecar, in the order of names within each part.

    A tool that this host lacks (its version is None) is no reason: nothing could be built with it here.
    """
    for part in _PARTS:
        before, now = recorded.get(part, {}), recipe[part]
        for name in sorted(before.keys() | now.keys()):
            absent_tool = part == "tools" and name in before and name in now and now[name] is None
            old, new = before.get(name), now.get(name)
            if old != new and not absent_tool:
                yield Reason(part.removesuffix("s"), name, *_shown_both(part, old, new))


def _shown_both(part: str, old: Any, new: Any) -> tuple[str | None, str | None]:
    if isinstance(old, list) and isinstance(new, list):  # of long lists only what differs
        gone, come = ([item for item in one if item not in other] for one, other in ((old, new), (new, old)))
        if gone or come:
            return _shown(part, gone), _shown(part, come)
    return _shown(part, old), _shown(part, new)


def _shown(part: str, value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if part in {"inputs", "sources"}:
        return text[:_DIGEST]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
