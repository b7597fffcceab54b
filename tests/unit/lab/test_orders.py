from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.machine import VmDefinition
from contracts.orders import Order, OrderKind
from contracts.report import InstallState, MachineStatus
from lab import orders, target
from lab.journey import start
from lab.lab import Lab
from lab.progress import Reporter
from lab.spec import Accelerator, AcceleratorKind, Firmware
from pipeline.errors import ConflictError

Make = Callable[..., VmDefinition]
Write = Callable[[MachineStatus], None]
TCG = Accelerator(AcceleratorKind.TCG, "max", "no kvm", 5)


class Artifacts:
    """Has all there is. :ivar asked: how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def ensure_for(self, *_: object) -> None:
        self.asked += 1

    def ensure_image(self, *_: object) -> None:
        self.asked += 1

    def ensure_provisioner(self) -> None:
        self.asked += 1

    def seed_documents(self, *_: object) -> dict[str, str]:
        return {}


def installed(definition: VmDefinition) -> MachineStatus:
    return MachineStatus(name=definition.name, uuid=definition.uuid, state=InstallState.INSTALLED, installs=1)


def test_an_order_is_due_until_it_was_carried_out(lab: Lab, make_definition: Make) -> None:
    definition = make_definition()
    status = installed(definition)
    assert orders.find_due(lab, definition, status) is None
    order = orders.give(lab, definition, OrderKind.REINSTALL)
    assert orders.find_due(lab, definition, status) == order
    assert orders.find_due(lab, definition, dataclasses.replace(status, order=order.id)) is None
    newer = orders.give(lab, definition, OrderKind.RESCUE)
    assert orders.find_due(lab, definition, dataclasses.replace(status, order=order.id)) == newer
    orders.withdraw(lab, "web1")
    orders.withdraw(lab, "web1")
    assert orders.find_due(lab, definition, status) is None


@pytest.mark.parametrize("text", ["", "{", '{"kind": "reinstall"}'])
def test_an_order_that_makes_no_sense_is_none(lab: Lab, make_definition: Make, text: str) -> None:
    definition = make_definition()
    orders.order_path(lab, "web1").write_text(text)
    assert orders.find_due(lab, definition, installed(definition)) is None


@pytest.mark.parametrize("change", [{"id": "x"}, {"uuid": "x"}, {"schema": 2}])
def test_an_order_names_itself_and_its_machine_by_uuid(change: dict[str, object]) -> None:
    values: dict[str, object] = {
        "id": "00000000-0000-4000-8000-000000000001", "uuid": "00000000-0000-4000-8000-000000000002",
        "kind": OrderKind.RESCUE, "time": 1.0,
    }  # fmt: skip
    Order(**values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"UUID|schema"):
        Order(**values | change)  # type: ignore[arg-type]


def test_orders_are_no_definitions(lab: Lab, make_definition: Make) -> None:
    definition = make_definition()
    orders.give(lab, definition, OrderKind.REINSTALL)
    assert sorted(path.name for path in lab.home.vms.glob("*.json")) == ["web1.json"]


@pytest.mark.parametrize(
    ("state", "installs", "ordered", "first"),
    [
        (InstallState.NEW, 0, False, False),
        (InstallState.FAILED, 0, False, False),
        (InstallState.INSTALLED, 1, False, False),
        (InstallState.INSTALLED, 1, True, True),
        (InstallState.BOOTING, 1, False, True),  # an ordered install that was broken off
        (InstallState.RESCUE, 1, False, True),
        (InstallState.NEW, 0, True, True),
    ],
)
def test_a_machine_with_a_system_asks_the_network_first_when_it_has_to(
    lab: Lab, make_definition: Make, state: InstallState, installs: int, *, ordered: bool, first: bool
) -> None:
    definition = make_definition()
    status = dataclasses.replace(installed(definition), state=state, installs=installs)
    due = orders.give(lab, definition, OrderKind.REINSTALL) if ordered else None
    assert orders.boots_network_first(due, status) is first


def test_the_boot_order_follows(lab: Lab, make_definition: Make) -> None:
    boot = Firmware(Path("/code"), Path("/variables"))
    definition = make_definition()
    indices = {}
    for first in (False, True):
        spec = target.target_spec(
            lab, definition, accelerator=TCG, boot=boot, lan_socket=Path("/lan"), network_first=first
        )
        indices[first] = (spec.disks[0].boot_index, spec.lan.boot_index)
    assert indices == {False: (0, 1), True: (1, 0)}


def test_a_machine_that_runs_from_its_disk_cannot_carry_out_an_order(
    lab: Lab, make_definition: Make, mark_running: Callable[[str], None], write_status: Write, reporter: Reporter
) -> None:
    definition = make_definition()
    mark_running("web1")
    write_status(installed(definition))
    orders.give(lab, definition, OrderKind.REINSTALL)

    with pytest.raises(ConflictError, match=r"a reinstall is ordered, for which it has to boot anew"):
        start(lab, definition, reporter=reporter, artifacts=Artifacts(), wait=True)


def test_an_adopted_machine_is_not_started_and_nothing_is_built_for_it(
    lab: Lab, make_definition: Make, reporter: Reporter
) -> None:
    definition = dataclasses.replace(make_definition(), managed=False)
    artifacts = Artifacts()
    with pytest.raises(ConflictError, match=r"web1 was adopted: it is no machine that this lab runs"):
        target.start(lab, definition, TCG)
    with pytest.raises(ConflictError, match=r"web1 was adopted: it is no machine that this lab runs"):
        start(lab, definition, reporter=reporter, artifacts=artifacts, wait=True)
    assert artifacts.asked == 0
