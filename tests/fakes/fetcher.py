"""Downloads in processes of their own, to be killed, and to want the same at the same time.

``python -m tests.fakes.fetcher``: for each line on standard input, a JSON object (``cache``, ``urls``, ``sha256``,
``size``, ``processes``), so many processes are forked that fetch it; their ids are told on one line, and when all have
ended on another one how: exit statuses, or minus the signal. With ``--here`` one line is fetched in this process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.errors import PvmlabError
from pipeline.fetch.asset import Algorithm, Asset, Digest
from pipeline.fetch.patience import Patience
from pipeline.fetch.store import Store, obtain
from pipeline.workspace import Cache

NAME = "x.iso"
_PATIENCE = Patience(connect=5.0, read=5.0, tries=3, pause=0.001, longest=0.01)


def fetch(order: dict[str, Any]) -> int:
    """Fetch, and return the exit status: 0, or that of the error, which is told on standard error."""
    asset = Asset(
        name=NAME,
        urls=tuple(order["urls"]),
        digests=(Digest(Algorithm.SHA256, order["sha256"]),),
        size=order.get("size"),
    )
    try:
        obtain(asset, store=Store(Cache(Path(order["cache"]))), patience=_PATIENCE)
    except PvmlabError as error:
        sys.stderr.write(f"{error.brief}\n{error.details}\n{error.resolution}\n")
        return int(error.exit_code)
    return 0


def start(order: dict[str, Any]) -> int:
    """Fork a process that fetches; return its id."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = fetch(order)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def main() -> None:
    """Serve standard input."""
    if sys.argv[1:] == ["--here"]:
        sys.exit(fetch(json.loads(sys.stdin.readline())))
    for line in sys.stdin:
        order = json.loads(line)
        pids = [start(order) for _ in range(order["processes"])]
        sys.stdout.write(" ".join(map(str, pids)) + "\n")
        sys.stdout.flush()
        ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        sys.stdout.write(" ".join(map(str, ends)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
