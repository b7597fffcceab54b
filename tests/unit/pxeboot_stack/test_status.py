from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import document
from contracts.report import MAX_EVENTS, InstallState, MachineStatus, Outcome, Phase, Report
from pxeboot_stack.boot_handler import status
from pxeboot_stack.boot_handler.refusal import Refusal
from tests.fakes.lab_files import make_machine

MACHINE = make_machine()
NEW = status.fresh(MACHINE)


def in_state(state: InstallState) -> MachineStatus:
    return dataclasses.replace(NEW, state=state)


def report(outcome: Outcome, phase: Phase = Phase.BOOTLOADER, percent: int = 50) -> Report:
    return Report(phase=phase, outcome=outcome, percent=percent, message="a message", lines=("last",))


def test_a_whole_install() -> None:
    now = status.install_script_fetched(NEW, now=1.0)
    assert (now.state, now.percent, now.phase) == (InstallState.BOOTING, 0, None)
    for number, phase in enumerate(Phase):
        now = status.reported(now, report(Outcome.RUNNING, phase, 10 * number), now=2.0 + number)
        assert (now.state, now.phase, now.percent) == (InstallState.INSTALLING, phase, 10 * number)
    now = status.reported(now, report(Outcome.DONE, percent=99), now=20.0)
    assert (now.state, now.percent, now.installs, now.updated) == (InstallState.INSTALLED, 100, 1, 20.0)
    assert [event.text for event in now.events] == [
        "boot script fetched: install",
        *(f"{phase}: a message" for phase in Phase),
        "bootloader done, installed: a message",
    ]
    after = status.disk_script_fetched(now, now=30.0)
    assert dataclasses.replace(after, events=now.events, updated=now.updated) == now


@pytest.mark.parametrize("state", list(InstallState))
def test_answers_that_are_fetched_are_a_sign_of_life_of_an_install_that_begins(state: InstallState) -> None:
    now = status.answers_fetched(in_state(state), now=5.0)
    if state is not InstallState.BOOTING:
        assert now == in_state(state)  # an installer reads them again, a person looks at them
        return
    assert (now.state, now.phase, now.percent, now.updated) == (
        InstallState.INSTALLING, Phase.CONFIGURATION, 5, 5.0,
    )  # fmt: skip
    assert [event.text for event in now.events] == ["answer file fetched"]


def test_a_failed_install_keeps_its_cause_and_is_offered_again() -> None:
    failed = status.reported(in_state(InstallState.INSTALLING), report(Outcome.FAILED, Phase.DISK), now=1.0)
    assert (failed.state, failed.phase, failed.lines) == (InstallState.FAILED, Phase.DISK, ("last",))
    again = status.install_script_fetched(failed, now=2.0)
    assert (again.state, again.phase, again.lines, again.installs) == (InstallState.BOOTING, None, (), 0)


@pytest.mark.parametrize(
    ("state", "outcome", "after"),
    [
        (InstallState.NEW, Outcome.RUNNING, InstallState.INSTALLING),
        (InstallState.NEW, Outcome.FAILED, InstallState.FAILED),
        (InstallState.NEW, Outcome.DONE, 409),
        (InstallState.BOOTING, Outcome.RUNNING, InstallState.INSTALLING),
        (InstallState.BOOTING, Outcome.FAILED, InstallState.FAILED),
        (InstallState.BOOTING, Outcome.DONE, InstallState.INSTALLED),
        (InstallState.INSTALLING, Outcome.RUNNING, InstallState.INSTALLING),
        (InstallState.INSTALLING, Outcome.FAILED, InstallState.FAILED),
        (InstallState.INSTALLING, Outcome.DONE, InstallState.INSTALLED),
        (InstallState.FAILED, Outcome.RUNNING, InstallState.INSTALLING),
        (InstallState.FAILED, Outcome.FAILED, InstallState.FAILED),
        (InstallState.FAILED, Outcome.DONE, InstallState.INSTALLED),
        (InstallState.INSTALLED, Outcome.RUNNING, 409),
        (InstallState.INSTALLED, Outcome.FAILED, 409),
        (InstallState.INSTALLED, Outcome.DONE, InstallState.INSTALLED),
    ],
)
def test_every_report_in_every_state(state: InstallState, outcome: Outcome, after: InstallState | int) -> None:
    if isinstance(after, InstallState):
        assert status.reported(in_state(state), report(outcome), now=1.0).state is after
        return
    with pytest.raises(Refusal) as caught:
        status.reported(in_state(state), report(outcome), now=1.0)
    assert caught.value.status == after


def test_a_report_that_comes_twice_counts_once() -> None:
    once = status.reported(in_state(InstallState.INSTALLING), report(Outcome.DONE), now=1.0)
    assert status.reported(once, report(Outcome.DONE), now=2.0) == once


@pytest.mark.parametrize("phase", list(Phase)[:-1])
def test_only_the_last_phase_ends_an_install(phase: Phase) -> None:
    with pytest.raises(Refusal, match="done with its last phase") as caught:
        status.reported(in_state(InstallState.INSTALLING), report(Outcome.DONE, phase), now=1.0)
    assert caught.value.status == 422


def test_percents_within_a_phase_are_no_events() -> None:
    now = status.reported(NEW, report(Outcome.RUNNING, Phase.SYSTEM, 30), now=1.0)
    for percent in range(31, 90):
        now = status.reported(now, report(Outcome.RUNNING, Phase.SYSTEM, percent), now=2.0)
    assert (now.percent, len(now.events), now.updated) == (89, 1, 2.0)


def test_a_refused_boot_is_told_once() -> None:
    now = status.refused(NEW, "no kernel", now=1.0)
    assert (now.state, now.message) == (InstallState.FAILED, "no kernel")
    assert status.refused(now, "no kernel", now=2.0) == now
    assert len(status.refused(now, "no initrd", now=3.0).events) == 2


def test_the_timeline_is_bounded_and_the_oldest_go_first() -> None:
    now = NEW
    for number in range(MAX_EVENTS + 50):
        now = status.disk_script_fetched(now, now=float(number))
    assert len(now.events) == MAX_EVENTS
    assert now.events[0].time == 50.0


@given(st.text(max_size=2000))
def test_what_machines_say_is_harmless_on_a_terminal(text: str) -> None:
    line = status.plain_line(text)
    assert line.isprintable() or line == ""
    assert len(line) <= status.MAX_LINE


def test_the_store_keeps_a_status(tmp_path: Path) -> None:
    store = status.StatusStore(tmp_path)
    assert store.read(MACHINE) == NEW
    store.write(MACHINE, in_state(InstallState.INSTALLED))
    assert store.read(MACHINE).state is InstallState.INSTALLED
    assert status.StatusStore(tmp_path).read(MACHINE).state is InstallState.INSTALLED
    assert document.loads(MachineStatus, (tmp_path / "web1.json").read_bytes()).name == "web1"


def test_the_status_of_an_older_machine_of_that_name_is_stale(tmp_path: Path) -> None:
    store = status.StatusStore(tmp_path)
    store.write(MACHINE, in_state(InstallState.INSTALLED))
    again = make_machine(uuid="00000000-0000-4000-8000-000000000002")
    assert store.read(again) == status.fresh(again)


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', "[]"])
def test_a_status_that_cannot_be_understood_is_never_taken_for_a_new_machine(tmp_path: Path, text: str) -> None:
    (tmp_path / "web1.json").write_text(text)
    with pytest.raises(Refusal, match=r"remove status/web1\.json to start afresh") as caught:
        status.StatusStore(tmp_path).read(MACHINE)
    assert caught.value.status == 500


def test_a_status_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="cannot be written: No such file") as caught:
        status.StatusStore(tmp_path / "missing").write(MACHINE, NEW)
    assert caught.value.status == 503
