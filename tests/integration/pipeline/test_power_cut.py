"""Builds whose power is cut after any of their file operations: nothing torn is trusted, and the next build mends all.

The operations of real builds are recorded and played on a model of a disk (:mod:`tests.fakes.power_cut`); what a power
cut could leave there is laid out as a real cache and looked at with the real engine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.state import State, stamp_of
from pipeline.workspace import REPOSITORY, Cache
from tests.fakes.power_cut import Call, Contents, Damage, Disk, Entries, Tree, record
from tests.fakes.storage_toys import NAMES, Nursery, false_claims, products, up_to_date

_DODO = REPOSITORY / "tests/fakes/storage_dodo.py"
_SALTS = ("1", "1", "2", "2")  # a build from nothing, one with nothing to do, one that replaces all, and again
_STATE = ".state.db"
_TIMEOUT = 120.0
# Few things hurt show faults that hide when all is: a torn file beside a whole sidecar, say.
_DAMAGES = (
    Damage(), Damage(share=0.5), Damage(share=0.1), Damage(share=0.1, entries=Entries.WRITTEN),
    Damage(Contents.WRITTEN, Entries.SOME), Damage(Contents.LOST, Entries.LOST),
    Damage(Contents.ZEROS, Entries.WRITTEN),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Recording:
    """Builds in one cache, one after the other.

    :ivar builds: the option and the calls of each. :ivar files: what was on the disk after each.
    :ivar references: for each option, the products of a whole build.
    """

    root: Path
    builds: list[tuple[str, list[Call]]] = dataclasses.field(default_factory=list)
    files: list[dict[str, bytes]] = dataclasses.field(default_factory=list)
    references: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    def moments(self) -> Iterator[tuple[Disk, str]]:
        """Yield the disk after each operation that changed it, with the option of the build that did it."""
        disk = Disk(self.root)
        for salt, calls in self.builds:
            for call in calls:
                if disk.play(call):
                    yield disk, salt


def record_builds(folder: Path, fault: str = "") -> Recording:
    recording = Recording(folder / "cache")
    recording.root.mkdir()
    environment = {"TOY_CACHE": str(recording.root), "TOY_FAULT": fault, "PYTHONPATH": str(REPOSITORY)}
    for salt in _SALTS:
        calls = record(
            [sys.executable, "-m", "doit", "--file", _DODO],
            trace=folder / "trace", env={**environment, "TOY_SALT": salt}, cwd=folder, timeout=_TIMEOUT,
        )  # fmt: skip
        recording.builds.append((salt, calls))
        files = (path for path in recording.root.rglob("*") if path.is_file())
        recording.files.append({path.relative_to(recording.root).as_posix(): path.read_bytes() for path in files})
        recording.references[salt] = products(Cache(recording.root))
    return recording


@pytest.fixture(name="recording", scope="module")
def record_whole_builds(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record_builds(tmp_path_factory.mktemp("recording"))


@pytest.fixture(name="nursery")
def open_nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    nursery.close()


@pytest.fixture(name="cache")
def cache_in_memory() -> Iterator[Cache]:
    """A cache whose files cost no flushing: thousands are laid out there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Cache(Path(folder) / "cache")


def lay_out(tree: Tree, cache: Cache, state: str) -> None:
    """Make the cache what a power cut has left. :param state: what is left of the state file: kept, cut or lost."""
    shutil.rmtree(cache.root, ignore_errors=True)
    cache.root.mkdir()
    for name, remains in tree.items():
        path = cache.root / name
        if remains is None:
            path.mkdir()
        elif not name.startswith(_STATE):
            path.write_bytes(remains.data)
        elif state != "lost" and not name.endswith("-shm"):  # that one is written through a memory map
            path.write_bytes(remains.written[: len(remains.written) * 2 // 3] if state == "cut" else remains.written)
    if state == "kept":
        remember_digests(tree, cache)


def remember_digests(tree: Tree, cache: Cache) -> None:
    """Have the state know of each file that is left what it knew of the file that was written.

    A power cut may leave a file's size, times and number without its content; the files laid out have others.
    """
    known: dict[str, str] = {}
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(cache.state)) as connection:
        known = dict(connection.execute("SELECT name, value FROM entry WHERE kind = 'digest'"))
    state = State(cache)
    for name, digest in known.items():
        remains = tree.get(name)
        if remains is None or len(remains.data) != len(remains.written):
            continue
        if hashlib.sha256(remains.written).hexdigest() == digest:
            state.put("digest", name, digest, stamp_of(cache.root / name))
    state.close()


def power_cuts(recording: Recording, cache: Cache, *, each: int, seed: int) -> Iterator[str]:
    """Cut the power after each operation, in *each* ways; lay out what is left, once; yield the option of the build."""
    chance, seen = random.Random(seed), set[int]()
    for disk, salt in recording.moments():
        for damage in chance.sample(_DAMAGES, each):
            tree, state = disk.after_power_cut(damage, chance), chance.choice(["kept", "kept", "cut", "lost"])
            left = hash((state, *((name, remains and remains.data) for name, remains in sorted(tree.items()))))
            if left not in seen:
                seen.add(left)
                lay_out(tree, cache, state)
                yield salt


def search(recording: Recording, cache: Cache, nursery: Nursery, *, each: int, seed: int, build_every: int) -> None:
    """Look at what many power cuts leave, and after one in *build_every* build again."""
    builds = 0
    for number, salt in enumerate(power_cuts(recording, cache, each=each, seed=seed)):
        assert not false_claims(cache, recording.references)
        if number % build_every == 0:
            builds += 1
            code, text = nursery.build(cache.root, salt)
            assert (code, "Traceback" in text) == (0, False), text
            assert products(cache) == recording.references[salt]
            assert not list(cache.scratch.glob("*"))
    assert builds > 20, "a search that finds nothing must have looked"


def test_nothing_that_a_power_cut_leaves_is_trusted_unless_whole_and_the_next_build_mends_it(
    recording: Recording, cache: Cache, nursery: Nursery
) -> None:
    search(recording, cache, nursery, each=1, seed=1, build_every=15)


@pytest.mark.nightly
def test_nothing_that_six_thousand_power_cuts_leave_is_trusted_unless_whole(
    recording: Recording, cache: Cache, nursery: Nursery
) -> None:
    for _ in range(2):
        search(recording, cache, nursery, each=len(_DAMAGES), seed=time.time_ns(), build_every=5)


def test_the_search_finds_what_publishing_without_flushing_files_does(tmp_path: Path, cache: Cache) -> None:
    recording = record_builds(tmp_path, "files")
    claims = (false_claims(cache, recording.references) for _ in power_cuts(recording, cache, each=4, seed=1))
    assert any(claims)


def after_build(recording: Recording, number: int, cache: Cache) -> list[str]:
    """Lay out what is certain after a build has ended; return the artifacts that count as up to date."""
    disk = Disk(recording.root)
    for _, calls in recording.builds[: number + 1]:
        for call in calls:
            disk.play(call)
    lay_out(disk.after_power_cut(Damage(Contents.LOST, Entries.LOST), random.Random(0)), cache, "lost")
    return up_to_date(cache, recording.builds[number][0])


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_build_that_has_ended_survives(recording: Recording, cache: Cache, number: int) -> None:
    assert after_build(recording, number, cache) == [*NAMES]


def test_a_build_that_does_not_flush_folders_does_not_survive(tmp_path: Path, cache: Cache) -> None:
    assert after_build(record_builds(tmp_path, "folders"), 2, cache) != [*NAMES]


def test_half_written_files_go_even_if_another_process_has_the_number_of_their_writer(
    recording: Recording, cache: Cache, nursery: Nursery
) -> None:
    """Numbers begin anew after a power cut, and in each new container."""
    cuts = power_cuts(recording, cache, each=1, seed=1)
    partial = next(path for _ in cuts for path in cache.root.rglob(".a.*.partial"))
    partial.rename(partial.with_name(f".a.{os.getpid()}.01234567.partial"))
    assert nursery.build(cache.root, "1")[0] == 0
    assert products(cache) == recording.references["1"]


def publishing(recording: Recording) -> tuple[set[str], list[str]]:
    """Return the files that were renamed into place, and what was not flushed when it should have been."""
    published: set[str] = set()
    faults: list[str] = []
    written: set[Path] = set()
    waiting: Path | None = None  # the folder of the last rename, until it is flushed
    for call in (call for _, calls in recording.builds for call in calls):
        path = call.opened or (call.descriptors[0][1] if call.descriptors else None)
        if call.name.startswith("rename") and call.paths[1].is_relative_to(recording.root):
            source, target = call.paths
            faults += [f"{target} gets its name before {source} is flushed"] if source in written else []
            faults += [f"{target} gets its name before {waiting} is flushed"] if waiting else []
            published, waiting = published | {target.relative_to(recording.root).as_posix()}, target.parent
        elif call.name == "fsync":
            written.discard(path or Path())
            waiting = None if path == waiting else waiting
        elif path is not None and (call.name in {"write", "pwrite64"} or "O_CREAT" in "|".join(call.plain)):
            written.add(path)
    return published, faults + ([f"{waiting} is not flushed at the end"] if waiting else [])


def test_each_file_is_flushed_before_it_gets_its_name_and_its_folder_after(recording: Recording) -> None:
    published, faults = publishing(recording)
    assert not faults
    assert published == recording.references["2"].keys()


def test_the_model_ends_as_the_disk_does(recording: Recording) -> None:
    disk = Disk(recording.root)
    for (_, calls), files in zip(recording.builds, recording.files, strict=True):
        for call in calls:
            disk.play(call)
        assert disk.as_written() == files


def calls_of(folder: Path, program: str) -> list[Call]:
    """Record a Python program that works in *folder*."""
    (folder / "disk").mkdir()
    text = f"import os, pathlib, threading\nhere = pathlib.Path({str(folder / 'disk')!r})\n{program}"
    return record([sys.executable, "-c", text], trace=folder / "trace", env={}, cwd=folder, timeout=_TIMEOUT)


def test_a_file_that_is_not_flushed_can_be_anything_under_any_of_its_names(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    for call in calls_of(tmp_path, "(here / 'new').write_bytes(b'1234'); (here / 'new').rename(here / 'old')"):
        disk.play(call)
    chance = random.Random(1)
    trees = [disk.after_power_cut(Damage(), chance) for _ in range(200)]
    left = {tuple((name, remains.data) for name, remains in tree.items() if remains is not None) for tree in trees}
    contents = (b"1234", b"", b"12", bytes(4))
    assert left == {(), *(((name, content),) for name in ("new", "old") for content in contents)}


def test_calls_of_threads_that_interrupt_each_other_are_read(tmp_path: Path) -> None:
    program = """
def write(name):
    for number in range(20):
        with (here / f"{name}{number}").open("wb", buffering=0) as stream:
            for data in (b"one", b"two"):
                stream.write(data)
                os.fsync(stream)
threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    disk = Disk(tmp_path / "disk")
    for call in calls_of(tmp_path, program):
        disk.play(call)
    assert "resumed" in (tmp_path / "trace").read_text()
    assert disk.as_written() == {f"{name}{number}": b"onetwo" for name in "abc" for number in range(20)}


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("(here / 'a').touch(); (here / 'b').hardlink_to(here / 'a')", NotImplementedError),
        ("(here / 'a').symlink_to('b')", NotImplementedError),
        ("(here / 'a').touch(); (here / 'b').mkdir(); (here / 'a').rename(here / 'b/a')", NotImplementedError),
        ("(here / 'a').touch(); os.truncate(here / 'a', 9)", NotImplementedError),
        ("(here / 'a').write_bytes(bytes(3 << 20))", ValueError),
    ],
)
def test_what_the_model_does_not_know_is_refused(tmp_path: Path, program: str, error: type[Exception]) -> None:
    disk = Disk(tmp_path / "disk")
    with pytest.raises(error):
        [disk.play(call) for call in calls_of(tmp_path, program)]
