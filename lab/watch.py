"""Watching machines: whether their processes are there, and whether they still answer.

A process says that it is there; that it works it says by answering. QEMU can be stopped by a signal (seen at once) or
wedged: its monitor takes a question and never answers (seen when that takes too long). While another command works on
the machine, a snapshot say, QEMU may be silent for long, and that is in order.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import processes
from lab.machine import Machine, MachineState
from pipeline.errors import PvmlabError

ANSWER = 2.0  # seconds that QEMU's monitor may take; it needs a millisecond, on a busy host some tens
_AGAIN = 1.5  # seconds between two questions of one watch: a hang is seen after ANSWER + _AGAIN at most
_THREADS = 16


class MachineStuckError(PvmlabError):
    """A machine's QEMU is there and does not answer."""


class MachineWatch:
    """Watches one machine, cheaply enough for every round of a loop: :meth:`look` asks QEMU now and then only."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._asked = 0.0
        self._answered = True

    def look(self) -> MachineState:
        """Return the machine's state. It takes at most about :data:`ANSWER` seconds, and mostly next to nothing."""
        state = self._machine.state()
        if state is not MachineState.RUNNING:
            return state
        record = self._machine.process()
        if record is not None and processes.is_stopped(record):
            self._asked, self._answered = 0.0, False
            return MachineState.STUCK
        if not self._answered or time.monotonic() - self._asked > _AGAIN:
            self._answered = answers(self._machine)
            self._asked = time.monotonic()
        return MachineState.RUNNING if self._answered else self._silent()

    def require_answer(self, when: str) -> None:
        """Check that the machine, if its process runs at all, answers.

        :param when: completes "stopped answering", for people. :raises MachineStuckError: if it does not.
        """
        if self.look() is MachineState.STUCK:
            name = self._machine.name
            raise MachineStuckError(
                f"the QEMU of {name} does not answer {when}",
                details=why_stuck(self._machine),
                resolution=f"./pvmlab vm.stop {name} --force ends it; ./pvmlab vm.logs {name} --which=qemu shows its "
                "own words",
            )

    def _silent(self) -> MachineState:
        """Return the state of a machine that did not answer: its process may have ended in between."""
        state = self._machine.state()
        return MachineState.STUCK if state is MachineState.RUNNING else state


def look(machine: Machine) -> MachineState:
    """Return the state of *machine*, having asked its QEMU. It takes at most about :data:`ANSWER` seconds."""
    return MachineWatch(machine).look()


def look_at_all(machines: Sequence[Machine]) -> list[MachineState]:
    """Return the states of *machines*, in their order. Those that hang are waited for side by side."""
    states = [machine.state() for machine in machines]
    running = [number for number, state in enumerate(states) if state is MachineState.RUNNING]
    if not running:
        return states
    with ThreadPoolExecutor(min(_THREADS, len(running))) as threads:
        for number, state in zip(running, threads.map(look, [machines[number] for number in running]), strict=True):
            states[number] = state
    return states


def answers(machine: Machine) -> bool:
    """Say whether the machine's QEMU answers, or has a reason not to: another command is at work on it."""
    return machine.answers(timeout=ANSWER) or is_worked_on(machine.work_lock)


def is_worked_on(lock: Path) -> bool:
    """Say whether a command holds *lock*, see :meth:`lab.lab.Lab.starting`. Looking makes nothing."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def why_stuck(machine: Machine) -> str:
    """Return a sentence on why the machine's QEMU does not answer."""
    record = machine.process()
    if record is not None and processes.is_stopped(record):
        return f"its process {record.pid} was stopped by a signal (kill -CONT {record.pid} lets it go on)"
    return f"its monitor did not answer within {ANSWER:g} s: it hangs, or the host is very busy"
