"""Three small artifacts with two targets each, for tests that take away power, space or descriptors.

Run as a program it is a nursery: for each request on standard input (a line of JSON) it forks a process that does it,
which is ten times as fast as starting interpreters, and answers with a line of JSON. In a mount namespace of its own it
can have small disks.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from pipeline.artifact import Artifact, Making
from pipeline.engine.settings import doit_settings
from pipeline.graph import Graph
from pipeline.run import PIPE, run, spawn
from pipeline.state import state_of
from pipeline.workspace import REPOSITORY, Cache

NAMES = ("one", "two", "three")
_TIMEOUT = 60.0


def artifact(cache: Cache, salt: str, number: int) -> Artifact:
    """Return one of the artifacts: it needs a target of each one before it."""
    needs = tuple(cache.root / before / "a" for before in NAMES[:number])
    first, second = (cache.root / NAMES[number] / part for part in "ab")

    def make(making: Making) -> None:
        read = b"".join(path.read_bytes() for path in needs)
        content = hashlib.sha512(read + f"{number} {salt}".encode()).hexdigest().encode()
        with making.outputs[first].open("wb", buffering=0) as stream:
            for _ in range(3):
                stream.write(content * 24)
        # Most recipes have a program write for them. --reflink=never: no way of copying that a trace does not show.
        run(
            ["cp", "--verbose", "--reflink=never", making.outputs[first], making.outputs[second]],
            timeout=_TIMEOUT, log=making.log,
        )  # fmt: skip

    return Artifact(
        name=f"toy:{NAMES[number]}", doc=NAMES[number], cache=cache, targets=(first, second), inputs=needs,
        options={"salt": salt}, make=make,
    )  # fmt: skip


def graph_of(cache: Cache, salt: str) -> Graph:
    """Return the graph of the toys. *salt* is an option of each."""
    return Graph(artifact(cache, salt, number) for number in range(len(NAMES)))


def up_to_date(cache: Cache, salt: str) -> list[str]:
    """Return which of the three count as up to date, looked at with fresh eyes."""
    state_of.cache_clear()
    try:
        return [name for number, name in enumerate(NAMES) if not artifact(cache, salt, number).reasons()]
    finally:
        state_of(cache).close()


def products(cache: Cache) -> dict[str, str]:
    """Return the digest of each file of a cache, but for logs, the state and what holds the lock."""
    return {
        path.relative_to(cache.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.root.rglob("*"))
        if path.is_file() and path.parent != cache.logs and not path.name.startswith((".state", ".lock", ".children"))
    }


def false_claims(cache: Cache, references: dict[str, dict[str, str]]) -> list[str]:
    """Return the files of artifacts that count as up to date without being what a whole build makes.

    :param references: for each salt, the :func:`products` of a whole build.
    """
    there = products(cache)
    return [
        f"toy:{name} counts as up to date with the option {salt}, but {file} is not what it should be"
        for salt, reference in references.items()
        for name in up_to_date(cache, salt)
        for file in reference
        if file.startswith(f"{name}/") and there.get(file) != reference[file]
    ]


class Nursery:
    """Has requests done in forked processes.

    :param wrapper: the program that runs it, with its arguments. ``unshare --mount`` gives it disks of its own.
    """

    def __init__(self, folder: Path, wrapper: Sequence[str] = ()) -> None:
        self._output = folder / "nursery.output"
        with (folder / "nursery.log").open("ab") as log:
            self._process = spawn(
                [*wrapper, sys.executable, "-m", "tests.fakes.storage_toys"],
                stdin=PIPE, stdout=PIPE, stderr=log, env={"PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY,
            )  # fmt: skip
        self._log = folder / "nursery.log"

    def build(self, cache: Path, salt: str, **limits: int) -> tuple[int, str]:
        """Build all; return the exit status and what was said.

        :param limits: ``descriptors``: see :func:`run_doit`.
        """
        code = self._ask(do="build", cache=str(cache), salt=salt, **limits)
        return int(code), self._output.read_text()

    def products(self, cache: Path) -> dict[str, str]:
        """Return what is in a cache that only the nursery sees; see :func:`products`."""
        return dict(self._ask(do="products", cache=str(cache)))

    def false_claims(self, cache: Path, references: dict[str, dict[str, str]]) -> list[str]:
        """Look at a cache that only the nursery sees; see :func:`false_claims`."""
        return list(self._ask(do="false_claims", cache=str(cache), references=references))

    def mount(self, folder: Path) -> None:
        """Mount an empty file system in memory."""
        self._ask(do="mount", cache=str(folder))

    def leave(self, folder: Path, what: str, count: int) -> None:
        """Have the file system be so small that *count* more ``pages`` or ``files`` fit."""
        self._ask(do="leave", cache=str(folder), what=what, count=count)

    def unmount(self, folder: Path) -> None:
        """Let go of the file system."""
        self._ask(do="unmount", cache=str(folder))

    def close(self) -> None:
        """End the nursery."""
        self._process.communicate(timeout=_TIMEOUT)

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"output": str(self._output), **request}).encode() + b"\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise AssertionError(self._log.read_text())
        answer = json.loads(line)
        if "crash" in answer:
            raise AssertionError(answer["crash"])
        return answer["answer"]


def do(request: dict[str, Any]) -> Any:
    """Do what a request asks for."""
    cache = Cache(Path(request["cache"]))
    match request["do"]:
        case "build":
            return run_doit(cache, request["salt"], request.get("descriptors"))
        case "products":
            return products(cache)
        case "false_claims":
            return false_claims(cache, request["references"])
        case "mount":
            run(["mount", "--types", "tmpfs", "tmpfs", cache.root], timeout=_TIMEOUT)
        case "leave":
            limit = room_for(cache.root, request["what"], request["count"])
            run(["mount", "--options", f"remount,{limit}", cache.root], timeout=_TIMEOUT)
        case "unmount":
            run(["umount", cache.root], timeout=_TIMEOUT)
    return None


def room_for(folder: Path, what: str, count: int) -> str:
    """Return the option of tmpfs that leaves room for *count* more of the ``pages`` or ``files`` in *folder*."""
    now = os.statvfs(folder)
    if what == "files":
        return f"nr_inodes={now.f_files - now.f_ffree + count}"
    pages = now.f_blocks - now.f_bfree + count
    assert pages > 0, "no size at all means no limit"
    return f"size={pages * now.f_frsize}"


def run_doit(cache: Cache, salt: str, descriptors: int | None) -> int:
    """Run doit as the dodo file would; return its exit status.

    :param descriptors: as many more may be open than there are when the tasks are made.
    """

    def task_toy() -> Iterator[dict[str, Any]]:
        if descriptors is not None:
            limit = len([*Path("/proc/self/fd").iterdir()]) - 1 + descriptors
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        return graph_of(cache, salt).tasks("toy")

    try:
        return int(DoitMain(ModuleTaskLoader({"DOIT_CONFIG": doit_settings(cache), "task_toy": task_toy})).run([]))
    except SystemExit as end:
        return int(end.code or 0)


def in_a_child(request: dict[str, Any]) -> str:
    """Fork a process that does what is asked for, its output in a file of its own; return the answer."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            answer = {"answer": do(request)}
        except BaseException:  # noqa: BLE001 (the nursery's client is told)
            answer = {"crash": traceback.format_exc()}
        sys.stdout.flush()
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)  # no exit handlers: they are the nursery's
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.wait()
    return text


def main() -> None:
    """Do what the lines on standard input ask for."""
    for line in sys.stdin:
        sys.stdout.write(in_a_child(json.loads(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
