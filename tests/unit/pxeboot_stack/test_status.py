from __future__ import annotations

import dataclasses
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import document
from contracts.orders import Order, OrderKind
from contracts.report import MAX_TRANSITIONS, InstallState, MachineStatus, Outcome, Phase, Report
from contracts.timeline import Source
from pxeboot_stack.boot_handler import status, write_behind
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.status import Boot
from pxeboot_stack.boot_handler.write_behind import WriteBehind
from tests.fakes.lab_files import make_machine

MACHINE = make_machine()
NEW = status.fresh(MACHINE)


def in_state(state: InstallState) -> MachineStatus:
    return dataclasses.replace(NEW, state=state)


def order(kind: OrderKind = OrderKind.REINSTALL, number: int = 7, uuid: str = MACHINE.uuid) -> Order:
    return Order(id=f"00000000-0000-4000-8000-{number:012}", kind=kind, uuid=uuid, time=1.0)


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
        "boot script: install",
        *(f"{phase}: a message" for phase in Phase),
        "bootloader done, installed: a message",
    ]
    assert {event.kind.source for event in now.events} == {Source.BOOT, Source.INSTALL}
    assert status.disk_script_fetched(now, now=30.0) is now


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


DONE, RUNNING, FAILED = Outcome.DONE, Outcome.RUNNING, Outcome.FAILED
_S = InstallState
REPORTS: dict[InstallState, dict[Outcome, InstallState | int]] = {
    _S.NEW: {RUNNING: _S.INSTALLING, FAILED: _S.FAILED, DONE: 409},
    _S.BOOTING: {RUNNING: _S.INSTALLING, FAILED: _S.FAILED, DONE: _S.INSTALLED},
    _S.INSTALLING: {RUNNING: _S.INSTALLING, FAILED: _S.FAILED, DONE: _S.INSTALLED},
    _S.FAILED: {RUNNING: _S.INSTALLING, FAILED: _S.FAILED, DONE: _S.INSTALLED},
    _S.INSTALLED: {RUNNING: 409, FAILED: 409, DONE: _S.INSTALLED},
    _S.RESCUE: {RUNNING: 409, FAILED: 409, DONE: 409},
}
# What a machine boots: without an order, with one to install once more, with one to go into the rescue shell, and with
# either after it was carried out.
BOOTS: dict[InstallState, tuple[Boot, Boot, Boot, Boot]] = {
    _S.NEW: (Boot.INSTALL, Boot.INSTALL, Boot.RESCUE, Boot.INSTALL),
    _S.BOOTING: (Boot.INSTALL, Boot.INSTALL, Boot.RESCUE, Boot.INSTALL),
    _S.INSTALLING: (Boot.INSTALL, Boot.INSTALL, Boot.RESCUE, Boot.INSTALL),
    _S.FAILED: (Boot.INSTALL, Boot.INSTALL, Boot.RESCUE, Boot.INSTALL),
    _S.INSTALLED: (Boot.DISK, Boot.INSTALL, Boot.RESCUE, Boot.DISK),
    _S.RESCUE: (Boot.DISK, Boot.INSTALL, Boot.RESCUE, Boot.DISK),  # from an installed system, see below
}


@pytest.mark.parametrize("state", list(InstallState))
@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_report_in_every_state(state: InstallState, outcome: Outcome) -> None:
    after = REPORTS[state][outcome]
    if isinstance(after, InstallState):
        assert status.reported(in_state(state), report(outcome), now=1.0).state is after
        return
    with pytest.raises(Refusal) as caught:
        status.reported(in_state(state), report(outcome), now=1.0)
    assert caught.value.status == after


@pytest.mark.parametrize("state", list(InstallState))
def test_every_boot_in_every_state(state: InstallState) -> None:
    resume = InstallState.INSTALLED if state is InstallState.RESCUE else None
    known = dataclasses.replace(in_state(state), resume=resume)
    done = dataclasses.replace(known, order=order().id)
    rescue = order(OrderKind.RESCUE)
    found = (
        status.decide(known, None), status.decide(known, order()), status.decide(known, rescue),
        status.decide(done, order()),
    )  # fmt: skip
    assert found == BOOTS[state]
    assert status.decide(done, rescue) is BOOTS[state][3]


@pytest.mark.parametrize("state", list(InstallState))
def test_every_script_in_every_state(state: InstallState) -> None:
    known = in_state(state)
    assert status.install_script_fetched(known, now=1.0).state is InstallState.BOOTING
    rescued = status.rescue_script_fetched(known, order=order(OrderKind.RESCUE), now=1.0)
    assert (rescued.state, rescued.order) == (InstallState.RESCUE, order().id)
    disk = status.disk_script_fetched(known, now=1.0)
    assert disk.state is (InstallState.NEW if state is InstallState.RESCUE else state)
    refused = status.refused(known, "no kernel", now=1.0)
    assert refused.state is (InstallState.INSTALLED if state is InstallState.INSTALLED else InstallState.FAILED)


@pytest.mark.parametrize("state", [state for state in InstallState if state is not InstallState.RESCUE])
def test_a_rescue_ends_where_it_began(state: InstallState) -> None:
    known = dataclasses.replace(in_state(state), installs=1, percent=30)
    rescued = status.rescue_script_fetched(known, order=order(OrderKind.RESCUE), now=2.0)
    assert rescued.resume is state
    again = status.rescue_script_fetched(rescued, order=order(OrderKind.RESCUE, number=8), now=3.0)
    assert (again.resume, again.order) == (state, order(number=8).id)
    assert status.decide(again, order(OrderKind.RESCUE, number=8)) is status.decide(known, None)
    if state is InstallState.INSTALLED:
        over = status.disk_script_fetched(again, now=4.0)
        assert (over.state, over.resume, over.installs, over.percent) == (state, None, 1, 30)


def test_an_order_is_carried_out_once_and_only_by_the_machine_it_was_given_to() -> None:
    installed = dataclasses.replace(in_state(InstallState.INSTALLED), installs=1)
    sent = status.install_script_fetched(installed, order=order(), now=1.0)
    assert (sent.state, sent.order) == (InstallState.BOOTING, order().id)
    assert [event.text for event in sent.events] == ["reinstall, as ordered", "boot script: install"]
    done = status.reported(sent, report(Outcome.DONE), now=2.0)
    assert (done.installs, status.decide(done, order())) == (2, Boot.DISK)
    assert status.decide(done, order(number=8)) is Boot.INSTALL
    older = order(uuid="00000000-0000-4000-8000-000000000001")
    assert status.decide(installed, older) is Boot.DISK
    assert status.install_script_fetched(NEW, order=older, now=1.0).order == ""


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
    for number in range(MAX_TRANSITIONS + 50):
        now = status.install_script_fetched(now, now=60.0 * number)
    assert len(now.events) == MAX_TRANSITIONS
    assert now.events[0].time == 3000.0


def test_a_machine_that_asks_again_at_once_is_one_event_with_a_number() -> None:
    now = NEW
    for moment in (1.0, 2.0, 20.0, 60.0):
        now = status.install_script_fetched(now, now=moment)
    assert [(event.time, event.count, event.last) for event in now.events] == [(1.0, 3, 20.0), (60.0, 1, 0.0)]


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


def test_a_status_is_read_once_and_again_when_somebody_changed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = status.StatusStore(tmp_path)
    store.write(MACHINE, in_state(InstallState.FAILED))
    reading = document.loads
    monkeypatch.setattr(document, "loads", lambda *_: pytest.fail("read again"))
    assert store.read(MACHINE).state is InstallState.FAILED
    monkeypatch.setattr(document, "loads", reading)
    status.StatusStore(tmp_path).write(MACHINE, in_state(InstallState.INSTALLED))
    assert store.read(MACHINE).state is InstallState.INSTALLED
    (tmp_path / "web1.json").unlink()
    assert store.read(MACHINE) == NEW
    assert store.known() == {}


def test_a_status_that_waits_to_be_put_in_place_is_what_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_place = threading.Event()
    plain = WriteBehind._settle
    monkeypatch.setattr(WriteBehind, "_settle", lambda files: may_place.wait() and plain(files))
    files = WriteBehind(tmp_path)
    store = status.StatusStore(tmp_path, files)
    store.write(MACHINE, in_state(InstallState.FAILED))
    files.start()
    for state in (InstallState.BOOTING, InstallState.INSTALLED):
        store.write(MACHINE, in_state(state), flush=False)
        assert store.read(MACHINE).state is state
    assert status.StatusStore(tmp_path / "nowhere").read(MACHINE) == NEW
    may_place.set()
    files.stop()
    monkeypatch.setattr(document, "loads", lambda *_: pytest.fail("read again"))
    assert store.read(MACHINE).state is InstallState.INSTALLED
    (tmp_path / "web1.json").unlink()
    assert store.read(MACHINE) == NEW


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[status.StatusStore]:
    """A store whose machine is installed, which its file does not say yet."""
    monkeypatch.setattr(WriteBehind, "_settle", lambda _: False)
    files = WriteBehind(tmp_path)
    store = status.StatusStore(tmp_path, files)
    store.write(MACHINE, in_state(InstallState.INSTALLING))
    files.start()
    store.write(MACHINE, in_state(InstallState.INSTALLED))
    yield store
    files.stop()


def test_a_full_disk_does_not_bring_an_older_status_back(
    waiting: status.StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write_behind, "write_all", full)
    with pytest.raises(Refusal, match="cannot be written: No space left"):
        waiting.write(MACHINE, in_state(InstallState.RESCUE))
    assert status.decide(waiting.read(MACHINE), None) is Boot.DISK


def test_a_definition_that_comes_and_goes_does_not_bring_an_older_status_back(waiting: status.StatusStore) -> None:
    waiting.forget(MACHINE.name)
    assert status.decide(waiting.read(MACHINE), None) is Boot.DISK


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
