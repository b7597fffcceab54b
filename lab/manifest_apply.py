"""Makes a lab what its lab.yaml says: carries out a :class:`~lab.manifest_plan.Plan`, then brings all machines up."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contracts.machine import VmDefinition
from contracts.names import PROVISIONER_NAME
from lab import provisioner, target
from lab.bringup import (
    Artifacts,
    BringUp,
    Milestone,
    Starting,
    ensure_artifacts,
    ensure_provisioner_runs,
    machine_names,
    stop_unused_network,
    stopped_if_interrupted,
    wait_for_provisioner,
)
from lab.lab import Lab
from lab.machine import StopOutcome
from lab.machine_errors import raise_all
from lab.manifest import Manifest
from lab.manifest_checks import Check, read_current, require_allowed, require_possible
from lab.manifest_crew import Crew, Outcome, State
from lab.manifest_order import levels
from lab.manifest_plan import Action, ActionKind, Plan, changed, make_plan
from lab.network_settings import read_settings, write_settings
from lab.progress import Reporter
from lab.progress_many import Board
from lab.spec import AcceleratorKind
from lab.stopping import may_run, stop_together
from lab.store import DefinitionStore
from lab.wait import Deadline
from pipeline.errors import ConflictError, HostError, PvmlabError

_STOP = 60.0  # seconds for a guest to shut down


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpOptions:
    """How to bring a lab up.

    :ivar recreate: make machines anew that cannot be changed; what is on their disks is lost.
    :ivar prune: remove machines that the file does not name. :ivar agreed: machines that somebody agreed to lose by
        these two; None for any. :ivar jobs: machines on their way at once; 0 to choose.
    :ivar timeout: seconds for each machine; None for plenty.
    """

    recreate: bool = False
    prune: bool = False
    agreed: frozenset[str] | None = None
    jobs: int = 0
    timeout: float | None = None


class LabUpError(PvmlabError):
    """Some machines did not come up. :ivar outcomes: what became of each."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        self.outcomes = dict(outcomes)
        bad = {name: outcome for name, outcome in outcomes.items() if outcome.state is not State.UP}
        first = next((outcome.error for outcome in bad.values() if outcome.error is not None), None)
        if isinstance(first, PvmlabError):
            self.exit_code = first.exit_code
        super().__init__(
            f"{len(bad)} of {len(outcomes)} machines did not come up",
            details="\n".join(_lines(bad)),
            resolution="the same command again tries those that are missing; ./pvmlab vm.logs NAME shows a console",
        )


def up(
    lab: Lab, manifest: Manifest, *, options: UpOptions, board: Board, artifacts: Artifacts, check: Check
) -> dict[str, Outcome]:
    """Make the lab what *manifest* says, all machines running; return what became of each.

    On Ctrl-C the machines that this call started are stopped; the next one carries on.

    :param check: is shown each machine that will be made or started, before anything is built or touched, and again
        when all is built: what a document is checked by may be among that.
    :raises ConflictError: if that would lose what was not given up by an option.
    :raises LabUpError: if not all came up.
    """
    reporter = board.reporter("lab")
    with lab.changing_lab():
        current = read_current(lab)
        plan = make_plan(manifest, current, prune=options.prune)
        require_allowed(plan, manifest, current, recreate=options.recreate)
        _require_agreed(plan, options)
        require_possible(lab, plan, manifest, current, check)
        for trial in {_kind(machine.trial): machine.trial for machine in manifest.machines}.values():
            ensure_artifacts(artifacts, trial)
        require_possible(lab, plan, manifest, current, check)
        _Change(lab, manifest, reporter).carry_out(plan)
        with stopped_if_interrupted(lab) as starting:
            _bring_provisioner_up(lab, reporter, artifacts, starting)
            board.done("lab")  # from here on, the machines tell
            outcomes = _bring_up(lab, manifest, options, board, artifacts, starting)
    if any(outcome.state is not State.UP for outcome in outcomes.values()):
        raise LabUpError(outcomes)
    reporter.say("everything is up" if plan.is_empty else f"all {len(outcomes)} machines are up")
    return outcomes


def _require_agreed(plan: Plan, options: UpOptions) -> None:
    """Check that nothing is lost of which nobody was asked, as the lab may have changed since.

    :raises ConflictError: if it would be.
    """
    lost = [action.name for action in plan.of(ActionKind.REMOVE, ActionKind.RECREATE)]
    if options.agreed is not None and (more := [name for name in lost if name not in options.agreed]):
        raise ConflictError(
            f"what is on the disks of {', '.join(more)} would be lost, too: the lab was changed meanwhile",
            resolution="the same command again asks anew",
        )


def down(lab: Lab, manifest: Manifest, *, reporter: Reporter, timeout: float = _STOP) -> dict[str, StopOutcome]:
    """Stop the machines of *manifest*, those that wait for others before these; and the provisioner, if none is left.

    :param timeout: seconds for the guests of each step to shut down before they are ended by force.
    :raises PvmlabError: if one could not be stopped; after all others are.
    """
    graph = {machine.name: [one.name for one in machine.after] for machine in manifest.machines}
    outcomes: dict[str, StopOutcome] = {}
    errors: dict[str, PvmlabError] = {}
    with lab.changing_lab():
        for group in reversed(levels(graph)):
            outcomes |= stop_together(lab, group, timeout=timeout, reporter=reporter, errors=errors)
        others = [name for name in machine_names(lab) if name != PROVISIONER_NAME and may_run(lab, name)]
        if not others:
            if lab.provisioner.is_running():
                outcomes[PROVISIONER_NAME] = provisioner.stop(lab)
            stop_unused_network(lab)
    for name, outcome in outcomes.items():
        reporter.say(f"{name}: {outcome}")
    if others:
        reporter.say(f"the provisioner runs on, for {', '.join(others)}")
    elif not outcomes:
        reporter.say("no machine was running")
    raise_all(errors, what="cannot be stopped")
    return outcomes


@dataclasses.dataclass(frozen=True)
class _Change:
    """Carries out what a plan says of definitions and settings; starts nothing."""

    lab: Lab
    manifest: Manifest
    reporter: Reporter

    def carry_out(self, plan: Plan) -> None:
        """Do it all, in the plan's order; but what is made anew is removed first: one may get another's address."""
        self.lab.ensure_folders()
        for action in plan.of(ActionKind.NETWORK, ActionKind.PROVISIONER, ActionKind.REMOVE):
            self._carry_out(action)
        for action in plan.of(ActionKind.RECREATE):
            target.clean(self.lab, action.name)
        made = {action.name: action for action in plan.of(ActionKind.RECREATE, ActionKind.CREATE)}
        wanted = [machine.request for machine in self.manifest.machines if machine.name in made]
        for action in plan.of(ActionKind.CHANGE):
            self._carry_out(action)
        for request in DefinitionStore(self.lab).with_addresses(wanted):
            target.create(self.lab, request)
            self._say(made[request.name])
        provisioner.create(self.lab, self.manifest.mode)  # does nothing if it is there

    def _carry_out(self, action: Action) -> None:
        match action.kind:
            case ActionKind.NETWORK:
                write_settings(self.lab.home, read_settings(self.lab.home), self.manifest.lan(self.lab.lan))
            case ActionKind.PROVISIONER:
                if action.restarts:
                    provisioner.stop(self.lab)
                provisioner.create(self.lab, self.manifest.mode)
            case ActionKind.REMOVE:
                target.clean(self.lab, action.name)
            case _:
                self._change(action)
        self._say(action)

    def _change(self, action: Action) -> None:
        wanted = next(each for each in self.manifest.machines if each.name == action.name)
        if action.restarts:
            self.lab.machine(action.name).stop(timeout=_STOP)
        store = DefinitionStore(self.lab)
        with self.lab.changing_definitions():
            store.rewrite(changed(store.load(action.name), wanted))

    def _say(self, action: Action) -> None:
        self.reporter.say(f"{action.name}: {_DONE[action.kind]}: {'; '.join(action.reasons)}")


_DONE = {
    ActionKind.NETWORK: "set", ActionKind.PROVISIONER: "made", ActionKind.REMOVE: "removed",
    ActionKind.RECREATE: "made anew", ActionKind.CREATE: "created", ActionKind.CHANGE: "changed",
}  # fmt: skip


def _bring_provisioner_up(lab: Lab, reporter: Reporter, artifacts: Artifacts, starting: Starting) -> None:
    artifacts.ensure_provisioner()
    accelerator = lab.accelerator(provisioner.ARCH)
    deadline = Deadline(provisioner.BOOT * accelerator.patience)
    ensure_provisioner_runs(lab, accelerator, reporter=reporter, starting=starting)
    wait_for_provisioner(lab, reporter, deadline)


def _bring_up(
    lab: Lab, manifest: Manifest, options: UpOptions, board: Board, artifacts: Artifacts, starting: Starting
) -> dict[str, Outcome]:
    store = DefinitionStore(lab)
    definitions = {machine.name: store.load(machine.name) for machine in manifest.machines}
    reporters = {name: board.reporter(name) for name in definitions}

    def work(name: str, reached: Callable[[Milestone], None], go_on: Callable[[], None]) -> None:
        try:
            BringUp(
                lab, definitions[name], reporters[name], artifacts, options.timeout, reached=reached, interrupt=go_on
            ).run_on_provisioner(starting)
            reporters[name].say(f"{name}: up")
        except (PvmlabError, OSError) as error:
            told = HostError(error) if isinstance(error, OSError) and HostError.knows(error) else error
            reporters[name].say(f"{name}: failed: {told}")
            raise told from None
        finally:
            board.done(name)

    def skipped(name: str, why: str) -> None:
        reporters[name].say(f"{name}: skipped: {why}")

    waits = {machine.name: machine.after for machine in manifest.machines}
    jobs = options.jobs or usual_jobs(lab, list(definitions.values()))
    return Crew(waits, work, jobs=jobs, skipped=skipped).run()


def usual_jobs(lab: Lab, definitions: Sequence[VmDefinition]) -> int:
    """Return how many machines to have on their way at once: what the host's processors and free memory are good for.

    Emulated, a machine on its way keeps a processor busy; with hardware acceleration, half of one.
    """
    emulated = any(
        lab.accelerator(arch).kind is AcceleratorKind.TCG for arch in {definition.arch for definition in definitions}
    )
    by_processors = (os.cpu_count() or 1) * (1 if emulated else 2)
    largest = max((definition.memory_mib for definition in definitions), default=1)
    return max(1, min(by_processors, free_memory_mib() // largest, len(definitions)))


def free_memory_mib() -> int:
    """Return how much memory the host could give to machines (proc(5)); all it has, where it does not tell (macOS)."""
    try:
        found = re.search(r"^MemAvailable: +([0-9]+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) >> 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def _kind(machine: VmDefinition) -> tuple[object, ...]:
    """Return what decides from which artifacts a machine is made."""
    return machine.distro, machine.arch, machine.installer, machine.source, bool(machine.image)


def _lines(bad: Mapping[str, Outcome]) -> list[str]:
    lines = []
    for name, outcome in bad.items():
        lines.append(f"{name}: {outcome.state}: {outcome.why}")
        if isinstance(outcome.error, PvmlabError) and outcome.error.details:
            lines += [f"  {line}" for line in outcome.error.details.splitlines()]
    return lines
