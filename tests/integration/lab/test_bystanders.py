"""Records and pid files that are stale: whatever process they name now, it is not ours, and nothing happens to it."""

from __future__ import annotations

import dataclasses
import fcntl
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import processes
from lab.machine import Machine, MachineState, StopOutcome
from lab.processes import ProcessRecord
from lab.sockets import ensure_private
from pipeline.run import PIPE, Popen, spawn
from pipeline.workspace import Home

RECORDS, BYSTANDERS = 100, 5

# Says every signal that it gets, and goes on. Its last argument is what a machine's UUID would be.
_PROGRAM = """
import signal, sys
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, lambda number, _: print("signal", number, flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"""


@dataclasses.dataclass(frozen=True)
class Bystander:
    """A process that is none of ours, and the record that would name it beyond doubt if it were."""

    process: Popen[bytes]
    record: ProcessRecord


@pytest.fixture
def bystanders() -> Iterator[list[Bystander]]:
    """Real processes."""
    started = [spawn([sys.executable, "-c", _PROGRAM, f"token-{number}"], stdout=PIPE) for number in range(BYSTANDERS)]
    found = []
    for number, process in enumerate(started):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        record = ProcessRecord(
            token=f"token-{number}",
            pid=process.pid,
            start_time=processes._start_time(process.pid),
            boot_id=processes.host_boot_id(),
        )
        assert processes.is_alive(record)
        found.append(Bystander(process, record))
    yield found
    for process in started:
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b"", "it got a signal"
        process.wait()
        process.stdout.close()


def stale_records(bystander: ProcessRecord, lock: Path) -> list[ProcessRecord]:
    """Return records of our machines that are gone and whose process id is the bystander's by now."""
    return [
        dataclasses.replace(bystander, token="00000000-0000-4000-8000-000000000001"),  # its command line is another
        dataclasses.replace(bystander, start_time="1"),  # it was started later
        dataclasses.replace(bystander, boot_id="00000000-0000-4000-8000-000000000000"),  # in another boot of the host
        dataclasses.replace(bystander, lock_file=str(lock)),  # somebody else holds our lock
        dataclasses.replace(bystander, start_time=None),
    ]


def test_a_hundred_stale_records_harm_no_bystander(bystanders: list[Bystander], tmp_path: Path) -> None:
    home = Home(tmp_path)
    ensure_private(home.run)
    home.logs.mkdir()
    chance = random.Random(7)
    held = home.run / "held.pid"
    holder = spawn([sys.executable, "-c", _HOLDER, str(held)], stdout=PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    try:
        for number in range(RECORDS):
            bystander = bystanders[number % BYSTANDERS]
            record = stale_records(bystander.record, held)[number // BYSTANDERS % 5]
            machine = Machine(f"web{number}", home=home)
            processes.write_record(home.run / f"{machine.name}.json", record)
            machine.pid_file.write_text(f"{bystander.process.pid}\n")
            assert not processes.is_alive(record), record
            match chance.randrange(4):
                case 0:
                    machine.state()
                case 1:
                    machine.stop(timeout=1)
                case 2:
                    machine.stop(timeout=0, force=True)
                case _:
                    machine.kill()
            assert machine.stop(timeout=0, force=True) is StopOutcome.ALREADY_OFF
            assert machine.state() is MachineState.OFF
            assert bystander.process.poll() is None
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not list(home.run.glob("web*.json"))
    assert not list(home.run.glob("web*.pid"))


_HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(1000)
"""


def test_the_right_record_is_found_alive_with_its_lock(bystanders: list[Bystander], tmp_path: Path) -> None:
    record = dataclasses.replace(bystanders[0].record, lock_file=str(tmp_path / "gone.pid"))
    assert processes.is_alive(record)  # a lock file that is gone says nothing
    (tmp_path / "gone.pid").touch()
    assert processes.is_alive(record)  # nor does one that nobody has locked
    with (tmp_path / "gone.pid").open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert processes.is_alive(record)  # by ourselves: the kernel tells of others only
