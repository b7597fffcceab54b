"""invoke, imported without what only its own users need: that is a third of the time that every start takes.

It imports ``unittest.mock`` (and with that asyncio) for a class for tests, ``importlib.metadata`` (and with that email)
for its version, and YAML for configuration files that this command line does not read. While it is imported, empty
modules stand in for them; afterwards they are gone again, so whoever imports those modules gets the real ones.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

# What invoke takes out of each while it is imported.
_STAND_INS: Mapping[str, Mapping[str, Any]] = {
    "unittest": {},
    "unittest.mock": {"Mock": object},
    "importlib.metadata": {"version": lambda _package: ""},
    "invoke.vendor.yaml": {},
}


@contextlib.contextmanager
def _without_what_is_not_used() -> Iterator[None]:
    standing_in = []
    if "invoke" not in sys.modules:
        for name in _STAND_INS.keys() - sys.modules.keys():
            sys.modules[name] = module = ModuleType(name)
            vars(module).update(_STAND_INS[name])
            standing_in.append(name)
    try:
        yield
    finally:
        for name in standing_in:
            del sys.modules[name]


with _without_what_is_not_used():
    from invoke import Argument, Collection, Config, Exit, ParseError, Program
    from invoke.parser.context import ParserContext
    from invoke.parser.parser import Parser

__all__ = ["Argument", "Collection", "Config", "Exit", "ParseError", "Parser", "ParserContext", "Program"]
