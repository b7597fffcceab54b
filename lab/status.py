"""What there is in a lab and how it stands, as data. Looking changes nothing."""

from __future__ import annotations

import dataclasses
import time

from contracts.lan import Lan
from contracts.machine import VmDefinition
from contracts.report import InstallState, MachineStatus
from contracts.timeline import RefusedDefinition, ServiceFaults
from lab import orders, provisioner, target
from lab.diagnosis import diagnose
from lab.events import read_events, read_faults, read_strangers
from lab.lab import Lab
from lab.machine import MachineState
from lab.provisioner import ARCH
from lab.spec import Accelerator
from lab.store import BrokenDefinitionError, DefinitionStore
from pipeline.errors import PvmlabError

SILENCE = 30.0  # seconds after which a machine on its way to an installed system is asked why
RECENT = 3600.0  # seconds in which a stranger was seen to be worth a line
_AT_REST = {InstallState.INSTALLED, InstallState.FAILED, InstallState.RESCUE}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetView:
    """A target machine.

    :ivar state: off, running or crashed. :ivar install: its install state, with the phase while it installs.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProvisionerView:
    """The provisioner.

    :ivar mode: vm, or host (:mod:`lab.host_mode`). :ivar interface: of this host, which the lab's network is joined
        with in host mode; empty for none. :ivar services: what it says of itself, empty if it is off or has said
        nothing yet.
    """

    created: bool
    mode: str
    interface: str
    state: MachineState
    services: str
    message: str
    ip: str
    ssh_port: int | None
    ssh: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabView:
    """A whole lab.

    :ivar lan: the settings of its network. :ivar strangers: MAC addresses of unknown machines that were seen of late,
        the latest first.
    """

    home: str
    cache: str
    subnet: str
    lan: Lan
    network_running: bool
    accelerator: str
    accelerator_reason: str
    provisioner: ProvisionerView
    machines: tuple[TargetView, ...]
    strangers: tuple[str, ...]


def view_lab(lab: Lab) -> LabView:
    """Return how everything stands."""
    accelerator = _accelerator(lab)
    return LabView(
        home=str(lab.home.root),
        cache=str(lab.cache.root),
        subnet=lab.lan.subnet,
        lan=lab.lan,
        network_running=lab.network.is_running(),
        accelerator=accelerator.kind.value if isinstance(accelerator, Accelerator) else "none",
        accelerator_reason=accelerator.reason if isinstance(accelerator, Accelerator) else accelerator,
        provisioner=view_provisioner(lab),
        machines=tuple(view_targets(lab)),
        strangers=tuple(stranger.mac for stranger in read_strangers(lab) if time.time() - stranger.last < RECENT),
    )


def view_provisioner(lab: Lab) -> ProvisionerView:
    """Return how the provisioner stands."""
    record, state = provisioner.find_record(lab), lab.provisioner.state()
    said = provisioner.find_announcement(lab) if state is MachineState.RUNNING else None
    return ProvisionerView(
        created=record is not None,
        mode=lab.provisioner_mode.value,
        interface=record.interface if record else "",
        state=state,
        services=said.state.value if said else "",
        message=said.message if said else "",
        ip=str(lab.lan.provisioner),
        ssh_port=record.ssh_port if record else None,
        ssh="./pvmlab vm.shell provisioner",
    )


def view_targets(lab: Lab) -> list[TargetView]:
    """Return how every target stands, by name; broken ones with their fault."""
    store = DefinitionStore(lab)
    # What the services said is true as long as they run.
    faults = read_faults(lab) if lab.provisioner.is_running() else ServiceFaults()
    served = {fault.name: _served(fault) for fault in faults.definitions}
    views = [
        dataclasses.replace(_view_target(lab, store, name), served=served.get(name)) for name in store.names()
    ]  # fmt: skip
    strays = [
        TargetView(name=name, state=MachineState.OFF, fault=f"{store.folder / name}.json has no machine's name")
        for name in store.strays()
    ]
    return views + strays


def _view_target(lab: Lab, store: DefinitionStore, name: str) -> TargetView:
    try:
        state = lab.machine(name).state()
    except PvmlabError as error:  # a damaged process record
        return TargetView(name=name, state=MachineState.OFF, fault=error.brief)
    try:
        definition = store.load(name)
        return _view(lab, definition, target.read_status(lab, definition), state)
    except BrokenDefinitionError as error:
        return TargetView(name=name, state=state, fault=f"broken definition: {'; '.join(error.faults)}")
    except PvmlabError as error:
        return TargetView(name=name, state=state, fault=error.brief)


def _served(fault: RefusedDefinition) -> str:
    how = "the services go on with its last good version" if fault.kept else "the services refuse it"
    return f"{how}: {fault.reason}"


def _view(lab: Lab, definition: VmDefinition, status: MachineStatus, state: MachineState) -> TargetView:
    install, now = status.state.value, time.time()
    events = read_events(lab, definition, status)
    last = max(events, key=lambda event: event.latest, default=None)
    due = orders.find_due(lab, definition, status)
    waiting = state is MachineState.RUNNING and (status.state not in _AT_REST or due is not None)
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
        diagnosis=diagnose(status, events, now=now) if waiting and silent and last else "",
        ssh=f"./pvmlab vm.shell {definition.name}",
    )


def _accelerator(lab: Lab) -> Accelerator | str:
    """Return how guests run, or why none can."""
    try:
        return lab.accelerator(ARCH)
    except PvmlabError as error:
        return error.brief
