"""Many lives of one machine, whatever ends them: nothing is left of any."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.machine import PortForward
from lab import forwards, qmp, snapshots
from lab.machine import Machine, MachineState
from tests.fakes.idle_machines import IdleLab

FEW, MANY = 20, 1000
LIMIT = 10.0  # seconds


@pytest.fixture
def place(tmp_path: Path) -> Iterator[IdleLab]:
    """A lab without machines."""
    idle = IdleLab(tmp_path)
    yield idle
    idle.end()


def processes_of(place: IdleLab) -> list[str]:
    """Return the command lines of all processes that know of the lab, but for the network's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if any(str(place.lab.home.root) in word for word in words) and "lab.switch" not in words:
                found.append(" ".join(words))
    return found


def open_descriptors() -> list[str]:
    return sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


def end(machine: Machine, number: int) -> None:
    """End a life, each time in another way, and have that noticed."""
    match number % 4:
        case 0:
            machine.stop(timeout=0, force=True)
        case 1:
            machine.kill()
        case 2:  # as its guest's power-off
            with qmp.connect(machine.qmp_socket) as client:
                client.execute("quit")
            wait_for_state(machine, MachineState.OFF)
        case _:
            record = machine.process()
            assert record is not None
            assert record.pid is not None
            os.kill(record.pid, signal.SIGKILL)
            wait_for_state(machine, MachineState.CRASHED)
            machine.stop(timeout=0)


def wait_for_state(machine: Machine, state: MachineState) -> None:
    deadline = time.monotonic() + LIMIT
    while machine.state() is not state:
        assert time.monotonic() < deadline, machine.state()
        time.sleep(0.02)


def live(place: IdleLab, lives: int) -> None:
    definition = place.make("web1", forwards=(PortForward(host=34567, guest=22),))
    place.start("web1").kill()  # what is made once is there now: firmware variables, locks, logs
    snapshots.take(place.lab, definition, "one")
    snapshots.remove(place.lab, definition, "one")
    place.start("web1").kill()
    files, descriptors = sorted(place.lab.home.run.iterdir()), len(open_descriptors())
    for number in range(lives):
        machine = place.start("web1", runs=number % 5 == 4)
        if number % 10 == 4:
            snapshots.take(place.lab, definition, "live")
            snapshots.remove(place.lab, definition, "live")
        if number % 10 == 7:  # (its SSH never answers)
            forwards.ensure(place.lab, definition)
        end(machine, number)
        assert machine.state() is MachineState.OFF
        assert processes_of(place) == []
    assert sorted(path for path in place.lab.home.run.iterdir() if "_forwards" not in path.name) == files
    assert [path.name for path in place.lab.home.run.glob("_forwards*")] == ["_forwards-web1.lock"]
    assert len(open_descriptors()) == descriptors, open_descriptors()
    assert len(list((place.lab.home.disks / "layers").iterdir())) == lives // 10 + 1  # those the disk stands on


def test_twenty_lives_leave_nothing(place: IdleLab) -> None:
    live(place, FEW)


@pytest.mark.nightly
def test_a_thousand_lives_leave_nothing(place: IdleLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.layers.DEEPEST", MANY)
    live(place, MANY)
