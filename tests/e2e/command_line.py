"""The real command line, called as a person calls it, and what it leaves running."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.run import Completed, run
from pipeline.workspace import REPOSITORY

UP_TIMEOUT = 1800.0  # seconds: cold artifacts over a slow mirror, then two emulated machines
VERB_TIMEOUT = 300.0


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """``./pvmlab`` with a home of its own, as a person calls it. :ivar variables: of the environment, besides."""

    home: Path
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __call__(self, *arguments: str, timeout: float = VERB_TIMEOUT, check: bool = True) -> Completed:
        """Run a verb; its output is shown if the test fails."""
        environment = {"PVMLAB_HOME": str(self.home), "PVMLAB_CACHE": os.environ.get("PVMLAB_CACHE", "")}
        environment |= self.variables
        begun = time.monotonic()
        done = run(
            [REPOSITORY / "pvmlab", *arguments],
            timeout=timeout, env=environment, network=True, cwd=self.home, check=False,
        )  # fmt: skip
        print(f"$ ./pvmlab {' '.join(arguments)}   ({time.monotonic() - begun:.1f} s, exit status {done.returncode})")  # noqa: T201
        print(done.stdout, done.stderr, sep="\n")  # noqa: T201
        if check:
            assert done.returncode == 0
        return done

    def on(self, name: str, *command: str, check: bool = True) -> str:
        """Return what a command prints on a machine."""
        return self("vm.shell", name, "--", *command, check=check).stdout.strip()

    def status_of(self, name: str) -> dict[str, Any]:
        """Return a machine's install status, as the boot handler wrote it."""
        status: dict[str, Any] = json.loads((self.home / "status" / f"{name}.json").read_text())
        return status


def qemu_processes(home: Path) -> dict[int, Sequence[str]]:
    """Return the command lines of the processes that speak of *home*, by pid: machines, switch, whatever is left."""
    found: dict[int, Sequence[str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(str(home) in word for word in words):
                found[int(folder.name)] = words
    return found
