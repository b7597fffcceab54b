"""Builds on disks that are too small, from nothing and over an older build: a clear error, and nothing half made stays.

The disks are file systems in memory in a mount namespace of their own. Writes to the state file are made to fail by
strace, one after the other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pipeline.run import run
from pipeline.workspace import REPOSITORY, Cache
from tests.fakes.storage_toys import Nursery, products

_DODO = REPOSITORY / "tests/fakes/storage_dodo.py"
_ENOUGH = 4000  # pages or files
_TIMEOUT = 60.0
_OLD, _NEW = "1", "2"  # an option of all artifacts


@pytest.fixture(name="nursery", scope="module")
def open_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """A nursery that may mount."""
    namespace = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    nursery = Nursery(tmp_path_factory.mktemp("nursery"), ["unshare", *namespace])
    yield nursery
    nursery.close()


@pytest.fixture(name="references", scope="module")
def build_references(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """For each option the products of a build that nothing disturbs."""
    caches = {salt: tmp_path_factory.mktemp("reference") for salt in (_OLD, _NEW)}
    assert [nursery.build(cache, salt)[0] for salt, cache in caches.items()] == [0, 0]
    return {salt: products(Cache(cache)) for salt, cache in caches.items()}


class Attempts:
    """Builds with little room, each on a fresh disk. :ivar said: what those that failed said."""

    def __init__(self, nursery: Nursery, references: dict[str, dict[str, str]], cache: Path) -> None:
        self._nursery, self._references, self._cache = nursery, references, cache
        self.said: list[str] = []

    def build(self, what: str, count: int, *, over_older: bool) -> bool:
        """Build where only *count* more pages or files fit; check what that left; return whether it was enough."""
        nursery, cache = self._nursery, self._cache
        cache.mkdir(exist_ok=True)
        nursery.mount(cache)
        try:
            if over_older:
                assert nursery.build(cache, _OLD)[0] == 0
            nursery.leave(cache, what, count)
            code, text = nursery.build(cache, _NEW)
            self.said += [text] if code != 0 else []
            assert code in {0, 1}, text
            assert not nursery.false_claims(cache, self._references)
            nursery.leave(cache, what, _ENOUGH)
            again, said = nursery.build(cache, _NEW)
            assert (again, "damaged" in said) == (0, False), said
            assert nursery.products(cache) == self._references[_NEW]
        finally:
            nursery.unmount(cache)
        return code == 0

    def build_all(self, what: str, counts: Iterable[int], *, over_older: bool) -> None:
        """Build with each of *counts*, which begin with too few and end with enough."""
        assert [self.build(what, count, over_older=over_older) for count in counts][-1]
        assert len(self.said) > 1
        for text in self.said:
            assert "Traceback" not in text
            assert "error: the disk is full" in text or "error: cp failed with exit status 1" in text, text


@pytest.fixture(name="attempts")
def prepare_attempts(nursery: Nursery, references: dict[str, dict[str, str]], tmp_path: Path) -> Attempts:
    return Attempts(nursery, references, tmp_path / "cache")


@pytest.mark.parametrize(
    ("what", "over_older", "counts"),
    [
        ("pages", False, range(2, 63, 6)), ("files", False, range(2, 63, 6)),
        ("pages", True, range(1, 32, 5)), ("files", True, range(1, 11, 2)),
    ],
)  # fmt: skip
def test_a_disk_that_fills_up_is_told_and_nothing_half_made_stays(
    attempts: Attempts, what: str, over_older: bool, counts: range
) -> None:
    attempts.build_all(what, counts, over_older=over_older)


@pytest.mark.nightly
@pytest.mark.parametrize("over_older", [False, True])
@pytest.mark.parametrize("what", ["pages", "files"])
def test_a_disk_that_fills_up_at_any_moment_is_told(attempts: Attempts, what: str, over_older: bool) -> None:
    attempts.build_all(what, range(2, 64), over_older=over_older)


@pytest.mark.parametrize(
    ("what", "count", "over_older"), [("pages", 0, True), ("files", 0, False), ("files", 1, False)]
)
def test_a_disk_that_is_full_from_the_start_is_told(
    attempts: Attempts, what: str, count: int, over_older: bool
) -> None:
    attempts.build(what, count, over_older=over_older)
    assert "error: the disk is full" in attempts.said[0]


def test_a_program_that_finds_the_disk_full_is_not_just_told_to_have_failed(attempts: Attempts) -> None:
    for count in range(10, 19, 2):
        attempts.build("pages", count, over_older=False)
    assert any("cp failed" in text for text in attempts.said)
    for text in attempts.said:
        assert "disk is full" in text or "No space left" in text


@pytest.mark.parametrize("descriptors", [0, 4, 5, 6, 8])
def test_too_many_open_files_leave_nothing_half_made(
    nursery: Nursery, references: dict[str, dict[str, str]], tmp_path: Path, descriptors: int
) -> None:
    cache = tmp_path / "cache"
    assert nursery.build(cache, _NEW, descriptors=descriptors)[0] != 0
    assert not nursery.false_claims(cache, references)
    assert nursery.build(cache, _NEW)[0] == 0
    assert products(Cache(cache)) == references[_NEW]


def test_too_many_open_files_are_told(nursery: Nursery, tmp_path: Path) -> None:
    code, text = nursery.build(tmp_path / "cache", _NEW, descriptors=6)
    assert (code, "Traceback" in text) == (1, False), text


def build_with_state_failing(cache: Path, number: int, tmp_path: Path) -> tuple[str, bool]:
    """Build with each write to the state file failing from the given one on; return what is said, and if any did."""
    files = [f"--trace-path={cache / '.state.db'}{suffix}" for suffix in ("", "-journal", "-wal", "-shm")]
    calls, trace = "pwrite64,write,ftruncate,fsync,fdatasync", tmp_path / "trace"
    done = run(
        [
            "strace", "--follow-forks", "--quiet=all", *files, f"--trace={calls}",
            f"--inject={calls}:error=ENOSPC:when={number}+", f"--output={trace}", "--",
            sys.executable, "-m", "doit", "--file", _DODO,
        ],
        env={"TOY_CACHE": str(cache), "TOY_SALT": _NEW, "PYTHONPATH": str(REPOSITORY)},
        timeout=_TIMEOUT, cwd=tmp_path, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said, "INJECTED" in trace.read_text()


def state_failing_from(
    numbers: Iterable[int],
    nursery: Nursery,
    reference: dict[str, str],
    tmp_path: Path,
    *,
    over_older: bool,
) -> list[str]:
    """Have the disk be full for the state file from each of the writes *numbers* on; return what is said."""
    said = []
    for number in numbers:
        cache = tmp_path / f"cache{number}"
        cache.mkdir()
        if over_older:
            assert nursery.build(cache, _OLD)[0] == 0
        text, failed = build_with_state_failing(cache, number, tmp_path)
        if not failed:
            break
        said.append(text)
        assert "Traceback" not in text
        assert products(Cache(cache)) == reference
        code, text = nursery.build(cache, _NEW)
        assert (code, text.strip()) == (0, "all 3 artifacts are up to date")
    return said


@pytest.mark.parametrize("over_older", [False, True])
def test_a_build_goes_on_when_the_state_file_cannot_be_written(
    nursery: Nursery, references: dict[str, dict[str, str]], tmp_path: Path, over_older: bool
) -> None:
    said = state_failing_from((1, 3, 9, 15), nursery, references[_NEW], tmp_path, over_older=over_older)
    assert len(said) == 4
    assert all("this run does without it" in text for text in said)


@pytest.mark.nightly
@pytest.mark.parametrize("over_older", [False, True])
def test_a_build_goes_on_from_whatever_write_to_the_state_file_fails(
    nursery: Nursery, references: dict[str, dict[str, str]], tmp_path: Path, over_older: bool
) -> None:
    said = state_failing_from(range(1, 500), nursery, references[_NEW], tmp_path, over_older=over_older)
    assert len(said) > 20


def test_a_full_disk_is_no_damage_to_the_state_file(
    nursery: Nursery, references: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    said = state_failing_from((1, 5), nursery, references[_NEW], tmp_path, over_older=True)
    assert not [text for text in said if "damaged" in text]
