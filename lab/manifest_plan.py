"""What has to be done for a lab to be as its lab.yaml says: a pure function of what is there and what is wanted.

Nothing is decided later than here: :mod:`lab.manifest_apply` carries out what :func:`make_plan` returns, ``lab.diff``
prints it.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence

from contracts.lan import Lan
from contracts.machine import VmDefinition
from contracts.names import normalize_mac
from lab.manifest import Manifest, WantedMachine
from lab.provisioner_record import ProvisionerMode
from lab.store import MachineRequest


class ActionKind(enum.StrEnum):
    """What is done, in the order in which it is."""

    NETWORK = "network"  # other settings of the network
    PROVISIONER = "provisioner"  # made, or made anew in the other mode
    REMOVE = "remove"  # with --prune; what is on its disk is lost
    RECREATE = "recreate"  # with --recreate; what is on its disk is lost
    CHANGE = "change"
    CREATE = "create"
    START = "start"


class Effect(enum.IntEnum):
    """When a changed value counts. Higher is more."""

    LIVE = 0  # at once
    RESTART = 1  # after the next start
    RECREATE = 2  # in a new machine only


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that is not as it is wanted. :ivar now: and ``wanted``, for people; empty if they are not to be shown."""

    what: str
    now: str = ""
    wanted: str = ""
    effect: Effect

    def __str__(self) -> str:
        return f"{self.what}: {self.now or 'none'} -> {self.wanted or 'none'}" if self.now or self.wanted else self.what


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurrentMachine:
    """A machine that is there.

    :ivar user_data: a person's own. :ivar answers: a person's own answer file.
    :ivar outdated: what it runs with that was changed since its start, for people.
    """

    definition: VmDefinition
    running: bool
    user_data: str | None = None
    answers: str | None = None
    outdated: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurrentLab:
    """What is there.

    :ivar mode: of the provisioner, None if there is none yet.
    :ivar broken: names of machines that cannot be understood.
    """

    lan: Lan
    mode: ProvisionerMode | None
    provisioner_running: bool
    machines: Mapping[str, CurrentMachine]
    broken: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Action:
    """Something to do.

    :ivar name: of a machine, or ``network`` or ``provisioner``. :ivar reasons: why, for people.
    :ivar restarts: a machine that runs is stopped for it and started again.
    """

    kind: ActionKind
    name: str
    reasons: tuple[str, ...]
    restarts: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, in order. :ivar extra: machines of which the file says nothing, and that stay."""

    actions: tuple[Action, ...]
    extra: tuple[str, ...]

    def of(self, *kinds: ActionKind) -> list[Action]:
        """Return the actions of these kinds."""
        return [action for action in self.actions if action.kind in kinds]

    @property
    def is_empty(self) -> bool:
        """Whether the lab is as it is wanted, running."""
        return not self.actions


def make_plan(manifest: Manifest, current: CurrentLab, *, prune: bool = False) -> Plan:
    """Return what has to be done. :param prune: remove the machines that the file does not name."""
    wanted = {machine.name for machine in manifest.machines}
    extra = [name for name, machine in current.machines.items() if name not in wanted and machine.definition.managed]
    actions = [
        *_of_network(manifest, current),
        *_of_provisioner(manifest, current),
        *(_remove(name) for name in extra if prune),
    ]
    for machine in manifest.machines:
        actions += _of_machine(machine, current.machines.get(machine.name))
    order = list(ActionKind)
    actions.sort(key=lambda action: order.index(action.kind))  # stable: within a kind as in the file
    return Plan(actions=tuple(actions), extra=(*(() if prune else extra), *current.broken))


def find_differences(wanted: WantedMachine, there: CurrentMachine) -> list[Difference]:
    """Return what is other than wanted. What the file leaves to the lab is as wanted, whatever it is."""
    request, definition = wanted.request, there.definition
    found = [
        Difference(what=what, now=str(now), wanted=str(then), effect=effect)
        for what, effect, read in _FIELDS
        for now, then in [(read(definition), read(wanted.trial))]
        if now != then
    ]
    found += _address_differences(request, definition)
    if there.user_data != request.user_data:
        found.append(Difference(what="user-data is other", effect=Effect.RECREATE))
    if there.answers != (request.answers.text if request.answers else None):
        found.append(Difference(what="the answer file is other", effect=Effect.RECREATE))
    return found


_FIELDS: Sequence[tuple[str, Effect, Callable[[VmDefinition], object]]] = (
    ("distro", Effect.RECREATE, lambda machine: machine.distro),
    ("arch", Effect.RECREATE, lambda machine: machine.arch),
    ("source", Effect.RECREATE, lambda machine: machine.source),
    ("image", Effect.RECREATE, lambda machine: machine.image),
    ("installer", Effect.RECREATE, lambda machine: machine.installer),
    ("firmware", Effect.RECREATE, lambda machine: machine.firmware),
    ("secure-boot", Effect.RECREATE, lambda machine: machine.secure_boot),
    ("tpm", Effect.RECREATE, lambda machine: machine.tpm),
    ("disk-size (GiB)", Effect.RECREATE, lambda machine: machine.disk_gib),
    ("disk-bus", Effect.RECREATE, lambda machine: machine.disk_bus),
    ("more-disks", Effect.RECREATE, lambda machine: " ".join(f"{d.size_gib}G:{d.bus}" for d in machine.more_disks)),
    ("nics", Effect.RECREATE, lambda machine: len(machine.cards)),
    ("nic-model", Effect.RESTART, lambda machine: machine.nic_model),
    ("cpus", Effect.RESTART, lambda machine: machine.cpus),
    ("memory (MiB)", Effect.RESTART, lambda machine: machine.memory_mib),
    ("qemu-args", Effect.RESTART, lambda machine: " ".join(machine.qemu_arguments)),
    ("labels", Effect.LIVE, lambda machine: " ".join(sorted(f"{label.key}={label.value}" for label in machine.labels))),
)


def _address_differences(request: MachineRequest, definition: VmDefinition) -> Iterator[Difference]:
    """Yield the addresses that are asked for and are others. Leases, host keys and seeds go by them: a new machine."""
    asked = [(request.mac, request.ip, request.ipv6), *((c.mac, c.ip, c.ipv6) for c in request.more_cards)]
    for card, addresses in zip(definition.cards, asked, strict=False):
        for what, now, then in zip(("mac", "ip", "ipv6"), (card.mac, card.ip, card.ipv6), addresses, strict=True):
            if then and _spelled(what, then) != now:
                yield Difference(what=what, now=now, wanted=then, effect=Effect.RECREATE)


def _spelled(what: str, address: str) -> str:
    return normalize_mac(address) if what == "mac" else str(ipaddress.ip_address(address))


def changed(definition: VmDefinition, wanted: WantedMachine) -> VmDefinition:
    """Return *definition* with all that can be changed as it is wanted."""
    trial = wanted.trial
    return dataclasses.replace(
        definition,
        cpus=trial.cpus,
        memory_mib=trial.memory_mib,
        nic_model=trial.nic_model,
        qemu_arguments=trial.qemu_arguments,
        labels=trial.labels,
    )


def _of_network(manifest: Manifest, current: CurrentLab) -> Iterator[Action]:
    lan = manifest.lan(current.lan)
    reasons = tuple(
        f"{what}: {now or 'none'} -> {then or 'none'}"
        for what, now, then in (
            ("subnet", current.lan.subnet, lan.subnet),
            ("ipv6-subnet", current.lan.ipv6_subnet, lan.ipv6_subnet),
            ("domain", current.lan.domain, lan.domain),
        )
        if now != then
    )
    if reasons:
        yield Action(kind=ActionKind.NETWORK, name="network", reasons=reasons)


def _of_provisioner(manifest: Manifest, current: CurrentLab) -> Iterator[Action]:
    if current.mode is None:
        yield Action(kind=ActionKind.PROVISIONER, name="provisioner", reasons=("it is not there",))
    elif manifest.mode not in {None, current.mode}:
        reason = f"mode: {current.mode} -> {manifest.mode}"
        running = current.provisioner_running
        yield Action(kind=ActionKind.PROVISIONER, name="provisioner", reasons=(reason,), restarts=running)
    elif not current.provisioner_running:
        yield Action(kind=ActionKind.START, name="provisioner", reasons=("it is off",))


def _of_machine(machine: WantedMachine, there: CurrentMachine | None) -> Iterator[Action]:
    name = machine.name
    if there is None:
        request = machine.request
        reason = f"it is not there: {request.distro}, {request.cpus} cpus, {request.memory_mib} MiB"
        yield Action(kind=ActionKind.CREATE, name=name, reasons=(reason,))
        return
    found = find_differences(machine, there)
    reasons = (*map(str, found), *there.outdated)
    effect = max((difference.effect for difference in found), default=None)
    if there.outdated:
        effect = max(effect or Effect.LIVE, Effect.RESTART)
    if effect is Effect.RECREATE:
        yield Action(kind=ActionKind.RECREATE, name=name, reasons=reasons, restarts=there.running)
        return
    if effect is not None:
        restarts = there.running and effect is Effect.RESTART
        yield Action(kind=ActionKind.CHANGE, name=name, reasons=reasons, restarts=restarts)
    if not there.running:
        yield Action(kind=ActionKind.START, name=name, reasons=("it is off",))


def _remove(name: str) -> Action:
    return Action(kind=ActionKind.REMOVE, name=name, reasons=("the file does not name it",))
