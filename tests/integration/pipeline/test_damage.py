"""Outputs and state that somebody damages, and builds that meet: all is noticed, nothing is done twice."""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from pipeline.engine.plan import Verdict, plan
from pipeline.run import PIPE, Popen, spawn
from pipeline.sidecar import files_of, sidecar_path
from pipeline.state import state_of
from pipeline.workspace import REPOSITORY
from tests.fakes.nursery import Nursery, built, digests, toy

_TIMEOUT = 120.0

Damage = Callable[[Path, random.Random], None]


def empty(path: Path, _choice: random.Random) -> None:
    path.write_bytes(b"")


def cut(path: Path, choice: random.Random) -> None:
    os.truncate(path, choice.randrange(path.stat().st_size))


def lengthen(path: Path, _choice: random.Random) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


def flip(path: Path, choice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
    path.write_bytes(content)


def flip_and_restore_the_time(path: Path, choice: random.Random) -> None:
    before = path.stat()
    flip(path, choice)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(path: Path, choice: random.Random) -> None:
    """Put another file in its place, of equal size and times."""
    before, other = path.stat(), path.with_name("other")
    shutil.copy2(path, other)
    flip(other, choice)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def remove(path: Path, _choice: random.Random) -> None:
    path.unlink()


def make_a_folder_of_it(path: Path, _choice: random.Random) -> None:
    path.unlink()
    path.mkdir()


def link_to_something_else(path: Path, choice: random.Random) -> None:
    other = path.with_name("other")
    path.rename(other)
    flip(other, choice)
    path.symlink_to(other)


DAMAGES: tuple[Damage, ...] = (
    empty, cut, lengthen, flip, flip_and_restore_the_time, swap, remove, make_a_folder_of_it, link_to_something_else,
)  # fmt: skip


@pytest.fixture(name="graph")
def build_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the toy graph, all built."""
    nursery = Nursery(tmp_path / "cache")
    nursery.start(2)
    assert nursery.wait() == 0, nursery.log.read_text()
    nursery.close()
    return toy(nursery.cache, "", monkeypatch)


def rebuild(cache: Path) -> None:
    nursery = Nursery(cache)
    nursery.start(2)
    assert nursery.wait() == 0, nursery.log.read_text()
    nursery.close()


def test_four_hundred_damaged_outputs_are_all_noticed(graph: ModuleType, tmp_path: Path) -> None:
    choice, names, cache = random.Random(400), sorted(graph.GRAPH.artifacts), graph.CACHE.root
    pristine = tmp_path / "pristine"
    shutil.copytree(cache, pristine, symlinks=True)
    reference, count = digests(cache), 0
    assert built(graph) == set(names)
    while count < 400:
        # every kind of damage to the files and the sidecars in turn; the look before it fills the memo of digests
        damage, artifact = DAMAGES[count % len(DAMAGES)], graph.GRAPH.artifacts[choice.choice(names)]
        path = choice.choice(artifact.targets)
        path = choice.choice([path, *files_of(path)])
        assert artifact.reason() is None
        damage(path, choice)
        assert artifact.reason() is not None, f"{damage.__name__} of {path} was not noticed"
        count += 1
        if count % 50 == 0 and damage is not make_a_folder_of_it:
            rebuild(cache)
            assert {name: digest for name, digest in digests(cache).items() if "other" not in name} == reference
        shutil.rmtree(path.parent)
        shutil.copytree(pristine / path.parent.relative_to(cache), path.parent, symlinks=True)


def test_a_folder_in_the_place_of_an_output_is_an_error_people_understand(graph: ModuleType) -> None:
    path = graph.target(7, "a")
    path.unlink()
    path.mkdir()
    process = doit(graph.CACHE.root)
    output, _ = process.communicate(timeout=_TIMEOUT)
    assert process.returncode == 1
    assert b"a folder is in the way" in output
    assert b"Traceback" not in output


@pytest.mark.parametrize("damage", [empty, cut, flip, swap, remove])
def test_a_damaged_output_of_plain_doit_is_made_again(graph: ModuleType, damage: Damage) -> None:
    """doit by itself looks whether the file exists."""
    before = digests(graph.CACHE.root)
    damage(graph.PLAIN[0], random.Random(1))
    rebuild(graph.CACHE.root)
    assert digests(graph.CACHE.root) == before
    assert graph.JOURNAL.read_text().splitlines()[-1] == "plain", "and what is made from it is what it was"


def test_a_touched_input_of_plain_doit_is_not_a_changed_one(graph: ModuleType) -> None:
    before = graph.JOURNAL.read_text()
    os.utime(graph.target(3, "a"), (1, 1))
    rebuild(graph.CACHE.root)
    assert graph.JOURNAL.read_text() == before


def test_a_lost_state_runs_only_plain_doit_tasks_again(graph: ModuleType) -> None:
    lines = graph.JOURNAL.read_text().splitlines()
    for path in graph.CACHE.root.glob(".state.db*"):
        path.unlink()
    rebuild(graph.CACHE.root)
    assert sorted(graph.JOURNAL.read_text().splitlines()[len(lines) :]) == ["plain", "plainer"]


@pytest.mark.parametrize("command", [["list", "--all", "--status"], ["info", "plain"], ["info", "toy:07"], []])
def test_a_damaged_state_is_set_aside_and_said_by_every_command(graph: ModuleType, command: list[str]) -> None:
    graph.CACHE.state.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    process = doit(graph.CACHE.root, *command)
    output, error = (text.decode() for text in process.communicate(timeout=_TIMEOUT))
    assert "Traceback" not in output + error
    assert "the state file was damaged" in error
    assert process.returncode == (1 if command == ["info", "plain"] else 0), output + error
    assert (graph.CACHE.root / ".state.db.damaged").exists()


def doit(cache: Path, *arguments: str, wait: int = 0) -> Popen[bytes]:
    return spawn(
        [sys.executable, "-m", "doit", "--file", REPOSITORY / "tests/fakes/chain_dodo.py", *arguments],
        env={"TOY_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY), "PVMLAB_WAIT_LOCK": str(wait)}, cwd=cache.parent,
        stdout=PIPE, stderr=PIPE,
    )  # fmt: skip


def test_builds_that_meet_run_each_task_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pair in range(20):
        cache = tmp_path / f"cache{pair}"
        builds = [doit(cache, "-n", str(jobs), wait=100) for jobs in (1, 2)]
        for process in builds:
            output, error = process.communicate(timeout=_TIMEOUT)
            assert process.returncode == 0, output + error
        graph = toy(cache, "", monkeypatch)
        lines = graph.JOURNAL.read_text().splitlines()
        assert len(lines) == len(set(lines)) == graph.COUNT + len(graph.PLAIN)


def test_a_build_that_does_not_want_to_wait_says_who_is_there(tmp_path: Path) -> None:
    builds = [doit(tmp_path / "cache") for _ in range(4)]
    ends = [(process.communicate(timeout=_TIMEOUT), process.returncode) for process in builds]
    assert 0 in {code for _, code in ends}
    for (output, error), code in ends:
        assert code in {0, 4}, output + error
        assert code == 0 or b"another build is writing to this cache" in output + error


def test_builds_of_different_caches_do_not_meet(tmp_path: Path) -> None:
    builds = [doit(tmp_path / f"cache{number}") for number in range(3)]
    for process in builds:
        output, error = process.communicate(timeout=_TIMEOUT)
        assert process.returncode == 0, output + error
    first, *others = (digests(tmp_path / f"cache{number}") for number in range(3))
    assert all(other == first for other in others)


def test_a_moved_cache_and_touched_files_build_nothing(graph: ModuleType, tmp_path: Path) -> None:
    lines = graph.JOURNAL.read_text()
    for path in graph.CACHE.root.rglob("*"):
        os.utime(path, (1, 1))
    moved = tmp_path / "moved"
    graph.CACHE.root.rename(moved)
    process = doit(moved, "toy")
    output, error = process.communicate(timeout=_TIMEOUT)
    assert (process.returncode, b"up to date" in output) == (0, True), output + error
    assert not (tmp_path / "moved.journal").exists()
    assert graph.JOURNAL.read_text() == lines


def test_a_copied_cache_builds_nothing(graph: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(graph.CACHE.root, tmp_path / "copy", ignore=shutil.ignore_patterns(".state*"))
    process = doit(tmp_path / "copy", "toy")
    output, error = process.communicate(timeout=_TIMEOUT)
    assert (process.returncode, (tmp_path / "copy.journal").exists()) == (0, False), output + error


def test_programs_of_a_killed_build_are_ended_by_the_next(tmp_path: Path) -> None:
    """Nobody ends them when their build is killed; they would go on and write into the next one's folders."""
    cache = tmp_path / "cache"
    environment = {"TOY_CACHE": str(cache), "TOY_SECONDS": "300", "PYTHONPATH": str(REPOSITORY)}
    cache.mkdir()
    argv: list[str | Path] = [sys.executable, "-m", "doit", "--file", REPOSITORY / "tests/fakes/toy_dodo.py", "toy:a"]
    process = spawn(argv, env=environment, cwd=cache, stdout=PIPE, stderr=PIPE)
    pids = wait_for_sleepers(cache)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=_TIMEOUT)
    assert all(Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" for pid in pids), "orphans live on"
    again = spawn(argv, env=environment | {"TOY_SECONDS": "0"}, cwd=cache, stdout=PIPE, stderr=PIPE)
    output, error = again.communicate(timeout=_TIMEOUT)
    assert again.returncode == 0, output + error
    assert not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_for_sleepers(cache: Path) -> list[int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name, output = (folder / "comm").read_text().strip(), (folder / "fd/2").readlink()
            except OSError:
                continue
            if name == "sleep" and output.is_relative_to(cache):
                found.append(int(folder.name))
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the build did not start its program")


def test_doit_list_and_explain_agree_with_what_runs(graph: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    flip(graph.target(2, "a"), random.Random(2))
    state_of.cache_clear()
    assert DoitMain(ModuleTaskLoader(vars(graph))).run(["list", "--all", "--status", "--quiet"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for mark, name in lines if mark == "R" and ":" in name] == ["toy:02"]
    steps = {step.task: step for step in plan(graph.GRAPH, graph.GRAPH.artifacts)}
    assert [name for name, step in steps.items() if step.verdict is Verdict.RUN] == ["toy:02"]
    assert steps["toy:02"].reasons == ("02/a was changed since it was built",)
    assert steps["toy:04"].verdict is Verdict.PERHAPS
    lines = graph.JOURNAL.read_text().splitlines()
    rebuild(graph.CACHE.root)
    ran = graph.JOURNAL.read_text().splitlines()[len(lines) :]
    assert ran == ["toy:02"], "its bytes came out the same, so nothing after it ran"
    assert json.loads(sidecar_path(graph.target(2, "a")).read_text())["task"] == "toy:02"
