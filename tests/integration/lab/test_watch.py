"""QEMUs that die, are stopped, or wedge: noticed in time. None of them runs a guest (tests/fakes/idle_machines.py)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import processes, watch
from lab.machine import HOST_RESTARTED, Machine, MachineState, StopOutcome
from lab.watch import MachineStuckError, MachineWatch
from tests.fakes.idle_machines import IdleLab

MACHINES = 5
DEATH_LIMIT, HANG_LIMIT = 2.0, 5.0  # seconds


@pytest.fixture
def place(tmp_path: Path) -> Iterator[IdleLab]:
    """A lab without machines."""
    idle = IdleLab(tmp_path)
    yield idle
    idle.end()


@pytest.fixture
def machines(place: IdleLab) -> list[Machine]:
    """Some machines that run."""
    names = [f"web{number}" for number in range(MACHINES)]
    for name in names:
        place.make(name)
    return [place.start(name) for name in names]


@pytest.fixture
def machine(place: IdleLab) -> Machine:
    """One machine that runs."""
    place.make("web0")
    return place.start("web0")


def pid_of(machine: Machine) -> int:
    record = machine.process()
    assert record is not None
    assert record.pid is not None
    return record.pid


@contextlib.contextmanager
def wedged(machine: Machine) -> Iterator[None]:
    """Have the machine's monitor answer nobody: QEMU serves one client, and that is us, who say nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(machine.qmp_socket))
        assert silent.recv(4096)  # its greeting: we are served
        yield


def seconds_until(look: MachineWatch, state: MachineState) -> float:
    began = time.monotonic()
    while look.look() is not state:
        assert time.monotonic() - began < 20, f"{state} was not seen"
        time.sleep(0.05)
    return time.monotonic() - began


def check_deaths(place: IdleLab, machines: list[Machine], rounds: int) -> None:
    for _ in range(rounds):
        for machine in machines:
            look = MachineWatch(machine)
            assert look.look() is MachineState.RUNNING
            os.kill(pid_of(machine), signal.SIGKILL)
            assert seconds_until(look, MachineState.CRASHED) <= DEATH_LIMIT
            place.start(machine.name)


def check_stops(machines: list[Machine], rounds: int) -> None:
    for _ in range(rounds):
        for machine in machines:
            look = MachineWatch(machine)
            assert look.look() is MachineState.RUNNING
            os.kill(pid_of(machine), signal.SIGSTOP)
            assert seconds_until(look, MachineState.STUCK) <= HANG_LIMIT
            assert f"kill -CONT {pid_of(machine)}" in watch.why_stuck(machine)
            os.kill(pid_of(machine), signal.SIGCONT)
            assert seconds_until(look, MachineState.RUNNING) <= HANG_LIMIT


def check_wedges(machines: list[Machine], rounds: int) -> None:
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            watches = [MachineWatch(machine) for machine in machines]
            assert {look.look() for look in watches} == {MachineState.RUNNING}
            for machine in machines:
                stack.enter_context(wedged(machine))
            began = time.monotonic()
            assert set(watch.look_at_all(machines)) == {MachineState.STUCK}  # side by side, so all of them in time
            assert time.monotonic() - began <= HANG_LIMIT
            assert seconds_until(watches[0], MachineState.STUCK) <= HANG_LIMIT
        assert set(watch.look_at_all(machines)) == {MachineState.RUNNING}


def test_deaths_stops_and_wedges_are_noticed_in_time(place: IdleLab, machines: list[Machine]) -> None:
    check_deaths(place, machines, 2)
    check_stops(machines, 2)
    check_wedges(machines, 2)


@pytest.mark.nightly
def test_a_hundred_deaths_stops_and_wedges_are_noticed_in_time(place: IdleLab, machines: list[Machine]) -> None:
    check_deaths(place, machines, 10)
    check_stops(machines, 10)
    check_wedges(machines, 10)


def test_a_stuck_machine_is_an_error_that_says_what_to_do(machine: Machine) -> None:
    MachineWatch(machine).require_answer("while it booted")
    os.kill(pid_of(machine), signal.SIGSTOP)
    with pytest.raises(MachineStuckError, match="the QEMU of web0 does not answer while it booted") as caught:
        MachineWatch(machine).require_answer("while it booted")
    assert "was stopped by a signal" in caught.value.details
    assert "vm.stop web0 --force" in caught.value.resolution
    assert machine.stop(timeout=30) is StopOutcome.TERMINATED  # it was let go on for that
    MachineWatch(machine).require_answer("at all")  # off: others say that


def test_a_machine_that_somebody_works_on_may_be_silent(place: IdleLab, machine: Machine) -> None:
    with wedged(machine):
        with place.lab.starting("web0"):
            assert watch.look(machine) is MachineState.RUNNING
        assert watch.look(machine) is MachineState.STUCK
        assert "its monitor did not answer" in watch.why_stuck(machine)


def test_qemu_keeps_its_pid_file_locked(machine: Machine) -> None:
    with machine.pid_file.open("r+") as file:
        assert processes._lock_holder(file.fileno()) == pid_of(machine)
        assert int(file.read()) == pid_of(machine)
    machine.kill()
    assert not machine.pid_file.exists()


def test_a_machine_of_before_the_hosts_restart_has_crashed_and_says_why(place: IdleLab) -> None:
    place.make("web1")
    machine = place.start("web1")
    record = machine.process()
    assert record is not None
    machine.kill()
    bystander = processes.ProcessRecord(**vars(record) | {"boot_id": "00000000-0000-4000-8000-000000000000"})
    processes.write_record(place.lab.home.run / "web1.json", bystander)
    assert machine.state() is MachineState.CRASHED
    assert machine.crash_reason() == HOST_RESTARTED
    assert "crashed: the host was restarted" in machine.logs.ours.read_text()
    assert place.start("web1").state() is MachineState.RUNNING
    assert machine.crash_reason() == ""
