from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from lab import logs, processes, qmp
from lab.machine import Machine, MachineState, QemuStartError, StopOutcome
from lab.network import SwitchNetwork
from lab.spec import Share, WanCard
from pipeline.errors import ConflictError, PvmlabError
from pipeline.workspace import Home
from tests.integration.lab.conftest import MakeMachine, firmware_spec

pytestmark = pytest.mark.vm


def process_id(machine: Machine, home: Home) -> int:
    record = processes.find_record(home.run / f"{machine.name}.json")
    assert record is not None
    assert record.pid is not None
    return record.pid


def wait_for(what: str, condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def leftovers(home: Home) -> list[str]:
    return sorted(path.name for path in home.run.iterdir() if path.suffix in {".json", ".qmp", ".serial"})


def test_a_machine_lives_from_start_to_stop(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    assert machine.state() is MachineState.OFF

    machine.start(spec)

    assert machine.state() is MachineState.RUNNING
    wait_for("firmware on the serial console", lambda: any("BdsDxe" in line for line in machine.serial_tail(50)))
    assert "\x1b" not in "".join(machine.serial_tail(50))
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-status")["status"] == "running"
        assert client.execute("query-uuid")["UUID"] == spec.uuid
    assert home.run.stat().st_mode & 0o777 == 0o700

    began = time.monotonic()
    outcome = machine.stop(timeout=1)  # the firmware does not know the power button
    assert outcome is StopOutcome.QUIT
    assert outcome.forced
    assert time.monotonic() - began < 4
    assert machine.state() is MachineState.OFF
    assert leftovers(home) == ["_switch.json"]
    assert "stopped: switched off" in machine.logs.ours.read_text()
    assert machine.stop(timeout=1) is StopOutcome.ALREADY_OFF


def test_a_killed_qemu_is_a_crash_until_the_next_start(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    machine.start(spec)
    os.kill(process_id(machine, home), signal.SIGKILL)
    wait_for("crash noticed", lambda: machine.state() is MachineState.CRASHED, seconds=2)

    assert leftovers(home) == ["_switch.json", "web1.json"]
    assert machine.state() is MachineState.CRASHED
    assert not machine.is_running()
    assert "crashed" in machine.logs.ours.read_text()

    machine.start(spec)
    assert machine.is_running()
    assert machine.stop(timeout=0, force=True) is StopOutcome.QUIT
    assert machine.state() is MachineState.OFF


def test_a_full_disk_hides_no_crash_and_no_stop(
    make_machine: MakeMachine, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, spec = make_machine("web1")
    machine.start(spec)
    record = machine.process()
    assert record is not None
    processes.send_signal(record, signal.SIGKILL)
    processes.wait_for_end(record, timeout=10)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(processes, "write_record", full)
        patch.setattr(logs, "trim", full)
        assert machine.state() is MachineState.CRASHED
    assert machine.state() is MachineState.CRASHED  # it is still known when there is room again
    assert "crashed" in machine.logs.ours.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(logs, "trim", full)
        assert machine.stop(timeout=0) is StopOutcome.ALREADY_OFF
    assert machine.state() is MachineState.OFF


def test_stop_forgets_a_crash(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    machine.start(spec)
    os.kill(process_id(machine, home), signal.SIGKILL)
    wait_for("crash noticed", lambda: machine.state() is MachineState.CRASHED, seconds=2)
    assert machine.stop(timeout=1) is StopOutcome.ALREADY_OFF
    assert machine.state() is MachineState.OFF


def test_a_guest_that_powers_off_is_off_not_crashed(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    machine.start(spec)
    with qmp.connect(machine.qmp_socket) as client:
        client.execute("quit")  # for the process, the same end as the guest's power-off
    wait_for("end noticed", lambda: machine.state() is MachineState.OFF, seconds=5)
    assert leftovers(home) == ["_switch.json"]


def test_a_stuck_qemu_does_not_hold_us_up(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    machine.start(spec)
    os.kill(process_id(machine, home), signal.SIGSTOP)

    began = time.monotonic()
    with pytest.raises(qmp.QmpTimeoutError), qmp.connect(machine.qmp_socket):
        pass
    assert time.monotonic() - began <= 5
    assert machine.state() is MachineState.RUNNING

    assert machine.stop(timeout=30) is StopOutcome.TERMINATED  # it was let go on, to write what is in its caches
    assert time.monotonic() - began <= 20
    assert leftovers(home) == ["_switch.json"]


def test_of_two_starts_at_once_one_runs(make_machine: MakeMachine, home: Home) -> None:
    _, spec = make_machine("web1")

    def start(_: int) -> str:
        try:
            Machine("web1", home=home).start(spec)
        except ConflictError as error:
            return error.brief
        return "started"

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(start, range(4)))
    assert outcomes == ["started", *["web1 is already running"] * 3]


def test_a_taken_port_is_named(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=rf"web1: port {port} of 127\.0\.0\.1 is taken"):
            machine.start(dataclasses.replace(spec, wan=WanCard(mac="52:54:00:00:01:01", ssh_port=port)))
    assert machine.state() is MachineState.OFF
    assert leftovers(home) == ["_switch.json"]


def test_a_disk_is_never_given_to_two_machines(make_machine: MakeMachine) -> None:
    first, spec = make_machine("web1")
    second, other = make_machine("web2")
    first.start(spec)
    with pytest.raises(ConflictError, match="web2: its disk is in use") as caught:
        second.start(dataclasses.replace(other, disks=spec.disks))
    assert "lock" in caught.value.details


def test_qemu_has_the_last_word_when_it_ends_at_once(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine, spec = make_machine("web1")
    with pytest.raises(QemuStartError) as caught:
        machine.start(dataclasses.replace(spec, shares=(Share("images", tmp_path / "not-there"),)))
    assert "not-there" in caught.value.details
    assert str(machine.logs.qemu) in caught.value.resolution
    assert machine.state() is MachineState.OFF


def test_no_machine_starts_without_its_network(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine, spec = make_machine("web1")
    with pytest.raises(PvmlabError, match="web1: the lab's network is not running"):
        machine.start(dataclasses.replace(spec, lan_socket=tmp_path / "nobody-listens"))
    assert machine.state() is MachineState.OFF


def test_an_interrupted_start_leaves_no_process(
    make_machine: MakeMachine, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, spec = make_machine("web1")
    seen: list[int] = []

    def interrupt(self: Machine, record: processes.ProcessRecord) -> None:
        assert record.pid is not None
        seen.append(record.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(Machine, "_wait_for_monitor", interrupt)
    with pytest.raises(KeyboardInterrupt):
        machine.start(spec)
    assert leftovers(home) == ["_switch.json"]
    assert not Path(f"/proc/{seen[0]}").exists()


def test_a_start_whose_command_died_is_found_again(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    machine.start(spec)
    pid = process_id(machine, home)
    processes.write_record(home.run / "web1.json", processes.ProcessRecord(token=spec.uuid))  # only the intent

    assert machine.is_running()
    with pytest.raises(ConflictError, match="already running"):
        machine.start(spec)
    assert machine.stop(timeout=0, force=True) is StopOutcome.QUIT
    assert not Path(f"/proc/{pid}").exists()


def test_paths_may_be_long_and_awkward(tmp_path: Path) -> None:
    folder = tmp_path / ("a, b=c:d'é" + "x" * (150 - len(str(tmp_path))))
    folder.mkdir()
    home = Home(folder)
    network = SwitchNetwork(home.run)
    machine = Machine("a" * 63, home=home)
    spec = firmware_spec(machine, network.ensure_started(), folder)
    spec = dataclasses.replace(spec, shares=(Share("images", folder),))
    try:
        machine.start(spec)
        assert machine.is_running()
        assert len(os.fsencode(machine.qmp_socket)) <= 103
        assert machine.qmp_socket.parent.stat().st_mode & 0o777 == 0o700
        assert machine.stop(timeout=0, force=True) is StopOutcome.QUIT
        assert machine.logs.serial.exists()
    finally:
        machine.kill()
        network.stop()
    assert not machine.qmp_socket.exists()
    assert not network.socket.exists()


def test_a_specification_of_another_machine_is_refused(make_machine: MakeMachine) -> None:
    machine, _ = make_machine("web1")
    _, other = make_machine("web2")
    with pytest.raises(ValueError, match="not made for web1"):
        machine.start(other)


def test_logs_of_the_last_run_are_kept(make_machine: MakeMachine) -> None:
    machine, spec = make_machine("web1")
    machine.logs.serial.parent.mkdir(parents=True)
    machine.logs.serial.write_text("the run before\n")
    machine.start(spec)
    assert Path(f"{machine.logs.serial}.1").read_text() == "the run before\n"
    assert "the run before" not in machine.logs.serial.read_text()


def test_many_lives_leak_nothing(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    machine.start(spec)
    machine.stop(timeout=0, force=True)
    files, descriptors = sorted(home.run.iterdir()), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        machine.start(spec)
        machine.kill()
    assert sorted(home.run.iterdir()) == files
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_missing_disk_is_an_error_with_qemus_words(make_machine: MakeMachine) -> None:
    machine, spec = make_machine("web1")
    spec.disks[0].path.unlink()
    with pytest.raises(PvmlabError) as caught:
        machine.start(spec)
    assert str(spec.disks[0].path) in caught.value.details


def test_specs_are_what_qemu_runs(make_machine: MakeMachine, home: Home) -> None:
    machine, spec = make_machine("web1")
    machine.start(spec)
    words = Path(f"/proc/{process_id(machine, home)}/cmdline").read_bytes().split(b"\0")
    assert spec.uuid.encode() in words
    status = Path(f"/proc/{process_id(machine, home)}/status").read_text()
    assert "Seccomp:\t2" in status  # the sandbox is on
