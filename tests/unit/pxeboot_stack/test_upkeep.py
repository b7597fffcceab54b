from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from contracts import document
from contracts.report import InstallState, MachineStatus
from contracts.timeline import EventKind, ServiceFaults
from contracts.tokens import RECORDS, record_name
from pxeboot_stack import watcher
from pxeboot_stack.boot_handler import upkeep
from pxeboot_stack.boot_handler.handler import BootHandler
from pxeboot_stack.boot_handler.metrics import Metrics
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.boot_handler.upkeep import Upkeep
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts, write_definition

MACHINE = make_machine()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = make_settings(tmp_path)
    write_artifacts(made)
    write_definition(made.vms, MACHINE)
    made.run.dnsmasq_pid.write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(watcher, "_PROGRAM", Path("/proc/self/comm").read_text().strip())  # this test stands for it
    return made


@pytest.fixture
def handler(lab: Settings) -> BootHandler:
    return BootHandler(lab)


@pytest.fixture
def work(handler: BootHandler, lab: Settings) -> Upkeep:
    return Upkeep(handler, lab)


def faults(lab: Settings) -> ServiceFaults:
    return document.loads(ServiceFaults, (lab.status / "_faults.json").read_bytes())


def test_what_cannot_be_used_is_told_to_the_host(work: Upkeep, lab: Settings) -> None:
    asyncio.run(work.work())
    assert faults(lab) == ServiceFaults()
    (lab.vms / "web1.json").write_text("{")
    (lab.vms / "web2.json").write_text("[]")
    work._handler.definitions._looked = 0.0  # a sweep is due
    asyncio.run(work.work())
    first, second = faults(lab).definitions
    assert (first.name, first.kept, "not JSON" in first.reason) == ("web1", True, True)
    assert (second.name, second.kept) == ("web2", False)
    write_definition(lab.vms, MACHINE)
    (lab.vms / "web2.json").unlink()
    asyncio.run(work.work())
    assert faults(lab) == ServiceFaults()
    lab.vms.rename(lab.vms.with_name("away"))
    asyncio.run(work.work())
    assert "cannot read" in faults(lab).unreadable


def test_states_are_read_before_machines_ask(work: Upkeep, handler: BootHandler, lab: Settings) -> None:
    status = MachineStatus(name="web1", uuid=MACHINE.uuid, state=InstallState.INSTALLED)
    (lab.status / "web1.json").write_text(document.dumps(status))
    (lab.status / "web2.json").write_text("{")
    write_definition(
        lab.vms, make_machine(name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid=MACHINE.uuid[:-1] + "0")
    )
    asyncio.run(work.work())
    assert handler.statuses.known() == {"web1": status}
    told = work.render_metrics(Metrics())
    assert 'pvmlab_machines{state="installed"} 1\npvmlab_machines{state="new"} 1\n' in told


def test_machines_that_are_gone_are_forgotten_and_adopted_ones_remembered(
    work: Upkeep, handler: BootHandler, lab: Settings
) -> None:
    handler.boot_script(MACHINE.mac, client=MACHINE.ip)
    handler.timelines.add(MACHINE, EventKind.NOTE, "x", now=1.0)
    handler.timelines.add_stranger("52:54:00:aa:bb:02", EventKind.MENU, "was shown the menu", now=1.0)
    other = make_machine(name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid=MACHINE.uuid[:-1] + "0")
    write_definition(lab.vms, other)
    (lab.vms / "web1.json").unlink()
    asyncio.run(work.work())
    assert handler.timelines.names() == ["web2"]
    assert handler.statuses.known() == {}
    assert handler.timelines.strangers() == []
    assert [event.text for event in handler.timelines.events(other)] == ["was shown the menu"]


def test_tokens_of_machines_that_are_gone_are_removed_but_not_of_those_with_a_broken_definition(
    work: Upkeep, handler: BootHandler, lab: Settings
) -> None:
    handler.boot_script(MACHINE.mac, client=MACHINE.ip)

    def kept_after_two_looks() -> bool:
        for _ in range(2):
            work._pruned -= upkeep.PRUNE_INTERVAL
            asyncio.run(work.work())
        return (lab.status / RECORDS / record_name(MACHINE.uuid)).exists()

    (lab.vms / "web1.json").unlink()
    (lab.vms / "web2.json").write_text("{")  # it may have been renamed by hand
    assert kept_after_two_looks()
    (lab.vms / "web2.json").unlink()
    assert not kept_after_two_looks()


def test_timelines_are_written_when_it_is_time(
    work: Upkeep, handler: BootHandler, lab: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler.timelines.add(MACHINE, EventKind.NOTE, "x", now=1.0)
    asyncio.run(work.work())
    assert not (lab.status / "web1.events.json").exists()
    work._flushed -= upkeep.FLUSH_INTERVAL
    asyncio.run(work.work())
    assert (lab.status / "web1.events.json").exists()


def test_all_is_well(work: Upkeep) -> None:
    asyncio.run(work.work())
    assert work.problems() == []
    assert work.is_alive()


FAULTS: dict[str, tuple[Callable[[Settings], object], str]] = {
    "definitions": (lambda lab: lab.vms.rename(lab.vms.with_name("away")), "cannot read"),
    "status": (lambda lab: lab.status.rename(lab.status.with_name("away")), "cannot be written to: No such file"),
    "images": (lambda lab: lab.images.rename(lab.images.with_name("away")), "images is not there"),
    "initrds": (lambda lab: lab.initrds.rename(lab.initrds.with_name("away")), "initrds is not there"),
    "no dnsmasq": (lambda lab: lab.run.dnsmasq_pid.unlink(), "dnsmasq does not run"),
    "dnsmasq ended": (lambda lab: lab.run.dnsmasq_pid.write_text("999999999"), "dnsmasq does not run"),
    "another program": (lambda lab: lab.run.dnsmasq_pid.write_text("1"), "dnsmasq does not run"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_each_fault_is_named_and_gone_when_it_is_repaired(work: Upkeep, lab: Settings, fault: str) -> None:
    make_it_happen, words = FAULTS[fault]
    make_it_happen(lab)
    (problem,) = work.problems()
    assert words in problem


def test_a_full_disk_is_a_problem(work: Upkeep, lab: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert work.problems() == [f"{lab.status} has no room left"]


def test_an_upkeep_that_does_not_work_any_more_is_not_alive(
    work: Upkeep, handler: BootHandler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handler.timelines, "flush", lambda: 1 / 0)
    work._flushed -= upkeep.FLUSH_INTERVAL
    asyncio.run(work.work())
    assert "the upkeep failed" in caplog.text
    assert work.is_alive()  # it is tried again
    work._worked -= upkeep.STALLED
    assert not work.is_alive()
    monkeypatch.undo()
    asyncio.run(work.work())
    assert work.is_alive()
