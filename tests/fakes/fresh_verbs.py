"""The verbs of ./pvmlab, made anew: invoke takes the help texts out of a task when it makes a parser of it."""

from __future__ import annotations

import importlib

from invoke import Collection

import tasks
from cli.verbs import cache, distros, machines, provisioner


def fresh_verbs() -> Collection:
    """Return the verbs as a new process has them."""
    for module in (cache, distros, machines, provisioner):
        importlib.reload(module)
    namespace: Collection = importlib.reload(tasks).namespace
    return namespace
