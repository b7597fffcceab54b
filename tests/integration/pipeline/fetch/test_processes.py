"""Downloads in several processes: one for all, resumed after kills, told when the disk is full or Ctrl-C comes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ExitCode
from pipeline.fetch.store import Store
from pipeline.run import PIPE, run, spawn
from pipeline.workspace import REPOSITORY, Cache
from tests.fakes.fetcher import NAME
from tests.fakes.media_server import Manner, MediaServer

_TIMEOUT = 60.0
_ARGV = [sys.executable, "-m", "tests.fakes.fetcher"]
_SMALL_DISK = """
mount -t tmpfs -o size=8m,nr_inodes=200 none "$1" || exit 77
mkdir "$1/cache"
head --bytes=6M /dev/zero >"$1/filler"
"$2" -m tests.fakes.fetcher --here <"$3"; echo "first $?"
find "$1/cache/downloads" -type f -name "*.iso" | wc -l
rm "$1/filler"
"$2" -m tests.fakes.fetcher --here <"$3"; echo "second $?"
sha256sum "$1"/cache/downloads/*/x.iso
"""


class Fetchers:
    """Starts processes that fetch."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("ab") as stream:
            self._process = spawn(
                _ARGV, stdin=PIPE, stdout=PIPE, stderr=stream, env={"PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY
            )

    def start(self, order: dict[str, Any], processes: int = 1) -> list[int]:
        """Start so many; return their process ids."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**order, "processes": processes}).encode() + b"\n")
        self._process.stdin.flush()
        return self._numbers()

    def wait(self) -> list[int]:
        """Return how they ended."""
        return self._numbers()

    def close(self) -> None:
        """End the nursery."""
        self._process.communicate(timeout=_TIMEOUT)

    def _numbers(self) -> list[int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        assert line, self.log.read_text()
        return [int(word) for word in line.split()]


@pytest.fixture(name="fetchers")
def open_fetchers(tmp_path: Path) -> Iterator[Fetchers]:
    fetchers = Fetchers(tmp_path / "log")
    yield fetchers
    fetchers.close()


def order_of(data: bytes, server: MediaServer, cache: Path, path: str = "/x.iso") -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    return {"cache": str(cache), "urls": [server.url(path)], "sha256": sha256, "size": len(data)}


def test_eight_processes_that_want_the_same_make_one_download(tmp_path: Path, fetchers: Fetchers) -> None:
    rounds = 15
    files = {f"/{number}/x.iso": random.Random(number).randbytes(300_000) for number in range(rounds)}
    with MediaServer({path: Manner(data=data, pace=0.002) for path, data in files.items()}) as server:
        for path, data in files.items():
            order = order_of(data, server, tmp_path / "cache", path)
            assert len(fetchers.start(order, 8)) == 8
            assert fetchers.wait() == [0] * 8, fetchers.log.read_text()
            assert server.count(path) == 1
            stored = tmp_path / "cache/downloads" / order["sha256"] / NAME
            assert stored.read_bytes() == data
    assert not list((tmp_path / "cache/downloads/parts").iterdir())


def test_a_process_that_waits_goes_on_when_the_one_that_fetched_is_killed(tmp_path: Path, fetchers: Fetchers) -> None:
    data = random.Random(0).randbytes(2 << 20)
    with MediaServer({"/x.iso": Manner(data=data, pace=0.02)}) as server:
        first, _ = fetchers.start(order_of(data, server, tmp_path / "cache"), 2)
        deadline = time.monotonic() + _TIMEOUT
        while not server.sent and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        assert sorted(fetchers.wait()) in ([-signal.SIGKILL, 0], [0, 0])
    assert (tmp_path / "cache/downloads" / hashlib.sha256(data).hexdigest() / NAME).read_bytes() == data


@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=pytest.mark.nightly)])
def test_what_was_killed_at_random_moments_goes_on_where_it_was(tmp_path: Path, fetchers: Fetchers, kills: int) -> None:
    choice, data = random.Random(1), random.Random(2).randbytes(8 << 20)
    cache, sent, asked, done = tmp_path / "cache", 0, 0, 0
    parts = cache / "downloads/parts"
    with MediaServer({"/x.iso": Manner(data=data, pace=0.005)}) as server:
        order = order_of(data, server, cache)
        stored = cache / "downloads" / order["sha256"] / NAME
        while done < kills:
            (pid,) = fetchers.start(order)
            time.sleep(choice.uniform(0.0, 0.3))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            (code,) = fetchers.wait()
            done += code == -signal.SIGKILL
            assert not parts.is_dir() or len(list(parts.glob("*.part"))) <= 1
            if code == 0:
                assert stored.read_bytes() == data
                sent, asked = sent + len(data), asked + 1
                stored.unlink()
        stored.unlink(missing_ok=True)  # the last one may have been killed when it had only to tidy up
        fetchers.start(order)
        assert fetchers.wait() == [0], fetchers.log.read_text()
        assert stored.read_bytes() == data
        assert server.sent < 2 * (sent + len(data))
        assert any("range" in request.headers for request in server.requests)
    assert not list(parts.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_from_outside_keeps_what_has_arrived(tmp_path: Path, fetchers: Fetchers, number: signal.Signals) -> None:
    data = random.Random(3).randbytes(2 << 20)
    with MediaServer({"/x.iso": [Manner(data=data, stall=1 << 20), Manner(data=data)]}) as server:
        order = order_of(data, server, tmp_path / "cache")
        (pid,) = fetchers.start(order)
        part = tmp_path / "cache/downloads/parts" / f"{order['sha256']}.part"
        deadline = time.monotonic() + _TIMEOUT
        while (not part.exists() or part.stat().st_size < 1 << 20) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(pid, number)
        assert fetchers.wait() != [0]
        assert part.stat().st_size == 1 << 20
        fetchers.start(order)
        assert fetchers.wait() == [0]
        assert server.requests[-1].headers["range"] == f"bytes={1 << 20}-"
        assert server.requests[-1].sent == 1 << 20


@pytest.mark.parametrize("is_told", [True, False], ids=["size known", "size unknown"])
def test_a_full_disk_is_told_with_what_is_needed_and_the_next_run_goes_on(tmp_path: Path, is_told: bool) -> None:
    data = random.Random(4).randbytes(4 << 20)
    manner = Manner(data=data, length=0 if is_told else None)
    namespace = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    disk, ordered = tmp_path / "disk", tmp_path / "order"
    disk.mkdir()
    with MediaServer({"/x.iso": manner}) as server:
        order = order_of(data, server, disk / "cache")
        ordered.write_text(json.dumps({**order, "size": order["size"] if is_told else None}) + "\n")
        done = run(
            ["unshare", *namespace, "sh", "-c", _SMALL_DISK, "sh", disk, sys.executable, ordered],
            env={"PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY, timeout=_TIMEOUT,
        )  # fmt: skip
        amount = f"{len(data):,} more bytes are needed" if is_told else "more room is needed"
        assert f"the disk is too full for x.iso: {amount}" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout.split() == [
            "first", str(int(ExitCode.FAILED)), "0", "second", "0", order["sha256"], stored_path(disk, order["sha256"]),
        ]  # fmt: skip


def stored_path(disk: Path, sha256: str) -> str:
    return str(Store(Cache(disk / "cache")).place(sha256, NAME))
