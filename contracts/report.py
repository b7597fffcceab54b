"""Progress of an install: what the installer posts, and what the boot handler keeps of each machine."""

from __future__ import annotations

import dataclasses
import enum

from contracts.timeline import Event

MAX_REPORT_BYTES = 64 * 1024  # the boot handler refuses longer bodies
MAX_REPORT_LINES = 40
MAX_TRANSITIONS = 60  # of one machine that are kept with its state; the oldest go first


class Phase(enum.StrEnum):
    """The installer's phases, in the order they run."""

    NETWORK = "network"
    CONFIGURATION = "configuration"
    SEED = "seed"
    DISK = "disk"
    SYSTEM = "system"
    SETUP = "setup"
    BOOTLOADER = "bootloader"

    @property
    def number(self) -> int:
        """Position, from 1 to 7."""
        return list(Phase).index(self) + 1


class Outcome(enum.StrEnum):
    """How a reported phase stands."""

    RUNNING = "running"
    FAILED = "failed"
    DONE = "done"  # only with the last phase: the whole install is done


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The body of one ``POST`` to :func:`contracts.tokens.report_path`.

    :ivar percent: of the whole install, 0 to 100.
    :ivar message: one line for people, what is going on or what went wrong.
    :ivar lines: on failure, the last output lines of what failed.
    """

    phase: Phase
    outcome: Outcome
    percent: int
    message: str
    lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError(f"percent is {self.percent}, allowed are 0 to 100")
        if len(self.lines) > MAX_REPORT_LINES:
            raise ValueError(f"lines holds {len(self.lines)} entries, at most {MAX_REPORT_LINES} are taken")


class InstallState(enum.StrEnum):
    """Where a machine is on its way to an installed system."""

    NEW = "new"
    BOOTING = "booting"  # it has fetched its boot script
    INSTALLING = "installing"
    INSTALLED = "installed"
    FAILED = "failed"
    RESCUE = "rescue"  # the installer's shell was booted, as ordered; the disk is as it was


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineStatus:
    """A machine's install state: ``$PVMLAB_HOME/status/<name>.json``, written by the boot handler only.

    :ivar uuid: the definition's UUID: a machine deleted and made again under its old name starts afresh.
    :ivar installs: how many installs were completed.
    :ivar order: the id of the last order that was carried out (:mod:`contracts.orders`), or nothing.
    :ivar resume: in the state rescue, the state that comes back with the next boot.
    :ivar updated: seconds since the epoch of the last change.
    :ivar events: the changes of its state; all else is in its :class:`contracts.timeline.Timeline`.
    """

    schema: int = 1
    name: str
    uuid: str
    state: InstallState = InstallState.NEW
    phase: Phase | None = None
    percent: int = 0
    message: str = ""
    lines: tuple[str, ...] = ()
    installs: int = 0
    order: str = ""
    resume: InstallState | None = None
    updated: float = 0.0
    events: tuple[Event, ...] = ()
