"""Builds that are killed at random moments, again and again: nothing is lost, nothing half made is trusted.

doit by itself runs everything again after a kill, and takes a half-written target as made.
"""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.run import run, spawn
from pipeline.sidecar import require_digest
from pipeline.workspace import REPOSITORY, Cache
from tests.fakes.nursery import Nursery, built, digests, reference_digests, toy

_ROOTFS = "container-rootfs:x86_64"
_HALF_WAY, _WHOLE_ROOTFS = 300.0, 600.0  # seconds at most, 15 and 35 are usual
_WHOLE = 0.4  # seconds: about what a whole build of the toy takes


@pytest.fixture(name="nursery")
def open_nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path / "cache")
    yield nursery
    nursery.close()


def kill_again_and_again(
    nursery: Nursery, graph: ModuleType, reference: dict[str, str], *, kills: int, jobs: int, seed: int
) -> None:
    """Kill builds at *kills* random moments, looking at what each leaves; at the end let one end."""
    choice = random.Random(seed)
    done = 0
    while done < kills:
        before, length = built(graph), len(graph.JOURNAL.read_text().split()) if graph.JOURNAL.exists() else 0
        pid = nursery.start(jobs)
        time.sleep(choice.uniform(0, _WHOLE))
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.kill(pid, signal.SIGKILL)
        code = nursery.wait()
        finished = graph.JOURNAL.read_text().split()[length:] if graph.JOURNAL.exists() else []
        after = built(graph)
        assert not before & set(finished), "a finished artifact was made again"
        # a kill between the end of the work and its publishing costs that task, one for each that ran at once
        assert len({name for name in finished if name.startswith("toy:")} - after) <= jobs
        for name in after:
            for target in graph.GRAPH.artifacts[name].targets:
                relative = target.relative_to(nursery.cache).as_posix()
                assert hashlib.sha256(target.read_bytes()).hexdigest() == reference[relative], f"{relative} is stale"
        assert code in {0, -signal.SIGKILL}, nursery.log.read_text()
        done += code == -signal.SIGKILL
        if code == 0 or len(after) == graph.COUNT:  # all built: begin anew
            nursery.start(jobs)
            assert nursery.wait() == 0, nursery.log.read_text()
            assert digests(nursery.cache) == reference
            for artifact in graph.GRAPH.artifacts.values():
                artifact.remove()
            for path in graph.PLAIN:
                path.unlink()
    nursery.start(jobs)
    assert nursery.wait() == 0, nursery.log.read_text()
    assert digests(nursery.cache) == reference
    assert not list(nursery.cache.rglob(".*.partial"))
    assert not list((nursery.cache / "tmp").iterdir())


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_build_killed_at_a_hundred_moments_ends_as_if_nothing_had_been(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    reference = reference_digests(tmp_path)
    graph = toy(nursery.cache, "", monkeypatch)
    kill_again_and_again(nursery, graph, reference, kills=100, jobs=jobs, seed=jobs)


@pytest.mark.nightly
def test_a_build_killed_at_five_thousand_moments_ends_as_if_nothing_had_been(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = reference_digests(tmp_path)
    graph = toy(nursery.cache, "", monkeypatch)
    kill_again_and_again(nursery, graph, reference, kills=5000, jobs=2, seed=int(time.time()))


@pytest.mark.artifacts
def test_a_real_root_filesystem_killed_half_way_is_built_as_if_nothing_had_been(
    tmp_path: Path, artifacts: Cache
) -> None:
    """mmdebstrap mounts things in the tree it builds, and has children of its own."""
    cache = Cache(tmp_path / "cache")
    for name in ("snapshots", "packages", "downloads"):
        shutil.copytree(artifacts.root / name, cache.root / name, copy_function=os.link)
    argv: list[str | Path] = [sys.executable, "-m", "doit", _ROOTFS]
    environment = {"PVMLAB_CACHE": str(cache.root)}
    build = spawn(argv, env=environment, cwd=REPOSITORY)
    log = cache.logs / f"{_ROOTFS.replace(':', '.')}.log"
    deadline = time.monotonic() + _HALF_WAY
    while not log.exists() or b"Setting up " not in log.read_bytes():
        assert build.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "it never came to installing"
        time.sleep(0.1)
    build.kill()
    build.wait()
    assert list(cache.scratch.iterdir())
    done = run(argv, env=environment, cwd=REPOSITORY, timeout=_WHOLE_ROOTFS)
    assert "1 built" in done.stdout
    assert not list(cache.scratch.iterdir())
    assert str(cache.root) not in Path("/proc/self/mountinfo").read_text()
    rootfs = Path("containers/rootfs_x86_64.tar.zst")
    assert require_digest(cache.root / rootfs) == require_digest(artifacts.root / rootfs)
