"""The verbs of snapshots, clones and forwards, each several times at once: one does it, or all agree."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contracts import nocloud
from contracts.machine import PortForward, VmDefinition
from lab import clones, forwards, snapshot_store, snapshots, target
from lab.clones import CloneRequest
from lab.machine import MachineState
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, NotFoundError
from tests.fakes.idle_machines import IdleLab
from tests.fakes.installed_disks import system_files, write_installed_disk

AT_ONCE = 5


@pytest.fixture
def place(tmp_path: Path) -> Iterator[IdleLab]:
    """A lab with web1, installed."""
    idle = IdleLab(tmp_path)
    definition = idle.make("web1")
    write_installed_disk(target.disk_path(idle.lab, "web1"), system_files("web1", documents(idle, definition)))
    yield idle
    idle.end()


def documents(place: IdleLab, definition: VmDefinition) -> dict[str, str]:
    return {kind: make(definition, place.lab.lan) for kind, make in nocloud.DOCUMENTS.items()}


def all_at_once(work: Callable[[int], object], count: int = AT_ONCE) -> list[str]:
    """Have *work* done several times at once; return what became of each, in no order."""

    def attempt(number: int) -> str:
        try:
            work(number)
        except ConflictError as error:
            return error.brief
        return "done"

    with ThreadPoolExecutor(count) as threads:
        return sorted(threads.map(attempt, range(count)))


def test_one_snapshot_of_a_name_is_taken(place: IdleLab) -> None:
    definition = DefinitionStore(place.lab).load("web1")
    said = all_at_once(lambda _: snapshots.take(place.lab, definition, "one"))
    assert said == ["done", *["web1 has a snapshot 'one' already"] * (AT_ONCE - 1)]
    assert len(snapshot_store.list_snapshots(place.lab.home, "web1")) == 1


def test_snapshots_and_restores_take_turns(place: IdleLab) -> None:
    definition = DefinitionStore(place.lab).load("web1")
    snapshots.take(place.lab, definition, "start")

    def work(number: int) -> None:
        if number % 2:
            snapshots.restore(place.lab, definition, "start", place.accelerator)
        else:
            snapshots.take(place.lab, definition, f"s{number}")

    assert all_at_once(work) == ["done"] * AT_ONCE
    for each in snapshot_store.list_snapshots(place.lab.home, "web1"):
        snapshots.restore(place.lab, definition, each.name, place.accelerator)
    assert not snapshot_store.needs_care(place.lab.home, "web1")


def test_one_clone_of_a_name_is_made_and_those_of_others_are_all_different(place: IdleLab) -> None:
    def clone(name: str) -> None:
        request = CloneRequest(source="web1", name=name)
        clones.clone(place.lab, request, documents=lambda definition: documents(place, definition))

    # few: on a busy host the last of many would wait too long for its turn, and say so
    assert all_at_once(lambda _: clone("same"), 3) == ["done", *["there is a machine 'same' already"] * 2]
    assert all_at_once(lambda number: clone(f"c{number}"), 3) == ["done"] * 3
    machines = DefinitionStore(place.lab).load_all()
    assert len(machines) == 3 + 2
    for field in ("uuid", "mac", "ip", "ssh_host_key"):
        assert len({getattr(machine, field) for machine in machines}) == len(machines), field


def test_one_machine_gets_a_port(place: IdleLab) -> None:
    for number in range(AT_ONCE):
        place.make(f"m{number}")
    said = all_at_once(lambda number: forwards.add(place.lab, f"m{number}", PortForward(host=23456, guest=80)))
    assert said.count("done") == 1
    assert all(word == "done" or "leads to port 80 of m" in word for word in said)


def test_a_machine_that_is_removed_while_it_is_started_is_gone(place: IdleLab) -> None:
    definition, machine = place.make("m1"), place.lab.machine("m1")
    with ThreadPoolExecutor(1) as threads:
        with place.lab.starting("m1"):  # as vm.start does
            removal = threads.submit(target.clean, place.lab, "m1")
            spec = target.prepare(place.lab, definition, place.accelerator)
            time.sleep(0.5)
            machine.start(dataclasses.replace(spec, paused=True))
            assert not removal.done()
        removal.result(timeout=30)
    assert machine.process() is None
    assert not DefinitionStore(place.lab).exists("m1")
    assert not list(place.lab.home.disks.glob("m1*"))
    with pytest.raises(NotFoundError):  # one that comes later finds nothing to start
        target.start(place.lab, definition, place.accelerator)
    assert not list(place.lab.home.disks.glob("m1*"))


def test_a_machine_may_be_removed_several_times_at_once(place: IdleLab) -> None:
    place.make("m1")
    place.start("m1")

    def remove(_number: int) -> None:
        with contextlib.suppress(NotFoundError):  # who comes late finds none
            target.clean(place.lab, "m1")

    assert all_at_once(remove) == ["done"] * AT_ONCE
    assert place.lab.machine("m1").process() is None


def test_a_machine_may_be_stopped_several_times_at_once(place: IdleLab) -> None:
    place.make("m1")
    machine = place.start("m1")
    assert all_at_once(lambda _: machine.stop(timeout=0, force=True)) == ["done"] * AT_ONCE
    assert machine.state() is MachineState.OFF
