"""A process that works on machines, and is killed at it: ``python -m tests.fakes.deadly_work WHAT HOME``.

It forks a child for a line such as ``clone web2`` and says the child's number; after one more line it waits for the
child's end and says how that was. A hundred interpreters would take minutes to start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from contracts import nocloud
from contracts.arch import Arch
from lab import changes, clones, snapshots, target
from lab.changes import Change
from lab.clones import CloneRequest
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.workspace import Cache, Home, Workspace


def work(lab: Lab, what: str, name: str) -> None:
    """Do *what* with web1 and *name*: a snapshot, a clone, ..."""
    definition = DefinitionStore(lab).load("web1")
    match what:
        case "snapshot":
            snapshots.take(lab, definition, name)
        case "restore":
            snapshots.restore(lab, definition, "start", lab.accelerator(Arch.X86_64))
        case "set":
            changes.apply(lab, "web1", Change(labels={"round": name}))
        case "clean":
            target.clean(lab, name)
        case "clone":
            clones.clone(
                lab,
                CloneRequest(source="web1", name=name, snapshot="start"),
                documents=lambda machine: {kind: make(machine, lab.lan) for kind, make in nocloud.DOCUMENTS.items()},
            )


def main(arguments: list[str]) -> None:
    """Fork and report until standard input ends."""
    home = Path(arguments[0])
    lab = Lab(Workspace(Cache(home.parent / "cache"), Home(home)))
    for line in sys.stdin:
        what, name = line.split()
        child = os.fork()
        if not child:
            os.setsid()
            work(lab, what, name)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
