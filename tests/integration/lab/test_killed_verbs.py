"""Verbs whose command is killed at any moment: nothing is lost or half-made, and the next one works."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import nocloud
from lab import qmp, snapshot_store, snapshots, target
from lab.store import DefinitionStore
from pipeline.run import PIPE, Popen, spawn
from pipeline.workspace import REPOSITORY
from tests.fakes.idle_machines import IdleLab
from tests.fakes.installed_disks import read_files, system_files, write_installed_disk

SOME, MANY = 12, 120


class Worker:
    """The process whose children are killed."""

    def __init__(self, home: Path) -> None:
        argv = [sys.executable, "-m", "tests.fakes.deadly_work", str(home)]
        env = {"PVMLAB_ACCEL": "tcg"}
        self._process: Popen[bytes] = spawn(argv, stdin=PIPE, stdout=PIPE, cwd=REPOSITORY, env=env)

    def kill_at(self, what: str, name: str, seconds: float) -> bool:
        """Have *what* done and kill it after *seconds*; return whether it was done before that."""
        child = int(self._say(f"{what} {name}"))
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # it is not reaped before that
        return int(self._say("reap")) == 0

    def carry_out(self, what: str, name: str) -> bool:
        """Have *what* done, undisturbed; return whether that went well."""
        self._say(f"{what} {name}")
        return int(self._say("reap")) == 0

    def close(self) -> None:
        self._process.communicate(timeout=30)

    def _say(self, words: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{words}\n".encode())
        self._process.stdin.flush()
        return self._process.stdout.readline().decode()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[IdleLab]:
    """A lab with web1, which has a snapshot."""
    idle = IdleLab(tmp_path)
    definition = idle.make("web1")
    files = system_files("web1", {kind: make(definition, idle.lab.lan) for kind, make in nocloud.DOCUMENTS.items()})
    write_installed_disk(target.disk_path(idle.lab, "web1"), files)
    snapshots.take(idle.lab, definition, "start")
    yield idle
    idle.end()


@pytest.fixture
def worker(place: IdleLab) -> Iterator[Worker]:
    """A worker in that lab."""
    process = Worker(place.lab.home.root)
    yield process
    process.close()


def duration(worker: Worker, what: str, name: str) -> float:
    """Return the seconds that *what* takes here and now, undisturbed."""
    began = time.monotonic()
    assert worker.carry_out(what, name)
    return time.monotonic() - began


def check_offline(place: IdleLab, worker: Worker, rounds: int) -> int:
    """Kill snapshots, restores and clones of a machine that is off; return how many were in the middle."""
    definition, chance, cut = DefinitionStore(place.lab).load("web1"), random.Random(11), 0
    disk = target.disk_path(place.lab, "web1")
    longest = {what: duration(worker, what, "first") for what in ("snapshot", "restore", "clone")}
    for number in range(rounds):
        what = ("snapshot", "restore", "clone")[number % 3]
        name = f"x{number}"
        done = worker.kill_at(what, name, chance.uniform(0, longest[what]))
        cut += not done
        snapshots.restore(place.lab, definition, "start", place.accelerator)
        assert read_files(disk, 5 << 20, {"etc/hostname": ""}) == {"etc/hostname": "web1\n"}
        assert not snapshot_store.needs_care(place.lab.home, "web1")
        for left in [each.name for each in snapshot_store.list_snapshots(place.lab.home, "web1") if each.name == name]:
            snapshots.restore(place.lab, definition, left, place.accelerator)
            snapshots.remove(place.lab, definition, left)
        if what == "clone":
            if name not in DefinitionStore(place.lab).names():
                assert not done
                assert worker.carry_out(what, name)
            found = read_files(target.disk_path(place.lab, name), 5 << 20, {"etc/hostname": ""})
            assert found == {"etc/hostname": f"{name}\n"}
            target.clean(place.lab, name)
    return cut


def check_changes(place: IdleLab, worker: Worker, rounds: int) -> int:
    """Kill changes of web1's definition, and removals of clones of it; return how many were in the middle."""
    store, chance, cut = DefinitionStore(place.lab), random.Random(17), 0
    before = store.load("web1")
    assert worker.carry_out("clone", "first")
    longest = {"set": duration(worker, "set", "first"), "clean": duration(worker, "clean", "first")}
    for number in range(rounds):
        name, what = f"x{number}", ("set", "clean")[number % 2]
        if what == "clean":
            assert worker.carry_out("clone", name)
        cut += not worker.kill_at(what, name, chance.uniform(0, longest[what]))
        now = store.load("web1")
        assert dataclasses.replace(now, labels=()) == before
        assert [label.key for label in now.labels] in ([], ["round"])
        if what == "clean":
            if store.exists(name):
                assert worker.carry_out("clean", name)
            left = [path.name for path in place.lab.home.root.rglob(f"*{name}*") if path.suffix != ".lock"]
            assert not [each for each in left if re.search(rf"\b{name}\b", each)]
        assert worker.carry_out("set", "whole")
        assert [label.value for label in store.load("web1").labels] == ["whole"]
    snapshots.restore(place.lab, before, "start", place.accelerator)
    found = read_files(target.disk_path(place.lab, "web1"), 5 << 20, {"etc/hostname": ""})
    assert found == {"etc/hostname": "web1\n"}
    return cut


def check_live(place: IdleLab, worker: Worker, rounds: int) -> int:
    """Kill snapshots of a machine that runs; return how many were in the middle."""
    definition, chance, cut = DefinitionStore(place.lab).load("web1"), random.Random(13), 0
    machine = place.start("web1", runs=True)
    longest = duration(worker, "snapshot", "first")
    for number in range(rounds):
        cut += not worker.kill_at("snapshot", f"y{number}", chance.uniform(0, longest))
        snapshots.recover(place.lab, "web1")
        with qmp.connect(machine.qmp_socket) as client:
            assert client.execute("query-status")["status"] == "running"
        if number % 4 == 3:  # the next command, and what the killed ones left is swept with it
            snapshots.take(place.lab, definition, f"z{number}")
            snapshots.restore(place.lab, definition, f"z{number}", place.accelerator)
            for each in snapshot_store.list_snapshots(place.lab.home, "web1")[1:]:
                snapshots.remove(place.lab, definition, each.name)
            snapshots.restore(place.lab, definition, "start", place.accelerator)  # or its disk gets ever more layers
            place.start("web1", runs=True)
    machine.kill()
    snapshots.restore(place.lab, definition, "start", place.accelerator)
    found = read_files(target.disk_path(place.lab, "web1"), 5 << 20, {"etc/hostname": ""})
    assert found == {"etc/hostname": "web1\n"}
    return cut


def test_killed_work_on_a_machine_that_is_off(place: IdleLab, worker: Worker) -> None:
    assert check_offline(place, worker, SOME) > SOME // 4


def test_killed_changes_and_removals(place: IdleLab, worker: Worker) -> None:
    assert check_changes(place, worker, SOME) > SOME // 4


def test_killed_snapshots_of_a_machine_that_runs(place: IdleLab, worker: Worker) -> None:
    assert check_live(place, worker, SOME) > SOME // 4


@pytest.mark.nightly
def test_much_killed_work_on_a_machine_that_is_off(place: IdleLab, worker: Worker) -> None:
    assert check_offline(place, worker, MANY) > MANY // 4


@pytest.mark.nightly
def test_many_killed_changes_and_removals(place: IdleLab, worker: Worker) -> None:
    assert check_changes(place, worker, MANY) > MANY // 4


@pytest.mark.nightly
def test_many_killed_snapshots_of_a_machine_that_runs(place: IdleLab, worker: Worker) -> None:
    assert check_live(place, worker, MANY) > MANY // 4
