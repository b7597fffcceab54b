"""Telling people how far the install is: lines on the console, reports to the boot handler.

Reports are best effort. An install must not fail, or wait for long, because nobody listens. The token of the machine's
URLs is in none of it: consoles and reports are kept.
"""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Callable, Sequence

from contracts import document
from contracts.report import MAX_REPORT_LINES, Outcome, Phase, Report
from contracts.tokens import mask
from installer import client
from installer.errors import InstallError

# Percent of the whole at which each phase begins, after the times of an emulated install.
_START = {
    Phase.NETWORK: 0,
    Phase.CONFIGURATION: 2,
    Phase.SEED: 4,
    Phase.DISK: 5,
    Phase.SYSTEM: 10,
    Phase.SETUP: 90,
    Phase.BOOTLOADER: 93,
}
_END = 100

_INTERVAL = 1.0  # seconds between reports inside a phase
_POST_TIMEOUT = 2.0  # seconds
_SILENCE = 5.0  # seconds without progress reports after one was not taken
_FAILURE_WITHIN = 15.0  # seconds to get a failure through: the console has told it, and a shell waits
_DONE_WITHIN = client.RESTART_WITHIN  # the same for the end, without which the machine counts as not installed
_LINE_LENGTH = 300  # characters; a full report stays below MAX_REPORT_BYTES whatever they are


def percent_of(phase: Phase, fraction: float) -> int:
    """Return the percent of the whole install when *fraction* (0 to 1) of *phase* is done."""
    phases = list(Phase)
    following = phases[phase.number :]
    end = _START[following[0]] if following else _END
    return int(_START[phase] + (end - _START[phase]) * min(max(fraction, 0.0), 1.0))


class Progress:
    """The install's voice.

    :ivar url: where reports go; the configuration phase sets it anew.
    """

    def __init__(self, url: str, *, post: Callable[..., None] = client.post, write: Callable[[str], object]) -> None:
        self.url = url
        self.phase = Phase.NETWORK
        self._post = post
        self._write = write
        self._percent = 0
        self._next_report = 0.0

    def begin(self, phase: Phase, message: str) -> None:
        """Say that *phase* begins."""
        self.phase = phase
        self.say(f"[{phase.number}/{len(Phase)}] {phase}: {message}")
        self._next_report = 0.0
        self.advance(0.0, message)

    def advance(self, fraction: float, message: str) -> None:
        """Report that *fraction* (0 to 1) of the phase is done; too frequent calls are dropped."""
        now = time.monotonic()
        if now < self._next_report:
            return
        self._percent = max(self._percent, percent_of(self.phase, fraction))
        taken = self._send(Outcome.RUNNING, message)
        self._next_report = time.monotonic() + (_INTERVAL if taken else _SILENCE)

    def say(self, text: str) -> None:
        """Print a line on the console."""
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._write(f"pvmlab [{uptime:7.2f}] {mask(text)}\n")

    def done(self, message: str) -> None:
        """Say that the install is done."""
        self._percent = _END
        self.say(message)
        self._insist(Outcome.DONE, message, within=_DONE_WITHIN)

    def failed(self, error: InstallError) -> None:
        """Say that the phase failed, why, and the last lines of what failed."""
        self.say(f"FAILED in phase {self.phase}: {error.cause}")
        for line in error.lines:
            self._write(f"  | {mask(line)}\n")
        self._insist(Outcome.FAILED, error.cause, error.lines, within=_FAILURE_WITHIN)

    def _insist(self, outcome: Outcome, message: str, lines: Sequence[str] = (), *, within: float) -> None:
        deadline = time.monotonic() + within
        for pause in client.pauses():
            if self._send(outcome, message, lines):
                return
            if time.monotonic() + pause > deadline:
                self.say(f"the boot handler did not take the report that the install is {outcome}")
                return
            time.sleep(pause)

    def _send(self, outcome: Outcome, message: str, lines: Sequence[str] = ()) -> bool:
        report = Report(
            phase=self.phase,
            outcome=outcome,
            percent=self._percent,
            message=_printable(message),
            lines=tuple(_printable(line) for line in lines[-MAX_REPORT_LINES:]),
        )
        body = document.dumps(report).encode()
        try:
            self._post(self.url, body, timeout=_POST_TIMEOUT)
        except (OSError, http.client.HTTPException, InstallError):
            return False
        return True


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in mask(line)[:_LINE_LENGTH])


def write_console(text: str) -> None:
    """Write *text* to the console at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
