"""What there is in a lab and how it stands, as data. Looking changes nothing."""

from __future__ import annotations

import dataclasses

from contracts.machine import VmDefinition
from contracts.report import MachineStatus
from lab import provisioner, target
from lab.lab import Lab
from lab.machine import MachineState
from lab.provisioner import ARCH
from lab.spec import Accelerator
from lab.store import BrokenDefinitionError, DefinitionStore
from pipeline.errors import PvmlabError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetView:
    """A target machine.

    :ivar state: off, running or crashed. :ivar install: its install state, with the phase while it installs.
    :ivar ssh: what to type to get in. :ivar fault: why its definition or status cannot be used, or None; the other
        values are empty then.
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
    ssh: str = ""
    fault: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProvisionerView:
    """The provisioner. :ivar services: what it says of itself, empty if it is off or has said nothing yet."""

    created: bool
    state: MachineState
    services: str
    message: str
    ip: str
    ssh_port: int | None
    ssh: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabView:
    """A whole lab."""

    home: str
    cache: str
    subnet: str
    network_running: bool
    accelerator: str
    accelerator_reason: str
    provisioner: ProvisionerView
    machines: tuple[TargetView, ...]


def view_lab(lab: Lab) -> LabView:
    """Return how everything stands."""
    accelerator = _accelerator(lab)
    return LabView(
        home=str(lab.home.root),
        cache=str(lab.cache.root),
        subnet=lab.lan.subnet,
        network_running=lab.network.is_running(),
        accelerator=accelerator.kind.value if isinstance(accelerator, Accelerator) else "none",
        accelerator_reason=accelerator.reason if isinstance(accelerator, Accelerator) else accelerator,
        provisioner=view_provisioner(lab),
        machines=tuple(view_targets(lab)),
    )


def view_provisioner(lab: Lab) -> ProvisionerView:
    """Return how the provisioner stands."""
    record, state = provisioner.find_record(lab), lab.provisioner.state()
    said = provisioner.find_announcement(lab) if state is MachineState.RUNNING else None
    return ProvisionerView(
        created=record is not None,
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
    views = [_view_target(lab, store, name) for name in store.names()]
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
        return _view(definition, target.read_status(lab, definition), state)
    except BrokenDefinitionError as error:
        return TargetView(name=name, state=state, fault=f"broken definition: {'; '.join(error.faults)}")
    except PvmlabError as error:
        return TargetView(name=name, state=state, fault=error.brief)


def _view(definition: VmDefinition, status: MachineStatus, state: MachineState) -> TargetView:
    install = status.state.value
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
        ssh=f"./pvmlab vm.shell {definition.name}",
    )


def _accelerator(lab: Lab) -> Accelerator | str:
    """Return how guests run, or why none can."""
    try:
        return lab.accelerator(ARCH)
    except PvmlabError as error:
        return error.brief
