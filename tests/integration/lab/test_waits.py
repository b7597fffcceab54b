"""Waits for a machine whose real QEMU ends or hangs in the middle of a remote loop: they end soon, and say so."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.machine import SshHostKey, VmDefinition
from lab import provisioner, ssh
from lab.follow import Follower, MachineEndedError
from lab.lab import Lab
from lab.machine import Machine
from lab.progress import PlainReporter
from lab.wait import Deadline
from lab.watch import MachineStuckError
from pipeline.run import Completed, run
from pipeline.workspace import Cache, Home, Workspace
from tests.integration.lab.conftest import MakeMachine

KEY = SshHostKey(private="-----BEGIN OPENSSH PRIVATE KEY-----\n", public="ssh-ed25519 AAAA x")


@pytest.fixture
def pid(make_machine: MakeMachine, home: Home) -> int:
    """The process of a machine that runs its firmware."""
    machine, spec = make_machine("web1")
    machine.start(spec)
    record = machine.process()
    assert record is not None
    assert record.pid is not None
    return record.pid


@pytest.fixture
def wait(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Wait for a login by a remote loop that takes a minute, with a provisioner that is well."""

    class Well(Machine):
        def is_running(self) -> bool:
            return True

    def run_on(_lab: Lab, _name: str, *_: object, watch: Callable[[], None], **__: object) -> Completed:
        return run(["sleep", "60"], timeout=90, watch=watch)

    lab = Lab(Workspace(Cache(tmp_path / "cache"), home))
    monkeypatch.setattr(Lab, "provisioner", property(lambda self: Well("provisioner", home=home)))
    monkeypatch.setattr(provisioner, "find_announcement", lambda _lab: None)
    monkeypatch.setattr(ssh, "run_on", run_on)
    definition = VmDefinition(
        name="web1", arch=Arch.X86_64, distro="debian-12", mac="52:54:00:00:00:01", ip="192.168.100.2",
        uuid="00000000-0000-4000-8000-000000000001", ssh_authorized_keys=(KEY.public,), ssh_host_key=KEY,
    )  # fmt: skip
    follower = Follower(lab, definition, PlainReporter(io.StringIO()), 5.0, Deadline(80))
    return follower.wait_for_login


@pytest.fixture
def later() -> Iterator[Callable[[int, signal.Signals], Callable[[], float]]]:
    """Send a signal in a moment; return what tells how long ago that was."""
    timers: list[threading.Timer] = []

    def send(pid: int, number: signal.Signals) -> Callable[[], float]:
        sent: list[float] = []

        def fire() -> None:
            sent.append(time.monotonic())
            os.kill(pid, number)

        timers.append(threading.Timer(0.7, fire))
        timers[-1].start()
        return lambda: time.monotonic() - sent[0]

    yield send
    for timer in timers:
        timer.join()


def test_the_death_of_qemu_is_seen_within_two_seconds(
    pid: int, wait: Callable[[], None], later: Callable[[int, signal.Signals], Callable[[], float]]
) -> None:
    since = later(pid, signal.SIGKILL)
    with pytest.raises(MachineEndedError, match=r"the QEMU of web1 ended while it booted from its disk"):
        wait()
    assert since() < 2


def test_a_qemu_that_was_stopped_is_seen_within_five_seconds(
    pid: int, wait: Callable[[], None], later: Callable[[int, signal.Signals], Callable[[], float]]
) -> None:
    since = later(pid, signal.SIGSTOP)
    with pytest.raises(MachineStuckError, match=r"the QEMU of web1 does not answer while it booted"):
        wait()
    assert since() < 5
    os.kill(pid, signal.SIGCONT)
