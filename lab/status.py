"""What there is in a lab and how it stands, as data. Looking changes nothing."""

from __future__ import annotations

import dataclasses
import time

from contracts.lan import Lan
from lab import provisioner
from lab.events import read_strangers
from lab.lab import Lab
from lab.machine import MachineState
from lab.provisioner import ARCH
from lab.spec import Accelerator
from lab.target_views import SILENCE, TargetView, view_targets
from pipeline.errors import PvmlabError

__all__ = ["SILENCE", "LabView", "ProvisionerView", "TargetView", "view_lab", "view_provisioner", "view_targets"]

RECENT = 3600.0  # seconds in which a stranger was seen to be worth a line


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


def _accelerator(lab: Lab) -> Accelerator | str:
    """Return how guests run, or why none can."""
    try:
        return lab.accelerator(ARCH)
    except PvmlabError as error:
        return error.brief
