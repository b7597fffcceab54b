"""What there is in a lab, and whether what its lab.yaml asks for may be done: all told at once, before anything is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from contracts.lan import Lan
from contracts.machine import VmDefinition
from distros.registry import require_release
from lab import processes, provisioner, target
from lab.cards import require_asked
from lab.hardware import require_makeable
from lab.install_status import is_installed_next
from lab.lab import Lab
from lab.machine_errors import noted, raise_all
from lab.manifest import Manifest, WantedMachine
from lab.manifest_plan import ActionKind, CurrentLab, CurrentMachine, Plan, changed
from lab.native import require_memory
from lab.network_settings import read_settings, require_usable_lan
from lab.provisioner_record import ProvisionerMode
from lab.store import DefinitionStore, MachineRequest
from pipeline.errors import ConflictError, PvmlabError

Check = Callable[[VmDefinition, MachineRequest | None], None]
"""Is shown a machine before its start, with what is asked for if it is still to be made."""


def read_current(lab: Lab, *, needed: Collection[str] | None = None) -> CurrentLab:
    """Return what is there. Looking changes nothing.

    :param needed: machines that must be understood; None for all. The others' faults keep nobody from looking.
    :raises PvmlabError: for machines that cannot be understood, naming all of them.
    """
    store, record = DefinitionStore(lab), provisioner.find_record(lab)
    machines: dict[str, CurrentMachine] = {}
    errors: dict[str, PvmlabError] = {}
    for name in store.names():
        with noted(errors, name):
            definition, process = store.load(name), lab.machine(name).process()
            machines[name] = CurrentMachine(
                definition=definition,
                running=process is not None,
                user_data=store.find_user_data(name),
                answers=store.find_answers(name),
                outdated=() if process is None else find_outdated(definition, processes.arguments(process)),
            )
    raise_all(
        {name: error for name, error in errors.items() if needed is None or name in needed}, what="cannot be understood"
    )
    return CurrentLab(
        lan=lab.lan,
        mode=record.mode if record is not None else None,
        provisioner_running=lab.provisioner.is_running(),
        machines=machines,
        broken=tuple(errors),
    )


def find_outdated(definition: VmDefinition, words: Sequence[str]) -> tuple[str, ...]:
    """Return what of the machine's hardware was changed since its QEMU was started with *words*, for people."""
    running = dict(zip(reversed(words[:-1]), reversed(words[1:]), strict=True))  # of two, the first is ours
    return tuple(
        f"{what}: runs with {running[option]} until its next start, not {wanted}"
        for option, what, wanted in (
            ("-smp", "cpus", str(definition.cpus)),
            ("-m", "memory (MiB)", str(definition.memory_mib)),
        )
        if running.get(option, "").isdecimal() and running[option] != wanted
    )


def require_allowed(plan: Plan, manifest: Manifest, current: CurrentLab, *, recreate: bool) -> None:
    """Check that *plan* may be carried out.

    :raises ConflictError: if machines have to be made anew without *recreate*; if the network is to be another one
        under machines; if a machine of the file is not the lab's to run.
    """
    adopted = [machine.name for machine in manifest.machines if _is_adopted(current, machine.name)]
    if adopted:
        raise ConflictError(
            f"{', '.join(adopted)}: adopted, no machine that this lab runs", resolution="leave it out of the file"
        )
    if plan.of(ActionKind.NETWORK) and (current.machines or current.provisioner_running):
        raise ConflictError(
            "the network cannot become another one while there are machines or a provisioner on it",
            details="\n".join(reason for action in plan.of(ActionKind.NETWORK) for reason in action.reasons),
            resolution="./pvmlab clean first, which removes all machines",
        )
    lost = plan.of(ActionKind.RECREATE)
    if lost and not recreate:
        raise ConflictError(
            f"{', '.join(action.name for action in lost)}: this cannot be changed in a machine that is there",
            details="\n".join(f"{action.name}: {'; '.join(action.reasons)}" for action in lost),
            resolution="--recreate makes them anew, and what is on their disks is lost",
        )


def require_possible(lab: Lab, plan: Plan, manifest: Manifest, current: CurrentLab, check: Check) -> None:
    """Check that all machines can be made and started: before one of them is removed, and none is left half-way.

    :param check: looks at those that will be made, and at those that will be started.
    :raises PvmlabError: if not, naming all machines that cannot.
    """
    lan = manifest.lan(lab.lan)
    if plan.of(ActionKind.NETWORK):
        mode = manifest.mode or current.mode or ProvisionerMode.VM
        require_usable_lan(lan, read_settings(lab.home), has_way_out=mode is ProvisionerMode.VM)
    made = {action.name for action in plan.of(ActionKind.CREATE, ActionKind.RECREATE)}
    leaving = {action.name for action in plan.of(ActionKind.REMOVE, ActionKind.RECREATE)}
    restarted = {action.name for action in plan.actions if action.restarts}
    staying = [machine.definition for name, machine in current.machines.items() if name not in leaving]
    owners = DefinitionStore(lab).owners(staying, lan)
    errors: dict[str, PvmlabError] = {}
    for machine in manifest.machines:
        name = machine.name
        with noted(errors, name):
            if name in made:
                _require_addresses(machine, lan, owners)
                definition = target.with_sources(machine.trial)
                require_makeable(definition, lab.cache)
                check(definition, machine.request)
            elif name in restarted or not current.machines[name].running:
                definition = changed(current.machines[name].definition, machine)
                if is_installed_next(lab, definition):
                    require_memory(definition, lab.cache, require_release(definition.distro, definition.arch))
                check(definition, None)
    raise_all(errors, what="cannot be made or started like this")


def _require_addresses(machine: WantedMachine, lan: Lan, owners: dict[str, str]) -> None:
    try:
        require_asked(machine.request, lan, owners)
    except PvmlabError as error:
        raise ConflictError(f"{machine.name}: {error.brief}", resolution=error.resolution) from None


def _is_adopted(current: CurrentLab, name: str) -> bool:
    there = current.machines.get(name)
    return there is not None and not there.definition.managed
