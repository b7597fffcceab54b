from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from contracts import document
from contracts.document import encode
from contracts.machine import VmDefinition
from contracts.orders import OrderKind
from contracts.report import InstallState, MachineStatus, Phase
from contracts.timeline import (
    Event,
    EventKind,
    RefusedDefinition,
    ServiceFaults,
    Stranger,
    Strangers,
    Timeline,
)
from lab import orders, status
from lab.lab import Lab
from lab.machine import MachineState
from lab.spec import Accelerator, AcceleratorKind
from pipeline.errors import MissingProgramError

Make = Callable[..., VmDefinition]


def test_target_shows_machine_and_install_state(
    lab: Lab,
    make_definition: Make,
    mark_running: Callable[[str], None],
    write_status: Callable[[MachineStatus], None],
) -> None:
    definition = make_definition()
    mark_running("web1")
    write_status(
        MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.INSTALLING, phase=Phase.SYSTEM, percent=40)
    )
    (view,) = status.view_targets(lab)
    assert (view.state, view.install, view.percent) == (MachineState.RUNNING, "installing: system", 40)
    assert (view.ip, view.fault, view.ssh) == ("192.168.100.2", None, "./pvmlab vm.shell web1")


def test_broken_definitions_and_statuses_are_shown_among_good_ones(lab: Lab, make_definition: Make) -> None:
    make_definition("web1")
    make_definition("web2", ip="192.168.100.3", mac="52:54:00:00:00:02")
    (lab.home.status / "web2.json").write_text("{")
    (lab.home.vms / "web3.json").write_text("{}")
    (lab.home.vms / "Bad_Name.json").write_text("{}")
    faults = {view.name: view.fault for view in status.view_targets(lab)}
    assert faults["web1"] is None
    assert faults["web2"] == "the install status of web2 is broken"
    assert faults["web3"] is not None
    assert faults["web3"].startswith("broken definition: document: missing key")
    assert "Bad_Name.json has no machine's name" in (faults["Bad_Name"] or "")


def test_empty_lab_can_be_shown_and_is_plain_data(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tcg = Accelerator(AcceleratorKind.TCG, "max", "no kvm", 5)
    monkeypatch.setattr(Lab, "accelerator", lambda _self, _arch: tcg)
    data = encode(status.view_lab(lab))
    assert data["accelerator"] == "tcg"
    assert data["machines"] == []
    assert data["provisioner"]["created"] is False
    assert data["provisioner"]["state"] == "off"


def test_host_without_qemu_can_be_shown(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_self: Lab, _arch: object) -> Accelerator:
        raise MissingProgramError("qemu-system-x86_64")

    monkeypatch.setattr(Lab, "accelerator", missing)
    view = status.view_lab(lab)
    assert view.accelerator == "none"
    assert "qemu-system-x86_64" in view.accelerator_reason


def test_what_the_services_refuse_is_shown_while_they_run(
    lab: Lab, make_definition: Make, mark_running: Callable[[str], None]
) -> None:
    make_definition("web1")
    make_definition("web2", ip="192.168.100.3", mac="52:54:00:00:00:02")
    make_definition("web3", ip="192.168.100.4", mac="52:54:00:00:00:03")
    refused = (
        RefusedDefinition(name="web1", reason="the definitions web1 and web9 have the same address x", kept=False),
        RefusedDefinition(name="web2", reason="cannot be read", kept=True),
    )
    (lab.home.status / "_faults.json").write_text(document.dumps(ServiceFaults(definitions=refused)))
    assert [view.served for view in status.view_targets(lab)] == [None, None, None]  # said by services that are off
    mark_running("provisioner")
    assert [view.served for view in status.view_targets(lab)] == [
        "the services refuse it: the definitions web1 and web9 have the same address x",
        "the services go on with its last good version: cannot be read",
        None,
    ]


def test_a_machine_that_hangs_is_explained_and_orders_are_shown(
    lab: Lab,
    make_definition: Make,
    mark_running: Callable[[str], None],
    write_status: Callable[[MachineStatus], None],
) -> None:
    definition = make_definition()
    seen = Event(time=1000.0, kind=EventKind.ACK, text="got 192.168.100.2")
    timeline = Timeline(name="web1", uuid=definition.uuid, events=(seen,))
    (lab.home.status / "web1.events.json").write_text(document.dumps(timeline))
    (view,) = status.view_targets(lab)
    assert (view.last_event, view.last_time, view.diagnosis) == ("got 192.168.100.2", 1000.0, "")  # it is off
    write_status(MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.BOOTING, updated=1500.0))
    (view,) = status.view_targets(lab)
    assert view.last_time == 1500.0  # a report that is no event: a percent more
    (lab.home.status / "web1.json").unlink()
    mark_running("web1")
    orders.give(lab, definition, OrderKind.RESCUE)
    (view,) = status.view_targets(lab)
    assert "no TFTP request came" in view.diagnosis
    assert view.ordered == "rescue"


def test_strangers_that_were_seen_of_late_are_shown(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tcg = Accelerator(AcceleratorKind.TCG, "max", "no kvm", 5)
    monkeypatch.setattr(Lab, "accelerator", lambda _self, _arch: tcg)
    now = time.time()
    seen = tuple(
        Stranger(mac=f"52:54:00:00:00:0{number}", first=0.0, last=last) for number, last in enumerate((now, 1000.0))
    )
    (lab.home.status / "_strangers.json").write_text(document.dumps(Strangers(strangers=seen)))
    assert status.view_lab(lab).strangers == ("52:54:00:00:00:00",)


@pytest.mark.parametrize(
    ("folder", "fault"),
    [("vms", "it cannot be read"), ("run", "cannot be read"), ("status", "the install status of web1 is broken")],
)
def test_what_another_user_made_is_a_fault_of_that_machine_alone(
    lab: Lab, make_definition: Make, monkeypatch: pytest.MonkeyPatch, folder: str, fault: str
) -> None:
    make_definition("web1")
    make_definition("web2", mac="52:54:00:00:00:02", ip="192.168.100.3")
    closed, plain = lab.home.root / folder / "web1.json", os.open

    def as_somebody_else(path: Any, *words: Any, **more: Any) -> int:
        if str(path) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path, *words, **more)

    def open_file(
        path: Path, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:  # fmt: skip
        return open(path, mode, buffering, encoding, errors, newline, opener=as_somebody_else)

    monkeypatch.setattr(os, "open", as_somebody_else)
    monkeypatch.setattr(Path, "open", open_file)
    first, second = status.view_targets(lab)
    assert fault in str(first.fault)
    assert second.fault is None
