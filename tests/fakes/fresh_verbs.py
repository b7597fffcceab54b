"""The verbs of ./pvmlab, made anew: invoke takes the help texts out of a task when it makes a parser of it."""

from __future__ import annotations

import importlib
import pkgutil

from invoke import Collection

import tasks
from cli import verbs


def fresh_verbs() -> Collection:
    """Return the verbs as a new process has them."""
    for module in pkgutil.iter_modules(verbs.__path__, "cli.verbs."):
        importlib.reload(importlib.import_module(module.name))
    namespace: Collection = importlib.reload(tasks).namespace
    return namespace
