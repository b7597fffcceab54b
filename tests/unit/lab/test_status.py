from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts.document import encode
from contracts.machine import VmDefinition
from contracts.report import InstallState, MachineStatus, Phase
from lab import status
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
