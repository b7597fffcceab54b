"""How the target machines stand, as data. Looking changes nothing, and imports little: lists are looked at all day."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from contracts.machine import MachineSource, VmDefinition
from contracts.report import InstallState, MachineStatus
from contracts.timeline import RefusedDefinition, ServiceFaults
from lab import orders, tpm
from lab.diagnosis import diagnose
from lab.events import read_events, read_faults, read_last_event
from lab.install_status import read_status
from lab.lab import Lab
from lab.machine import MachineState
from lab.store import BrokenDefinitionError, DefinitionStore
from lab.watch import look_at_all
from pipeline.errors import PvmlabError

SILENCE = 30.0  # seconds after which a machine on its way to an installed system is asked why
_AT_REST = {InstallState.INSTALLED, InstallState.FAILED, InstallState.RESCUE}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetView:
    """A target machine.

    :ivar state: off, running or crashed. :ivar install: its install state, with the phase while it installs; image for
        a machine from a cloud image.
    :ivar managed: False for an adopted machine, which the lab does not run: its state is off then.
    :ivar ordered: what it will do at its next network boot, as ordered: reinstall, rescue, or nothing.
    :ivar last_event: what it did last, for people; empty if nothing is known.
    :ivar diagnosis: why it does not go on, if it has been silent for long on its way to an installed system.
    :ivar ssh: what to type to get in. :ivar fault: why its definition or status cannot be used, or None; the other
        values are empty then. :ivar served: why the services do not use the definition as it is, or None.
    """

    name: str
    state: MachineState
    distro: str = ""
    arch: str = ""
    ip: str = ""
    mac: str = ""
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    install: str = ""
    percent: int = 0
    installs: int = 0
    managed: bool = True
    ordered: str = ""
    last_event: str = ""
    last_time: float = 0.0
    diagnosis: str = ""
    ssh: str = ""
    fault: str | None = None
    served: str | None = None


def view_targets(lab: Lab) -> list[TargetView]:
    """Return how every target stands, by name; broken ones with their fault."""
    store = DefinitionStore(lab)
    # What the services said is true as long as they run.
    faults = read_faults(lab) if lab.provisioner.is_running() else ServiceFaults()
    served = {fault.name: _served(fault) for fault in faults.definitions}
    names = store.names()
    states = _states(lab, names)
    views = [
        dataclasses.replace(_view_target(lab, store, name, states[name]), served=served.get(name)) for name in names
    ]
    strays = [
        TargetView(name=name, state=MachineState.OFF, fault=f"{store.folder / name}.json has no machine's name")
        for name in store.strays()
    ]
    return views + strays


def _states(lab: Lab, names: Sequence[str]) -> dict[str, MachineState | PvmlabError]:
    """Return what each machine does, or what is wrong with its process record."""
    states: dict[str, MachineState | PvmlabError] = {}
    for name in names:
        try:
            states[name] = lab.machine(name).state()
        except PvmlabError as error:
            states[name] = error
    running = [name for name in names if states[name] is MachineState.RUNNING]
    states.update(zip(running, look_at_all([lab.machine(name) for name in running]), strict=True))
    return states


def _view_target(
    lab: Lab, store: DefinitionStore, name: str, state: MachineState | PvmlabError
) -> TargetView:  # fmt: skip
    if isinstance(state, PvmlabError):
        return TargetView(name=name, state=MachineState.OFF, fault=state.brief)
    try:
        definition = store.load(name)
        return _view(lab, definition, read_status(lab, definition), state)
    except BrokenDefinitionError as error:
        return TargetView(name=name, state=state, fault=f"broken definition: {'; '.join(error.faults)}")
    except PvmlabError as error:
        return TargetView(name=name, state=state, fault=error.brief)


def _served(fault: RefusedDefinition) -> str:
    how = "the services go on with its last good version" if fault.kept else "the services refuse it"
    return f"{how}: {fault.reason}"


def _view(lab: Lab, definition: VmDefinition, status: MachineStatus, state: MachineState) -> TargetView:
    is_from_image = definition.source is MachineSource.IMAGE
    install, now = "image" if is_from_image else status.state.value, time.time()
    last = read_last_event(lab, definition, status)
    due = orders.find_due(lab, definition, status)
    rests = is_from_image or (status.state in _AT_REST and due is None)
    waiting = state is MachineState.RUNNING and not rests
    silent = now - max(status.updated, last.latest if last else 0.0) > SILENCE
    if status.phase is not None and status.state.value in {"installing", "failed"}:
        install = f"{install}: {status.phase}"
    return TargetView(
        name=definition.name,
        state=state,
        distro=definition.distro,
        arch=definition.arch.value,
        ip=definition.ip,
        mac=definition.mac,
        cpus=definition.cpus,
        memory_mib=definition.memory_mib,
        disk_gib=definition.disk_gib,
        install=install,
        percent=status.percent,
        installs=status.installs,
        managed=definition.managed,
        ordered=due.kind.value if due else "",
        last_event=last.text if last else "",
        last_time=max(status.updated, last.latest) if last else 0.0,
        diagnosis=_diagnosis(lab, definition, status, state, silent=waiting and silent and last is not None),
        ssh=f"./pvmlab vm.shell {definition.name}",
    )


def _diagnosis(
    lab: Lab, definition: VmDefinition, status: MachineStatus, state: MachineState, *, silent: bool
) -> str:  # fmt: skip
    """Return what is wrong with the machine, empty if nothing is known to be."""
    alive = state in {MachineState.RUNNING, MachineState.STUCK}
    if definition.tpm and alive and (fault := tpm.find_fault(lab.home, definition.name)):
        return fault
    return diagnose(status, read_events(lab, definition, status), now=time.time()) if silent else ""
