"""Running one command on many machines at once.

Each gets an ssh of its own. Lines are told as they come; when it is over, or is broken off, none of them runs any more
on this host. (A command that was cut off may go on in its machine: sshd ends it no sooner than it writes something.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from typing import IO

from contracts.machine import VmDefinition
from lab import reach, ssh
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.errors import PvmlabError, UsageError
from pipeline.run import PIPE, Popen, spawn

LIMIT = 1 << 20  # bytes kept of what each machine says on each of its two outputs; the rest is only told
_READ = 65536
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_SLICE = 0.5  # seconds


class Output(enum.StrEnum):
    """Where a line comes from."""

    STDOUT = "stdout"
    STDERR = "stderr"


Tell = Callable[[str, str, Output], None]  # a machine's name, and a line of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the command on one machine.

    :ivar exit_status: None if it did not come to that. :ivar fault: why not, for people.
    """

    name: str
    exit_status: int | None = None
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    truncated: bool = False
    fault: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether it ran and ended well."""
        return self.exit_status == 0


def choose_machines(lab: Lab, names: Sequence[str], *, everyone: bool, labels: Sequence[str]) -> list[str]:
    """Return the machines that a person means, each once.

    :param labels: ``key=value``, or ``key`` for any value; a machine has to have all of them.
    :raises UsageError: if nothing was chosen, or a label is none. :raises NotFoundError: for an unknown name.
    """
    store = DefinitionStore(lab)
    if sum([bool(names), everyone, bool(labels)]) != 1:
        raise UsageError(
            "on which machines?", resolution="name them, or --all, or --label KEY=VALUE; one of these three ways"
        )
    if names:
        for name in names:
            if not ssh.is_provisioner(name) and not store.exists(name):
                store.load(name)  # says so
        return list(dict.fromkeys(names))
    good = {machine.name: machine for machine in store.load_good()}
    chosen = [
        name
        for name in store.names()
        # one whose definition is broken is one of all, and is tried; what labels it has nobody knows
        if (good[name].managed and _has_labels(good[name], labels) if name in good else everyone)
    ]
    if not chosen:
        what = f"has the labels {', '.join(labels)}" if labels else "is there"
        raise UsageError(f"no machine {what}", resolution="./pvmlab vm.list shows the machines")
    return chosen


def run_on_all(lab: Lab, names: Sequence[str], command: str, *, timeout: float, jobs: int, tell: Tell) -> list[Outcome]:
    """Run the command line *command* on every machine; return what became of it, in the order of *names*.

    :param timeout: seconds for each machine. :param jobs: on so many at a time.
    :param tell: gets each line as it comes.
    """
    waiting = list(names)
    running: dict[str, _Session] = {}
    done: dict[str, Outcome] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    if (fault := _fault(lab, name)) is not None:
                        done[name] = Outcome(name=name, fault=fault)
                        continue
                    running[name] = _Session(name, ssh.way_in(lab, name, command), selector, tell, timeout)
                for key, _ in selector.select(_SLICE):
                    key.data()
                for name in [name for name, session in running.items() if session.is_over()]:
                    done[name] = running.pop(name).outcome()
        finally:
            _end(list(running.values()))
    return [done[name] for name in names]


class _Stream:
    """One output of a session: lines as they come, and the beginning of it all."""

    def __init__(self, pipe: IO[bytes], tell: Callable[[str], None]) -> None:
        self.pipe = pipe
        self.kept = bytearray()
        self.truncated = self.ended = False
        self._tell = tell
        self._line = b""

    def read(self) -> None:
        data = os.read(self.pipe.fileno(), _READ)  # there is something: it does not wait
        room = LIMIT - len(self.kept)
        self.kept += data[:room]
        self.truncated |= len(data) > room
        *lines, self._line = (self._line + data).split(b"\n")
        if not data:
            self.ended = True
            if self._line:
                lines, self._line = [self._line], b""
        elif len(self._line) > _READ:  # no end of the line in sight
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            self._tell(line.decode(errors="replace").rstrip("\r"))

    @property
    def text(self) -> str:
        return self.kept.decode(errors="replace")


class _Session:
    """The command on one machine."""

    def __init__(
        self, name: str, argv: Sequence[str], selector: selectors.BaseSelector, tell: Tell, timeout: float
    ) -> None:
        self.name, self._selector = name, selector
        self._begun = time.monotonic()
        self._timeout = timeout
        self._fault = ""
        self.process: Popen[bytes] = spawn(argv, stdout=PIPE, stderr=PIPE)
        assert self.process.stdout is not None  # noqa: S101 (PIPE)
        assert self.process.stderr is not None  # noqa: S101
        self._out = _Stream(self.process.stdout, lambda line: tell(name, line, Output.STDOUT))
        self._err = _Stream(self.process.stderr, lambda line: tell(name, line, Output.STDERR))
        for stream in (self._out, self._err):
            selector.register(stream.pipe, selectors.EVENT_READ, lambda stream=stream: self._read(stream))

    def is_over(self) -> bool:
        """Say whether it has ended; end it if its time is up."""
        if not self._fault and time.monotonic() - self._begun > self._timeout:
            self._fault = f"it did not end within {self._timeout:g} s"
            self.end(signal.SIGTERM)
        if self._fault and time.monotonic() - self._begun > self._timeout + _GRACE:
            self.end(signal.SIGKILL)
            return self.process.wait() is not None
        return self._out.ended and self._err.ended and self.process.poll() is not None

    def outcome(self) -> Outcome:
        """Return what became of it; it is over."""
        self.close()
        status: int | None = self.process.returncode
        if not self._fault and status == ssh.FAILED:
            self._fault = self._err.text.strip().rpartition("\n")[2] or "ssh did not get in"
        return Outcome(
            name=self.name,
            exit_status=None if self._fault else status,
            stdout=self._out.text,
            stderr=self._err.text,
            seconds=round(time.monotonic() - self._begun, 3),
            truncated=self._out.truncated or self._err.truncated,
            fault=self._fault,
        )

    def end(self, number: signal.Signals) -> None:
        """Signal ssh and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Close the pipes."""
        for stream in (self._out, self._err):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(stream.pipe)
            stream.pipe.close()

    def _read(self, stream: _Stream) -> None:
        stream.read()
        if stream.ended:
            self._selector.unregister(stream.pipe)


def _end(sessions: Sequence[_Session]) -> None:
    """End what still runs: politely, then by force."""
    for session in sessions:
        session.end(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    for session in sessions:
        while session.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        session.end(signal.SIGKILL)
        session.process.wait()
        session.close()


def _fault(lab: Lab, name: str) -> str | None:
    try:
        fault = reach.find_fault(lab, name)
    except PvmlabError as error:  # a damaged process record
        return error.brief
    return fault.brief if fault is not None else None


def _has_labels(machine: VmDefinition, wanted: Sequence[str]) -> bool:
    labels = {label.key: label.value for label in machine.labels}
    return all(
        labels.get(key) == value if equals else key in labels
        for key, equals, value in (word.partition("=") for word in wanted)
    )
