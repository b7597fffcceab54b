"""Installs by the distributions' own installers, as the boot handler sees them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import document
from contracts.answers import BOOT_FILES, DOCUMENTS, MAIN
from contracts.machine import AnswerFile, Installer, VmDefinition
from contracts.report import InstallState, MachineStatus, Outcome, Phase, Report
from pxeboot_stack.boot_handler.handler import BootHandler
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts, write_definition, write_native

SOURCES = ("deb http://mirror.example/debian trixie main",)
NATIVE = [kind for kind in Installer if kind.is_native]


def machine_of(kind: Installer, **more: object) -> VmDefinition:
    return make_machine(installer=kind, package_sources=SOURCES, repository="http://mirror.example/os/", **more)


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture
def handler(lab: Settings) -> BootHandler:
    return BootHandler(lab, clock=lambda: 1000.0)


def define(lab: Settings, machine: VmDefinition) -> VmDefinition:
    write_definition(lab.vms, machine)
    write_native(lab, machine)
    return machine


def state(lab: Settings) -> MachineStatus:
    return document.loads(MachineStatus, (lab.status / "web1.json").read_bytes())


def boot(handler: BootHandler, machine: VmDefinition) -> str:
    """Have the machine fetch its boot script; return its token."""
    script = handler.boot_script(machine.mac, client=machine.ip).body
    assert f"web1 installs debian-12 by {machine.installer}" in script
    (token,) = set(re.findall(r"/m/([0-9a-f]{32})/", script))
    return str(token)


def refusal(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    assert "\n" not in caught.value.sentence
    return caught.value


@pytest.mark.parametrize("kind", NATIVE)
def test_a_machine_installs_once(handler: BootHandler, lab: Settings, kind: Installer) -> None:
    machine = define(lab, machine_of(kind))
    token = boot(handler, machine)
    assert state(lab).state is InstallState.BOOTING
    for name in DOCUMENTS[kind]:
        if name != "own.cfg":
            assert handler.machine_document(token, f"answers/{name}", client=machine.ip).body.strip()
    assert (state(lab).state, state(lab).phase) == (InstallState.INSTALLING, Phase.CONFIGURATION)
    report = Report(phase=Phase.BOOTLOADER, outcome=Outcome.DONE, percent=100, message="done")
    handler.take_report(token, document.dumps(report).encode(), client=machine.ip)
    assert "boots from its disk" in handler.boot_script(machine.mac, client=machine.ip).body
    error = refusal(lambda: handler.machine_document(token, f"answers/{MAIN[kind]}", client=machine.ip))
    assert (error.status, "its install has ended" in error.sentence) == (403, True)
    assert (state(lab).state, state(lab).installs) == (InstallState.INSTALLED, 1)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in NATIVE for name in BOOT_FILES[kind]])
def test_a_missing_boot_file_is_said(handler: BootHandler, lab: Settings, kind: Installer, name: str) -> None:
    machine = define(lab, machine_of(kind))
    (lab.images / "debian-12/x86_64/native" / name).unlink()
    error = refusal(lambda: handler.boot_script(machine.mac, client=machine.ip))
    assert (error.status, f"native/{name} of debian-12" in error.sentence) == (503, True)
    assert (state(lab).state, state(lab).message) == (InstallState.FAILED, error.sentence)


def test_an_own_installer_needs_none_of_ours(handler: BootHandler, lab: Settings) -> None:
    machine = define(lab, machine_of(Installer.PRESEED))
    assert not (lab.initrds / "x86_64").exists()
    assert boot(handler, machine)


@pytest.mark.parametrize("client", ["192.168.100.12", "192.168.100.1", "127.0.0.1", None])
@pytest.mark.parametrize("kind", NATIVE)
def test_answers_are_for_the_machine_itself(
    handler: BootHandler, lab: Settings, kind: Installer, client: str | None
) -> None:
    token = boot(handler, define(lab, machine_of(kind)))
    before = state(lab)
    for name in (*DOCUMENTS[kind], "nonsense"):
        for shown in (token, "0" * 32, "web1"):
            error = refusal(lambda: handler.machine_document(shown, f"answers/{name}", client=client))  # noqa: B023
            assert error.status == 403
            assert "THE-SECRET" not in error.sentence
    assert state(lab) == before


@pytest.mark.parametrize("name", ["..", "web1.json", "../config/", "preseed.cfg/", "own.cfg", "ks.cfg", ""])
def test_no_name_leads_anywhere(handler: BootHandler, lab: Settings, name: str) -> None:
    machine = define(lab, machine_of(Installer.PRESEED))
    token = boot(handler, machine)
    assert refusal(lambda: handler.machine_document(token, f"answers/{name}", client=machine.ip)).status == 404


def test_a_machine_of_ours_has_no_answers(handler: BootHandler, lab: Settings) -> None:
    machine = define(lab, make_machine())
    write_artifacts(lab)
    token = re.search(r"/m/([0-9a-f]{32})/", handler.boot_script(machine.mac, client=machine.ip).body)
    assert token is not None
    error = refusal(lambda: handler.machine_document(token[1], "answers/preseed.cfg", client=machine.ip))
    assert (error.status, "installed by pvmlab" in error.sentence) == (404, True)


@pytest.mark.parametrize("kind", NATIVE)
def test_an_own_answer_file_that_fails_stops_the_install_before_it_begins(
    handler: BootHandler, lab: Settings, kind: Installer
) -> None:
    machine = define(lab, machine_of(kind, answer_file=AnswerFile.TEMPLATE))
    (lab.vms / "web1.answers").write_text("{{ machine.nmae }}")
    error = refusal(lambda: handler.boot_script(machine.mac, client=machine.ip))
    assert (error.status, "nmae" in error.sentence) == (500, True)
    assert (state(lab).state, state(lab).message) == (InstallState.FAILED, error.sentence)
    (lab.vms / "web1.answers").write_text("{{ machine.name }}")
    assert "web1 installs" in handler.boot_script(machine.mac, client=machine.ip).body
