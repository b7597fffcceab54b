"""Sitting at a console, through the real command line on a real (pseudo) terminal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import console
from lab.console import Terminal
from lab.machine import Machine
from pipeline.errors import UsageError
from pipeline.run import PIPE, Popen, spawn
from pipeline.workspace import REPOSITORY
from tests.fakes.idle_machines import IdleLab

LIMIT = 60.0  # seconds


class Person:
    """Somebody with a terminal who typed a command."""

    def __init__(self, place: IdleLab, *words: str) -> None:
        self._screen, self._keyboard = os.openpty()
        os.set_blocking(self._screen, False)
        self.before = termios.tcgetattr(self._keyboard)
        self.seen = ""
        env = {"PVMLAB_HOME": str(place.lab.home.root), "PVMLAB_CACHE": str(place.lab.cache.root), "TERM": "xterm"}
        argv = [sys.executable, "-m", "cli", *words]
        keyboard = os.fdopen(os.dup(self._keyboard), "r+b", buffering=0)
        with keyboard:
            self.process: Popen[bytes] = spawn(
                argv, stdin=keyboard, stdout=keyboard, stderr=PIPE, env=env, cwd=REPOSITORY
            )

    def type(self, keys: bytes) -> None:
        while keys:
            assert select.select([], [self._screen], [], LIMIT)[1], "nobody reads what is typed"
            keys = keys[os.write(self._screen, keys) :]

    def close_window(self) -> None:
        """Have the terminal be gone, as when its window is closed."""
        os.close(self._keyboard)
        os.close(self._screen)
        self._screen = self._keyboard = -1

    def wait_to_see(self, what: str) -> None:
        self._look(lambda: what in self.seen, what)

    def wait_for_end(self) -> tuple[int, str]:
        """Return how the command ended, and what it said on standard error."""
        self._look(lambda: self.process.poll() is not None, "the end")
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            return self.process.returncode, stream.read().decode()

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._keyboard)[3] & termios.ECHO

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._keyboard) == self.before

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        if self._screen >= 0:
            os.close(self._screen)
            os.close(self._keyboard)

    def _look(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            late = f"{what} did not come; seen: {self.seen!r}; it ended: {self.process.poll()}"
            assert time.monotonic() < deadline, late
            if self._screen < 0:
                time.sleep(0.05)
            elif select.select([self._screen], [], [], 0.1)[0]:
                self.seen += os.read(self._screen, 65536).decode(errors="replace")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[IdleLab]:
    """A lab without machines."""
    idle = IdleLab(tmp_path)
    yield idle
    idle.end()


@pytest.fixture
def machine(place: IdleLab) -> Machine:
    """A machine that runs, and whose console has said something."""
    place.make("web1")
    machine = place.start("web1")
    machine.logs.serial.write_bytes(b"\x1b[2J\x1b[1mDebian GNU/Linux 12 web1 ttyS0\x1b[0m\r\n\r\nweb1 login: ")
    return machine


@pytest.fixture
def sit(place: IdleLab, machine: Machine) -> Iterator[Callable[[], Person]]:
    """Have somebody sit down at the console."""
    people: list[Person] = []

    def start() -> Person:
        people.append(Person(place, "vm.console", "web1"))
        return people[-1]

    yield start
    for person in people:
        person.close()


def test_recent_words_are_shown_and_ctrl_bracket_leaves(sit: Callable[[], Person]) -> None:
    person = sit()
    person.wait_to_see("web1 login:")
    assert "[console of web1: Ctrl-] leaves" in person.seen
    assert "Debian GNU/Linux 12 web1 ttyS0\r\n" in person.seen
    assert person.is_raw
    person.type(b"ls\x03\x1a\x1d")  # Ctrl-C and Ctrl-Z are the machine's
    code, said = person.wait_for_end()
    assert (code, said) == (0, "web1: left\n")
    assert person.is_as_before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGHUP, 130), (signal.SIGINT, 130)])
def test_the_terminal_is_as_before_whatever_ends_it(sit: Callable[[], Person], number: int, code: int) -> None:
    person = sit()
    person.wait_to_see("login:")
    assert person.is_raw
    os.kill(person.process.pid, number)
    assert person.wait_for_end()[0] == code
    assert person.is_as_before


def test_the_size_of_the_terminal_may_change(sit: Callable[[], Person]) -> None:
    person = sit()
    person.wait_to_see("login:")
    termios.tcsetwinsize(person._screen, (50, 132))
    os.kill(person.process.pid, signal.SIGWINCH)
    person.type(b"\x1d")
    assert person.wait_for_end()[0] == 0


def test_it_ends_with_the_machine(sit: Callable[[], Person], machine: Machine) -> None:
    person = sit()
    person.wait_to_see("login:")
    machine.kill()
    assert person.wait_for_end() == (0, "web1: the machine has ended\n")
    assert person.is_as_before


def test_it_ends_with_the_window_of_the_terminal(sit: Callable[[], Person]) -> None:
    person = sit()
    person.wait_to_see("login:")
    person.close_window()
    assert person.wait_for_end() == (0, "web1: the terminal was closed\n")


def test_it_can_be_left_when_the_machine_takes_no_keys(sit: Callable[[], Person]) -> None:
    person = sit()  # its processors stand still: nobody reads its serial port
    person.wait_to_see("login:")
    for _ in range(400):
        person.type(b"x" * 1024)
    person.type(b"\x1d")
    assert person.wait_for_end() == (0, "web1: left\n")


def test_somebody_without_a_name_can_sit_there(
    place: IdleLab, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    with console._seat("web1", place.lab.home.run):
        assert f"user {os.getuid()} (process {os.getpid()}" in console._holder(
            place.lab.home.run / "_console-web1.json"
        )


def test_there_is_one_seat_and_the_second_person_is_told_who_has_it(sit: Callable[[], Person]) -> None:
    first = sit()
    first.wait_to_see("login:")
    code, said = sit().wait_for_end()
    assert code == 4
    assert f"(process {first.process.pid}, since " in said
    assert "sits at the console of web1" in said
    os.kill(first.process.pid, signal.SIGKILL)  # the seat is free without anybody's doing
    first.wait_for_end()
    second = sit()
    second.wait_to_see("login:")
    second.type(b"\x1d")
    assert second.wait_for_end()[0] == 0


def test_another_program_at_the_socket_is_noticed(sit: Callable[[], Person], machine: Machine) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.connect(str(machine.serial_socket))
        code, said = sit().wait_for_end()
    assert code == 4
    assert "another program is connected to the console of web1" in said


def test_a_machine_that_is_off_or_stuck_has_no_console(place: IdleLab, sit: Callable[[], Person]) -> None:
    machine = place.lab.machine("web1")
    record = machine.process()
    assert record is not None
    assert record.pid is not None
    os.kill(record.pid, signal.SIGSTOP)
    assert "web1 does not answer" in sit().wait_for_end()[1]
    machine.kill()
    code, said = sit().wait_for_end()
    assert (code, "web1 is off" in said) == (4, True)


def test_without_a_terminal_there_is_no_console(place: IdleLab, machine: Machine) -> None:
    with Path(os.devnull).open("r+b") as null, pytest.raises(UsageError, match="wants a terminal"):
        console.sit_at(machine, Terminal(null.fileno(), null.fileno()), run_folder=place.lab.home.run)


@pytest.mark.vm
def test_keys_reach_the_machine_and_its_words_the_person(place: IdleLab) -> None:
    place.make("web1")
    place.start("web1", runs=True)  # its firmware finds nothing to boot, and gives a shell
    person = Person(place, "vm.console", "web1")
    try:
        person.wait_to_see("in 5 seconds to skip")
        person.type(b"\x1b")
        person.wait_to_see("Shell>")
        person.type(b"echo pvm%cwd%lab\r")
        person.wait_to_see("pvmlab\r\n")
        person.type(b"\x1d")
        assert person.wait_for_end()[0] == 0
        assert person.is_as_before
    finally:
        person.close()
