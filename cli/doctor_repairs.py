"""``./pvmlab doctor --fix``: carries out the repairs that the report names, as far as they are safe.

Without asking: what only concerns the lab's own files (leftovers, permissions of folders with keys). After asking: what
changes the host. Never: what needs a decision (more memory, another mirror, a folder elsewhere).
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterable, Sequence

from cli.confirm import require_yes
from cli.doctor import Finding, State, exposed_folders
from cli.host_packages import NEEDS
from cli.output import say
from cli.setup import as_root, setup
from lab.garbage import GarbagePlan, Kind, collect, plan_garbage
from lab.lab import Lab
from pipeline.errors import PvmlabError
from pipeline.workspace import Workspace

_PACKAGES = {need.name for need in NEEDS}
# Findings whose repair is one command as root, which the report prints.
_COMMANDS = {"subordinate ids", "user namespaces", "loopback"}
SAFE = frozenset({Kind.RECORD, Kind.SOCKET, Kind.HALF_MADE})  # of the lab alone, and nothing is lost with it


@dataclasses.dataclass(frozen=True)
class Repair:
    """Something to do. :ivar what: for people. :ivar asks: it changes the host, so a person is asked."""

    what: str
    do: Callable[[], None]
    asks: bool = False


def plan_repairs(findings: Iterable[Finding]) -> list[Repair]:
    """Return the repairs of *findings* that can be carried out."""
    bad = [finding for finding in findings if finding.state is not State.OK]
    repairs = []
    if any(finding.name == "leftovers" for finding in bad) and _plan_safe(Lab.from_environment()).items:
        repairs.append(Repair("remove leftovers of killed commands", remove_leftovers))
    if any(finding.name == "private folders" for finding in bad):
        repairs.append(Repair("close the folders with keys and sockets to others", _close_folders))
    if missing := [finding.name for finding in bad if finding.name in _PACKAGES and finding.state is State.MISSING]:
        repairs.append(Repair(f"install packages for: {', '.join(missing)}", _install, asks=True))
    repairs += [
        Repair(finding.repair, _running(finding.repair), asks=True) for finding in bad if finding.name in _COMMANDS
    ]
    return repairs


def carry_out(repairs: Sequence[Repair], *, yes: bool) -> list[str]:
    """Carry out *repairs*; return what was done. What a person refuses, and what fails, is told and left out.

    :param yes: do not ask.
    """
    done = []
    for repair in repairs:
        try:
            if repair.asks:
                require_yes(f"This changes the host: {repair.what}.", yes=yes)
            repair.do()
        except PvmlabError as error:
            say(f"not done: {repair.what}: {error.brief}{f' ({error.resolution})' if error.resolution else ''}")
        else:
            say(f"done: {repair.what}")
            done.append(repair.what)
    return done


def remove_leftovers() -> None:
    """Remove what killed commands left, but no disk, log or interface. :raises PvmlabError: if something stays."""
    lab = Lab.from_environment()
    if failed := collect(lab, _plan_safe(lab))[1]:
        raise PvmlabError("; ".join(failed))


def _plan_safe(lab: Lab) -> GarbagePlan:
    try:
        plan = plan_garbage(lab)
    except (PvmlabError, OSError):  # the report says so; nothing can be repaired then
        return GarbagePlan(items=(), unknown=())
    return dataclasses.replace(plan, items=tuple(item for item in plan.items if item.kind in SAFE))


def _install() -> None:
    setup(for_tests=False)


def _running(command: str) -> Callable[[], None]:
    return lambda: as_root(shlex.split(command.removeprefix("sudo ")))


def _close_folders() -> None:
    for folder in exposed_folders(Workspace.from_environment().home):
        folder.chmod(0o700)
