"""What the verbs ``lab.*`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.builds import DoitArtifacts
from cli.confirm import require_yes
from cli.creation_checks import require_creatable
from cli.failures import describe
from cli.output import emit, require_format, say
from cli.start_checks import require_documents
from contracts.document import encode
from contracts.machine import VmDefinition
from lab import manifest, manifest_apply, manifest_checks, manifest_plan
from lab.lab import Lab
from lab.manifest import Manifest
from lab.manifest_apply import LabUpError, UpOptions
from lab.manifest_crew import Outcome
from lab.manifest_plan import Action, ActionKind, Plan
from lab.progress import open_reporter
from lab.progress_many import open_board
from lab.status import TargetView, view_provisioner, view_targets
from lab.store import MachineRequest
from pipeline.errors import ExitCode, UsageError

_LOST = {ActionKind.REMOVE: "removed", ActionKind.RECREATE: "made anew"}


def up(
    files: Sequence[str], *, recreate: bool, prune: bool, yes: bool, jobs: int, timeout: float | None,
    output: str = "table",
) -> ExitCode:  # fmt: skip
    """Make the lab what a file says.

    Programs are told what became of each machine also if not all come up: then the exit code says so.

    :raises PvmlabError: if it cannot be, or, for people, not all machines come up.
    """
    require_format(output)
    lab = Lab.from_environment()
    wanted = _load(lab, files)
    agreed = _ask(_plan(lab, wanted, prune=prune), recreate=recreate, yes=yes) if recreate or prune else None
    options = UpOptions(recreate=recreate, prune=prune, agreed=agreed, jobs=jobs, timeout=timeout)
    artifacts = DoitArtifacts(wanted.mode)
    try:
        with open_board() as board:
            outcomes = manifest_apply.up(
                lab, wanted, options=options, board=board, artifacts=artifacts,
                check=lambda definition, request: _check(lab, definition, request, wanted),
            )  # fmt: skip
    except LabUpError as error:
        if output != "json":
            raise
        say(describe(error).text.rstrip())
        _emit_outcomes(error.outcomes)
        return error.exit_code
    if output == "json":
        _emit_outcomes(outcomes)
    return ExitCode.DONE


def _emit_outcomes(outcomes: Mapping[str, Outcome]) -> None:
    machines = [
        {"name": name, "state": outcome.state, "seconds": round(outcome.seconds, 1), "why": outcome.why}
        for name, outcome in outcomes.items()
    ]
    emit({"machines": machines}, output="json", table=[])


def _check(lab: Lab, definition: VmDefinition, request: MachineRequest | None, wanted: Manifest) -> None:
    lan = wanted.lan(lab.lan)
    if request is not None:
        require_creatable(lab, definition, request, lan=lan)
    else:
        require_documents(lab, definition, lan=lan)


def down(files: Sequence[str], *, timeout: float, output: str = "table") -> None:
    """Stop the machines of a file. :raises UsageError: for an unknown *output*."""
    require_format(output)
    lab = Lab.from_environment()
    wanted = _load(lab, files)
    with open_reporter() as reporter:
        outcomes = manifest_apply.down(lab, wanted, reporter=reporter, timeout=timeout)
    if output == "json":
        stopped = [{"name": name, "how": how, "forced": how.forced} for name, how in outcomes.items()]
        emit({"machines": stopped}, output=output, table=[])


def show_diff(files: Sequence[str], *, prune: bool, output: str) -> None:
    """Print what ``lab.up`` would do. :raises UsageError: for an unknown *output*."""
    lab = Lab.from_environment()
    plan = _plan(lab, _load(lab, files), prune=prune)
    rows = [("WHAT", "DO", "WHY", "NEEDS"), *map(_row, plan.actions)]
    if plan.actions or output != "table":
        data = {"actions": [encode(action) | {"needs": _needs(action)} for action in plan.actions], "extra": plan.extra}
        emit(data, output=output, table=rows)
    if plan.extra and output == "table":
        say(f"not in the file, and left alone without --prune: {', '.join(plan.extra)}")


def show_status(files: Sequence[str], *, output: str) -> None:
    """Print how the machines of a file stand. :raises UsageError: for an unknown *output*."""
    lab = Lab.from_environment()
    wanted = _load(lab, files)
    plan = _plan(lab, wanted, prune=False)
    views = {view.name: view for view in view_targets(lab)}
    provisioner = view_provisioner(lab)
    machines = [
        {
            "name": machine.name,
            "after": {one.name: one.condition.value for one in machine.after},
            "to_do": [_sentence(action) for action in plan.actions if action.name == machine.name],
            "machine": encode(views[machine.name]) if machine.name in views else None,
        }
        for machine in wanted.machines
    ]
    table = [
        ("NAME", "STATE", "INSTALL", "ADDRESS", "AFTER", "TO DO"),
        ("provisioner", provisioner.state.value, f"{provisioner.mode} mode, services {provisioner.services or 'off'}",
         provisioner.ip, "", "; ".join(_sentence(action) for action in plan.actions if action.name == "provisioner")),
        *(_status_row(entry, views.get(str(entry["name"]))) for entry in machines),
    ]  # fmt: skip
    emit({"provisioner": provisioner, "machines": machines, "extra": plan.extra}, output=output, table=table)


def _status_row(entry: dict[str, object], view: TargetView | None) -> tuple[str, ...]:
    after, to_do = entry["after"], entry["to_do"]
    waits = ", ".join(f"{name}: {condition}" for name, condition in after.items()) if isinstance(after, dict) else ""
    do = "; ".join(to_do) if isinstance(to_do, list) else ""
    if view is None:
        return str(entry["name"]), "missing", "", "", waits, do
    return view.name, view.state.value, view.fault or view.install, view.ip, waits, do


def _load(lab: Lab, files: Sequence[str]) -> Manifest:
    if len(files) > 1:
        raise UsageError("a lab is described by one file", resolution="anchors and defaults keep it short")
    return manifest.load(Path(files[0] if files else manifest.DEFAULT_FILE), lab.lan)


def _plan(lab: Lab, wanted: Manifest, *, prune: bool) -> Plan:
    current = manifest_checks.read_current(lab, needed=[machine.name for machine in wanted.machines])
    return manifest_plan.make_plan(wanted, current, prune=prune)


def _ask(plan: Plan, *, recreate: bool, yes: bool) -> frozenset[str] | None:
    """Return the machines that somebody agrees to lose; None for any, without asking."""
    if yes:
        return None
    lost = plan.of(ActionKind.REMOVE, *([ActionKind.RECREATE] if recreate else []))
    if lost:
        what = ", ".join(f"{action.name} ({_LOST[action.kind]})" for action in lost)
        require_yes(f"What is on the disks of these machines will be gone: {what}.", yes=yes)
    return frozenset(action.name for action in lost)


def _needs(action: Action) -> str:
    if action.kind in _LOST:
        return f"--{'prune' if action.kind is ActionKind.REMOVE else 'recreate'}: what is on its disk is lost"
    return "a restart" if action.restarts else ""


def _row(action: Action) -> tuple[str, str, str, str]:
    return action.name, action.kind.value, "; ".join(action.reasons), _needs(action)


def _sentence(action: Action) -> str:
    return f"{action.kind}: {'; '.join(action.reasons)}"
