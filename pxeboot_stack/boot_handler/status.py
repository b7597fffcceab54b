"""The install state of a machine: how it changes (pure functions) and where it is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from contracts import document
from contracts.machine import VmDefinition
from contracts.report import (
    MAX_EVENTS,
    Event,
    InstallState,
    MachineStatus,
    Outcome,
    Phase,
    Report,
)
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.publish import publish_text

MAX_LINE = 500  # characters of a message, an output line or an event that are kept
_LAST_PHASE = list(Phase)[-1]


def fresh(machine: VmDefinition) -> MachineStatus:
    """Return the status of a machine of which nothing is known yet."""
    return MachineStatus(name=machine.name, uuid=machine.uuid)


def install_script_fetched(status: MachineStatus, *, now: float) -> MachineStatus:
    """Return the status after the machine was sent into an install, its first or again after a failed one."""
    return _with_event(
        dataclasses.replace(
            status, state=InstallState.BOOTING, phase=None, percent=0, lines=(),
            message="fetched its boot script, loads the installer",
        ),
        "boot script fetched: install",
        now=now,
    )  # fmt: skip


def answers_fetched(status: MachineStatus, *, now: float) -> MachineStatus:
    """Return the status after a distribution's own installer fetched its answer file: its first sign of life."""
    if status.state is not InstallState.BOOTING:
        return status  # it may read them more than once
    return _with_event(
        dataclasses.replace(
            status, state=InstallState.INSTALLING, phase=Phase.CONFIGURATION, percent=5,
            message="fetched its answer file",
        ),
        "answer file fetched",
        now=now,
    )  # fmt: skip


def disk_script_fetched(status: MachineStatus, *, now: float) -> MachineStatus:
    """Return the status after an installed machine was sent to its disk: only the timeline grows."""
    return _with_event(status, "boot script fetched: boot the disk", now=now)


def refused(status: MachineStatus, reason: str, *, now: float) -> MachineStatus:
    """Return the status after a machine could not be sent into its install."""
    message = plain_line(reason)
    if (status.state, status.message) == (InstallState.FAILED, message):
        return status  # it asks again every few seconds
    return _with_event(
        dataclasses.replace(status, state=InstallState.FAILED, phase=None, percent=0, lines=(), message=message),
        f"boot script refused: {message}",
        now=now,
    )


def reported(status: MachineStatus, report: Report, *, now: float) -> MachineStatus:
    """Return the status after *report*. The same report twice is one report: an answer can get lost.

    :raises Refusal: 409 if the report cannot be about this install; 422 if it contradicts itself.
    """
    if report.outcome is Outcome.DONE and report.phase is not _LAST_PHASE:
        raise Refusal(422, f"an install is done with its last phase, {_LAST_PHASE}, not with {report.phase}")
    if status.state is InstallState.INSTALLED:
        if report.outcome is Outcome.DONE:
            return status
        raise Refusal(409, f"{status.name} is installed already; this report is about no install of it")
    if report.outcome is Outcome.DONE and status.state is InstallState.NEW:
        raise Refusal(409, f"{status.name} has not begun an install, so it cannot have finished one")
    return _with_event_of(report, _apply(status, report, now=now), before=status, now=now)


def _apply(status: MachineStatus, report: Report, *, now: float) -> MachineStatus:
    state = {
        Outcome.RUNNING: InstallState.INSTALLING,
        Outcome.FAILED: InstallState.FAILED,
        Outcome.DONE: InstallState.INSTALLED,
    }[report.outcome]
    return dataclasses.replace(
        status,
        state=state,
        phase=report.phase,
        percent=100 if state is InstallState.INSTALLED else report.percent,
        message=plain_line(report.message),
        lines=tuple(map(plain_line, report.lines)),
        installs=status.installs + (state is InstallState.INSTALLED),
        updated=now,
    )


def _with_event_of(report: Report, status: MachineStatus, *, before: MachineStatus, now: float) -> MachineStatus:
    """Add an event when the install moves on, not at every percent."""
    if (status.state, status.phase) == (before.state, before.phase) and status.state is InstallState.INSTALLING:
        return status
    what = {Outcome.RUNNING: "", Outcome.FAILED: " failed", Outcome.DONE: " done, installed"}[report.outcome]
    return _with_event(status, f"{report.phase}{what}: {status.message}", now=now)


def _with_event(status: MachineStatus, text: str, *, now: float) -> MachineStatus:
    events = (*status.events, Event(time=now, text=plain_line(text)))[-MAX_EVENTS:]
    return dataclasses.replace(status, events=events, updated=now)


def plain_line(text: str) -> str:
    """Return *text* as one bounded line without control characters: it ends up on people's terminals."""
    return "".join(c if c.isprintable() else " " for c in text[: MAX_LINE + 1]).strip()[:MAX_LINE]


class StatusStore:
    """Keeps one ``<name>.json`` per machine. The only writer of these files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, machine: VmDefinition) -> MachineStatus:
        """Return the machine's status: a fresh one if there is none, or if it is of an older machine of that name.

        :raises Refusal: 500 if it cannot be read or understood. To guess could mean to install over a system.
        """
        path = self._path(machine)
        try:
            status = document.loads(MachineStatus, path.read_bytes())
        except FileNotFoundError:
            return fresh(machine)
        except (OSError, document.DocumentError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Refusal(
                500,
                f"the status of {machine.name} cannot be read ({reason}); remove status/{path.name} to start afresh",
            ) from None
        return status if status.uuid == machine.uuid else fresh(machine)

    def write(self, machine: VmDefinition, status: MachineStatus) -> None:
        """Keep *status*, whole and on the disk before this returns.

        :raises Refusal: 503 if it cannot be written (a full disk, say); the old one stays.
        """
        try:
            publish_text(self._path(machine), document.dumps(status))
        except OSError as error:
            raise Refusal(503, f"the status of {machine.name} cannot be written: {error.strerror}") from None

    def _path(self, machine: VmDefinition) -> Path:
        return self._directory / f"{machine.name}.json"
