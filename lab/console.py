"""Sitting at the serial console of a machine: a raw terminal on QEMU's socket, one person at a time.

Ctrl-] leaves, as in telnet; every other key goes to the machine, Ctrl-C and Ctrl-Z too. However it ends, the terminal
is as it was before. A serial line knows nothing of the terminal's size: changing that is harmless, and
``stty rows ROWS cols COLUMNS`` tells the guest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import errno
import getpass
import json
import os
import select
import socket
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from lab import logs, processes, qmp
from lab.machine import Machine
from pipeline import commit
from pipeline.errors import ConflictError, PvmlabError, UsageError

LEAVE = b"\x1d"  # Ctrl-]
_RECENT = 24  # lines shown first
_CONNECT = 4.0  # seconds
_READ = 65536
_MOST_WAITING = 1 << 16  # bytes that were typed and not taken; what comes after them is lost, as on a serial line
_ENDED, _CLOSED = "the machine has ended", "the terminal was closed"
# What a guest's programs may have switched on: colours, hidden cursor, bracketed paste, mouse reports (xterm's
# ctlseqs). The other screen is left only if it was entered: doing so moves the cursor.
_RESET = b"\x1b[0m\x1b[?25h\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1006l"
_ENTER_OTHER, _LEAVE_OTHER = b"\x1b[?1049h", b"\x1b[?1049l"


@dataclasses.dataclass(frozen=True)
class Terminal:
    """The descriptors of a person's terminal: its keyboard and its screen."""

    keyboard: int
    screen: int

    def require(self) -> None:
        """Check that there is a person. :raises UsageError: if not."""
        if not (os.isatty(self.keyboard) and os.isatty(self.screen)):
            raise UsageError(
                "a console wants a terminal on standard input and output",
                resolution="./pvmlab vm.logs NAME --follow shows what the console says, without one",
            )


def sit_at(machine: Machine, terminal: Terminal, *, run_folder: Path) -> str:
    """Connect *terminal* to the machine's serial console until the person leaves or the machine ends.

    :param run_folder: the lab's, for the lock. :return: how it ended, for people.
    :raises UsageError: if that is no terminal.
    :raises ConflictError: if the machine is off or does not answer, or somebody else sits there.
    """
    terminal.require()
    if machine.process() is None:
        raise ConflictError(f"{machine.name} is off", resolution=f"./pvmlab vm.start {machine.name} --interactive")
    with _seat(machine.name, run_folder):
        _require_free(machine)
        seen = machine.logs.serial.stat().st_size if machine.logs.serial.exists() else 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line, _raw(terminal):
            line.settimeout(_CONNECT)
            try:
                line.connect(str(machine.serial_socket))
            except OSError as error:
                raise ConflictError(f"the console of {machine.name} is not there", details=str(error)) from None
            _write(terminal.screen, _greeting(machine, seen))
            return _pass_on(line, terminal)


def _greeting(machine: Machine, end: int) -> bytes:
    recent = logs.tail(machine.logs.serial, _RECENT, end=end)
    head = f"[console of {machine.name}: Ctrl-] leaves; its last words:]"
    return "".join(f"{line}\r\n" for line in (head, *recent)).encode(errors="replace")


def _pass_on(line: socket.socket, terminal: Terminal) -> str:
    """Pass bytes on in both directions until one side ends; return why, for people."""
    screen = _Screen(terminal.screen)
    try:
        return _pass_keys_and_words(line, terminal.keyboard, screen)
    except ConnectionError:
        return _ENDED
    except OSError as error:
        if error.errno != errno.EIO:  # what a terminal says whose window is gone
            raise
        return _CLOSED
    finally:
        with contextlib.suppress(OSError):
            screen.reset()


def _pass_keys_and_words(line: socket.socket, keyboard: int, screen: _Screen) -> str:
    """Do what :func:`_pass_on` does. Keys that the machine does not take wait: whatever it does, Ctrl-] is seen."""
    line.settimeout(0)
    waiting, poll = b"", select.poll()
    poll.register(keyboard, select.POLLIN)
    while True:
        poll.register(line, select.POLLIN | (select.POLLOUT if waiting else 0))
        for descriptor, event in poll.poll():
            if descriptor == keyboard:
                typed, leaves, _ = os.read(keyboard, _READ).partition(LEAVE)
                waiting = (waiting + typed)[:_MOST_WAITING]
                if leaves:
                    _send(line, waiting)
                    return "left"
                if not typed:
                    return _CLOSED
            elif event & ~select.POLLOUT:
                if not (said := line.recv(_READ)):
                    return _ENDED
                screen.show(said)
            else:
                waiting = _send(line, waiting)


class _Screen:
    """A person's screen, which remembers what it has to be brought back from."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_other = False

    def show(self, said: bytes) -> None:
        entered, left = said.rfind(_ENTER_OTHER), said.rfind(_LEAVE_OTHER)
        self._is_other = self._is_other if entered == left else entered > left
        _write(self._descriptor, said)

    def reset(self) -> None:
        _write(self._descriptor, (_LEAVE_OTHER if self._is_other else b"") + _RESET + b"\r\n")


def _send(line: socket.socket, typed: bytes) -> bytes:
    """Give the machine what it takes of *typed* now; return the rest."""
    with contextlib.suppress(BlockingIOError):
        return typed[line.send(typed) :]
    return typed


@contextlib.contextmanager
def _raw(terminal: Terminal) -> Iterator[None]:
    """Have every key arrive as it is typed while the block runs. SIGTERM and SIGHUP end the block, see cli.program."""
    before = termios.tcgetattr(terminal.keyboard)
    try:
        tty.setraw(terminal.keyboard, termios.TCSADRAIN)  # not FLUSH: what was typed ahead is the person's
        yield
    finally:
        with contextlib.suppress(termios.error):  # its window is gone
            termios.tcsetattr(terminal.keyboard, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _seat(name: str, run_folder: Path) -> Iterator[None]:
    """Hold the one seat at the console. :raises ConflictError: naming who has it."""
    who = run_folder / f"_console-{name}.json"  # an underscore is in no machine's name
    lock = processes.hold_lock(
        run_folder / f"_console-{name}.lock", timeout=0, busy=f"{_holder(who)} sits at the console of {name}"
    )
    with lock:
        began = dt.datetime.now().astimezone().isoformat(timespec="minutes")
        facts = {"user": _user(), "pid": os.getpid(), "since": began}
        commit.publish_text(who, json.dumps(facts) + "\n", mode=0o600)
        try:
            yield
        finally:
            who.unlink(missing_ok=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers; OSError since Python 3.13
        return f"user {os.getuid()}"


def _holder(who: Path) -> str:
    try:
        facts = json.loads(who.read_text())
        return f"{facts['user']} (process {facts['pid']}, since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "somebody"


def _require_free(machine: Machine) -> None:
    """Check that no other program has the console: QEMU's socket serves one, and lets others wait without a word.

    :raises ConflictError: if one has, or QEMU does not answer.
    """
    try:
        with qmp.connect(machine.qmp_socket, timeout=_CONNECT) as client:
            devices = client.execute("query-chardev")
    except PvmlabError as error:
        raise ConflictError(f"{machine.name} does not answer", details=error.brief) from None
    taken = [each for each in devices if each["label"] == "serial0" and not each["filename"].startswith("disconnected")]
    if taken:
        raise ConflictError(
            f"another program is connected to the console of {machine.name}",
            details=f"ss -xp | grep {machine.serial_socket} shows which",
            resolution="end it; ./pvmlab vm.logs NAME --follow shows the console meanwhile",
        )


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
