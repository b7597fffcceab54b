from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.machine import VmDefinition
from lab import processes, status, target, tpm
from lab.lab import Lab
from lab.machine import Machine, QemuStartError
from lab.processes import ProcessRecord
from lab.spec import Accelerator, AcceleratorKind, Firmware, MachineSpec
from pipeline.errors import ExitCode, PrerequisiteError

Make = Callable[..., VmDefinition]


@pytest.fixture
def dead(lab: Lab) -> None:
    """Have the TPM of web1 be one whose process is gone, after a last word."""
    record = ProcessRecord(token="file=swtpm.log,prefix=x:", pid=2**22 + 1, start_time="1")  # above any process id
    processes.write_record(lab.home.run / "_tpm-web1.json", record)
    log = tpm.log_of(lab.home, "web1")
    log.parent.mkdir()
    log.write_text("libtpms: so it is\n6c22382b-fe90-48f4-bdc5-01c5c4a5df3f:Error: Could not write the state\n")


def test_a_machine_without_a_tpm_has_no_fault(lab: Lab) -> None:
    assert tpm.find_fault(lab.home, "web1") is None
    tpm.end(lab.home, "web1")


def test_a_dead_tpm_is_told_with_its_last_words(lab: Lab, dead: None) -> None:
    assert tpm.find_fault(lab.home, "web1") == (
        "its TPM (process 4194305) has died: Error: Could not write the state; it has one again after its next start"
    )


def test_a_start_that_fails_tells_what_the_tpm_said(
    lab: Lab, dead: None, make_definition: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(machine: Machine, spec: MachineSpec) -> None:
        raise QemuStartError("web1", ["tpm-emulator: TPM result for CMD_INIT: 0x101"], machine.logs.qemu)

    files = (Path("CODE.fd"), Path("vars.fd"))
    monkeypatch.setattr(target, "_prepare_firmware", lambda *_, **__: Firmware(*files))
    monkeypatch.setattr(target, "create_empty_disk", lambda path, size: None)
    monkeypatch.setattr("lab.network.SwitchNetwork.ensure_started", lambda self: self.socket)
    monkeypatch.setattr(tpm, "require_swtpm", lambda: None)
    monkeypatch.setattr(Machine, "start", fail)
    accelerator = Accelerator(AcceleratorKind.TCG, "max", "for the test", 5)
    with pytest.raises(QemuStartError) as caught:
        target.start(lab, make_definition(tpm=True), accelerator)
    assert caught.value.tail == [
        "tpm-emulator: TPM result for CMD_INIT: 0x101", "swtpm: libtpms: so it is",
        "swtpm: Error: Could not write the state",
    ]  # fmt: skip
    with pytest.raises(QemuStartError) as caught:
        target.start(lab, make_definition("web2", ip="192.168.100.3", mac="52:54:00:00:00:02"), accelerator)
    assert caught.value.tail == ["tpm-emulator: TPM result for CMD_INIT: 0x101"]


def test_the_list_tells_of_a_dead_tpm_while_its_machine_runs(
    lab: Lab, dead: None, make_definition: Make, mark_running: Callable[[str], None]
) -> None:
    make_definition(tpm=True)
    assert status.view_targets(lab)[0].diagnosis == ""
    mark_running("web1")
    assert "has died" in status.view_targets(lab)[0].diagnosis


def test_what_a_dead_tpm_left_is_removed(lab: Lab, dead: None) -> None:
    tpm.tpm_of(lab.home, "web1").socket.touch()
    tpm.end(lab.home, "web1")
    assert not list(lab.home.run.glob("*tpm*"))
    assert tpm.log_of(lab.home, "web1").exists()


def test_a_host_without_swtpm_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpm, "PROGRAM", "swtpm-of-nobody")
    with pytest.raises(PrerequisiteError, match="swtpm-of-nobody is not installed") as caught:
        tpm.start(lab.home, "web1", "x")
    assert caught.value.exit_code is ExitCode.PREREQUISITE
    assert not list(lab.home.run.glob("*tpm*"))
