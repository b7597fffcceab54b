"""The install state of a machine: how it changes (pure functions) and where it is kept.

    new ──script──> booting ──report──> installing ──done──> installed ──script──> (its disk)
                       ^  failed <──report──┘ │                   │
                       └── script, an order ──┴───────────────────┘
    rescue is entered by an order from any state, and left for that state with the next script.

A machine is sent into an install until one has ended well, and then never again without an order.
"""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path

from contracts import document
from contracts.machine import VmDefinition
from contracts.orders import Order, OrderKind
from contracts.report import MAX_TRANSITIONS, InstallState, MachineStatus, Outcome, Phase, Report
from contracts.timeline import Event, EventKind
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.write_behind import Signature, WriteBehind, signature_of

MAX_LINE = 500  # characters of a message, an output line or an event that are kept
_LAST_PHASE = list(Phase)[-1]


class Boot(enum.StrEnum):
    """What a machine that asks for its boot script is to boot."""

    INSTALL = "install"
    DISK = "disk"
    RESCUE = "rescue"


def fresh(machine: VmDefinition) -> MachineStatus:
    """Return the status of a machine of which nothing is known yet."""
    return MachineStatus(name=machine.name, uuid=machine.uuid)


def decide(status: MachineStatus, order: Order | None) -> Boot:
    """Return what the machine is to boot now. :param order: the last one that there is, carried out or not."""
    if order is not None and order.is_due(status.uuid, status.order):
        return {OrderKind.REINSTALL: Boot.INSTALL, OrderKind.RESCUE: Boot.RESCUE}[order.kind]
    return Boot.DISK if _settled(status).state is InstallState.INSTALLED else Boot.INSTALL


def install_script_fetched(status: MachineStatus, *, order: Order | None = None, now: float) -> MachineStatus:
    """Return the status after the machine was sent into an install: its first, again after a failed one, or ordered."""
    status = _carried_out(status, order, now=now)
    return _with_event(
        dataclasses.replace(
            status, state=InstallState.BOOTING, resume=None, phase=None, percent=0, lines=(),
            message="fetched its boot script, loads the installer",
        ),
        EventKind.INSTALL_SCRIPT, "boot script: install",
        now=now,
    )  # fmt: skip


def rescue_script_fetched(status: MachineStatus, *, order: Order, now: float) -> MachineStatus:
    """Return the status after the machine was sent into the installer's shell."""
    before = _settled(status)
    return _with_event(
        dataclasses.replace(
            _carried_out(before, order, now=now), state=InstallState.RESCUE, resume=before.state,
            message="fetched its boot script, loads the shell",
        ),
        EventKind.RESCUE_SCRIPT, "boot script: rescue",
        now=now,
    )  # fmt: skip


def disk_script_fetched(status: MachineStatus, *, now: float) -> MachineStatus:
    """Return the status after an installed machine was sent to its disk: nothing changes, but that a rescue ends."""
    if status.state is not InstallState.RESCUE:
        return status
    return _with_event(_settled(status), EventKind.DISK_SCRIPT, "boot script: boot the disk; the rescue is over",
                       now=now)  # fmt: skip


def answers_fetched(status: MachineStatus, *, now: float) -> MachineStatus:
    """Return the status after a distribution's own installer fetched its answer file: its first sign of life."""
    if status.state is not InstallState.BOOTING:
        return status  # it may read them more than once
    return _with_event(
        dataclasses.replace(
            status, state=InstallState.INSTALLING, phase=Phase.CONFIGURATION, percent=5,
            message="fetched its answer file",
        ),
        EventKind.DOCUMENT, "answer file fetched",
        now=now,
    )  # fmt: skip


def refused(status: MachineStatus, reason: str, *, now: float) -> MachineStatus:
    """Return the status after a machine could not be sent into its install. An installed one stays installed."""
    message = plain_line(reason)
    if _settled(status).state is InstallState.INSTALLED or (status.state, status.message) == (
        InstallState.FAILED, message,
    ):  # fmt: skip
        return status  # it asks again every few seconds
    return _with_event(
        dataclasses.replace(
            status, state=InstallState.FAILED, resume=None, phase=None, percent=0, lines=(), message=message
        ),
        EventKind.REFUSED,
        f"boot script refused: {message}",
        now=now,
    )


def reported(status: MachineStatus, report: Report, *, now: float) -> MachineStatus:
    """Return the status after *report*. The same report twice is one report: an answer can get lost.

    :raises Refusal: 409 if the report cannot be about this install; 422 if it contradicts itself.
    """
    if report.outcome is Outcome.DONE and report.phase is not _LAST_PHASE:
        raise Refusal(422, f"an install is done with its last phase, {_LAST_PHASE}, not with {report.phase}")
    if status.state is InstallState.RESCUE:
        raise Refusal(409, f"{status.name} was booted into a rescue shell; this report is about no install of it")
    if status.state is InstallState.INSTALLED:
        if report.outcome is Outcome.DONE:
            return status
        raise Refusal(409, f"{status.name} is installed already; this report is about no install of it")
    if report.outcome is Outcome.DONE and status.state is InstallState.NEW:
        raise Refusal(409, f"{status.name} has not begun an install, so it cannot have finished one")
    return _with_event_of(report, _apply(status, report, now=now), before=status, now=now)


def _settled(status: MachineStatus) -> MachineStatus:
    """Return the status as it is when a rescue is over."""
    if status.state is not InstallState.RESCUE:
        return status
    return dataclasses.replace(status, state=status.resume or InstallState.NEW, resume=None, message="")


def _carried_out(status: MachineStatus, order: Order | None, *, now: float) -> MachineStatus:
    """Note that *order* was carried out, if it was due: the same write keeps this and what it leads to."""
    if order is None or not order.is_due(status.uuid, status.order):
        return status
    return _with_event(
        dataclasses.replace(status, order=order.id), EventKind.ORDERED, f"{order.kind}, as ordered", now=now
    )


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
    kind, what = {
        Outcome.RUNNING: (EventKind.PHASE, ""),
        Outcome.FAILED: (EventKind.FAILED, " failed"),
        Outcome.DONE: (EventKind.DONE, " done, installed"),
    }[report.outcome]
    return _with_event(status, kind, f"{report.phase}{what}: {status.message}", now=now)


def _with_event(status: MachineStatus, kind: EventKind, text: str, *, now: float) -> MachineStatus:
    event, before = Event(time=now, kind=kind, text=plain_line(text)), status.events
    if before and event.is_again(before[-1]):  # a machine that asks again and again
        events = (*before[:-1], event.counted_on(before[-1]))
    else:
        events = (*before, event)[-MAX_TRANSITIONS:]
    return dataclasses.replace(status, events=events, updated=now)


def plain_line(text: str) -> str:
    """Return *text* as one bounded line without control characters: it ends up on people's terminals."""
    return "".join(c if c.isprintable() else " " for c in text[: MAX_LINE + 1]).strip()[:MAX_LINE]


@dataclasses.dataclass(eq=False)
class _Known:
    """:ivar signature: of the file that holds it; None while it waits to be put in place."""

    status: MachineStatus
    signature: Signature | None

    def put(self, signature: Signature) -> None:
        self.signature = signature


class StatusStore:
    """Keeps one ``<name>.json`` per machine, and what they hold in memory. The only writer of these files.

    A file is read again when it is another one than we wrote or read: people remove one to have a machine start
    afresh, and so does the host before an install begins anew.

    :param files: who writes below *directory*; without, each file is put in place at once.
    """

    def __init__(self, directory: Path, files: WriteBehind | None = None) -> None:
        self._directory = directory
        self._files = files or WriteBehind(directory)
        self._known: dict[str, _Known] = {}

    def read(self, machine: VmDefinition) -> MachineStatus:
        """Return the machine's status: a fresh one if there is none, or if it is of an older machine of that name.

        :raises Refusal: 500 if it cannot be read or understood. To guess could mean to install over a system.
        """
        known, path = self._known.get(machine.name), self._directory / _file_name(machine)
        try:
            if known is None or (known.signature is not None and known.signature != signature_of(path)):
                signature = signature_of(path)
                known = _Known(document.loads(MachineStatus, path.read_bytes()), signature)
                self._known[machine.name] = known
        except FileNotFoundError:
            self.forget(machine.name)
            return fresh(machine)
        except (OSError, document.DocumentError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Refusal(
                500,
                f"the status of {machine.name} cannot be read ({reason}); remove status/{path.name} to start afresh",
            ) from None
        return known.status if known.status.uuid == machine.uuid else fresh(machine)

    def write(self, machine: VmDefinition, status: MachineStatus, *, flush: bool = True) -> None:
        """Keep *status*, so that it survives us, and the provisioner, when this returns.

        :param flush: wait for the disk, so that it survives a power failure, too; without, that takes a second.
        :raises Refusal: 503 if it cannot be written (a full disk, say); the old one stays.
        """
        known = _Known(status, None)
        try:
            self._files.keep(_file_name(machine), document.dumps_line(status), flush=flush, placed=known.put)
        except OSError as error:
            raise Refusal(503, f"the status of {machine.name} cannot be written: {error.strerror}") from None
        self._known[machine.name] = known

    def forget(self, name: str) -> None:
        """Drop what is in memory of the machine *name*; the file stays. What waits to be put in place is kept.

        The file is older than that: who read it could take a machine for one that was never installed.
        """
        known = self._known.get(name)
        if known is not None and known.signature is not None:
            del self._known[name]

    def known(self) -> dict[str, MachineStatus]:
        """Return what is in memory, by machine."""
        return {name: known.status for name, known in self._known.items()}


def _file_name(machine: VmDefinition) -> str:
    return f"{machine.name}.json"
