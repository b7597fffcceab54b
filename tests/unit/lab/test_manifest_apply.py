"""Bringing a whole lab up and down, without machines: what is done, in which order, and what is not."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.machine import VmDefinition
from contracts.names import PROVISIONER_NAME
from contracts.orders import OrderKind
from contracts.report import InstallState, MachineStatus
from lab import changes, keys, manifest_apply, orders, processes, provisioner, target
from lab.follow import Follower
from lab.lab import Lab
from lab.machine import Machine, StopOutcome
from lab.manifest import Manifest, read
from lab.manifest_apply import LabUpError, UpOptions
from lab.manifest_checks import read_current
from lab.manifest_plan import ActionKind, make_plan
from lab.network import NetworkKind
from lab.network_settings import NetworkSettings, write_settings
from lab.provisioner_record import ProvisionerMode, ProvisionerRecord, write_record
from lab.spec import Accelerator, AcceleratorKind
from lab.store import DefinitionStore, MachineRequest
from pipeline import commit
from pipeline.errors import ConflictError, ExitCode, PvmlabError, WaitTimeoutError
from tests.unit.lab.conftest import HOST_KEY, RecordingReporter
from tests.unit.lab.test_journey import Artifacts

TCG = Accelerator(AcceleratorKind.TCG, "max", "for the test", 5)
TWO = "  db1: \n  web: {after: {db1: ssh}}\n"


class Board:
    """Keeps what was told, by machine."""

    def __init__(self) -> None:
        self.reporters: dict[str, RecordingReporter] = {}

    def reporter(self, name: str) -> RecordingReporter:
        return self.reporters.setdefault(name, RecordingReporter())

    def done(self, name: str) -> None:
        pass

    def said(self, name: str) -> list[str]:
        return self.reporters[name].said


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def road(
    monkeypatch: pytest.MonkeyPatch, mark_running: Callable[[str], None], lab: Lab, announce: Callable[..., None],
    write_status: Callable[[MachineStatus], None],
) -> list[str]:  # fmt: skip
    """Take the place of machines, disks and waits; the list gets what happened, in its order."""
    log: list[str] = []

    def create(_lab: Lab, mode: ProvisionerMode | None = None) -> bool:
        if provisioner.find_record(lab) is not None and mode is None:
            return False
        log.append(f"create provisioner {mode}")
        uuid = "00000000-0000-4000-8000-000000000000"
        write_record(lab.home, ProvisionerRecord(uuid=uuid, mode=mode or ProvisionerMode.VM))
        return True

    def start_provisioner(_lab: Lab, _accelerator: Accelerator) -> None:
        log.append("start provisioner")
        mark_running(PROVISIONER_NAME)
        announce("ready")

    def start_target(_lab: Lab, definition: VmDefinition, *_: Any, **__: Any) -> None:
        log.append(f"start {definition.name}")
        mark_running(definition.name)

    def stop(self: Machine, *, timeout: float, force: bool = False) -> StopOutcome:
        log.append(f"stop {self.name}")
        (lab.home.run / f"{self.name}.json").unlink(missing_ok=True)
        return StopOutcome.SHUT_DOWN

    def kill(self: Machine) -> None:
        if self.is_running():
            log.append(f"kill {self.name}")
        (lab.home.run / f"{self.name}.json").unlink(missing_ok=True)

    def installed(self: Follower) -> None:
        log.append(f"installed {self.definition.name}")
        name, uuid = self.definition.name, self.definition.uuid
        write_status(MachineStatus(name=name, uuid=uuid, state=InstallState.INSTALLED, installs=1))

    monkeypatch.setattr(Lab, "accelerator", lambda _self, _arch: TCG)
    monkeypatch.setattr(provisioner, "create", create)
    monkeypatch.setattr(provisioner, "start", start_provisioner)
    monkeypatch.setattr(provisioner, "wait_until", lambda *_, **__: None)
    monkeypatch.setattr(target, "start", start_target)
    monkeypatch.setattr(target, "_make_disks", lambda _lab, definition: log.append(f"disk {definition.name}"))
    monkeypatch.setattr(target, "make_key", lambda *_, **__: HOST_KEY)
    monkeypatch.setattr(target, "_package_sources", lambda _: ())
    monkeypatch.setattr(keys, "make_key", lambda *_, **__: HOST_KEY)
    monkeypatch.setattr(Machine, "stop", stop)
    monkeypatch.setattr(Machine, "kill", kill)
    monkeypatch.setattr("lab.network.SwitchNetwork.stop", lambda _: log.append("stop network"))
    monkeypatch.setattr(Follower, "wait_for_install", installed)
    monkeypatch.setattr(Follower, "wait_for_login", lambda self: log.append(f"login {self.definition.name}"))
    monkeypatch.setattr(Follower, "wait_for_cloud_init", lambda _: None)
    return log


def wanted(lab: Lab, body: str, top: str = "") -> Manifest:
    return read(f"version: 1\n{top}machines:\n{body}", Path("lab.yaml"), lab.lan)


def bring_up(lab: Lab, manifest: Manifest, board: Board, artifacts: Artifacts | None = None, **options: Any) -> Any:
    checked: list[str] = []
    outcomes = manifest_apply.up(
        lab, manifest, options=UpOptions(**options), board=board, artifacts=artifacts or Artifacts(),
        check=lambda definition, _: checked.append(definition.name),
    )  # fmt: skip
    return outcomes, checked


def test_a_new_lab_from_nothing_to_logins(lab: Lab, road: list[str], board: Board) -> None:
    artifacts = Artifacts()
    outcomes, checked = bring_up(lab, wanted(lab, TWO, "provisioner: {mode: host}\n"), board, artifacts)
    assert list(outcomes) == ["db1", "web"]
    assert checked == ["db1", "web"] * 2  # again when all is built
    assert road == [
        "create provisioner host", "disk db1", "disk web", "create provisioner host", "start provisioner",
        "start db1", "installed db1", "login db1", "start web", "installed web", "login web",
    ]  # fmt: skip
    assert artifacts.asked == ["debian-12:x86_64:pvmlab", "provisioner"]
    assert board.said("lab")[-1] == "all 2 machines are up"
    assert board.said("db1")[-1] == "db1: up"


def test_again_says_that_everything_is_up(lab: Lab, road: list[str], board: Board) -> None:
    bring_up(lab, wanted(lab, TWO), board)
    road.clear()
    bring_up(lab, wanted(lab, TWO), board)
    assert road == ["login db1", "login web"]
    assert board.said("lab")[-1] == "everything is up"


def test_two_at_once_are_a_conflict(lab: Lab, road: list[str], board: Board) -> None:
    with lab.changing_lab(), pytest.raises(ConflictError, match="another command is bringing this lab up or down"):
        bring_up(lab, wanted(lab, TWO), board)


def test_what_would_lose_a_disk_is_refused_before_anything_is_done(lab: Lab, road: list[str], board: Board) -> None:
    bring_up(lab, wanted(lab, "  a: \n"), board)
    before, artifacts = DefinitionStore(lab).load("a"), Artifacts()
    road.clear()
    other = wanted(lab, "  a: {disk-size: 9G}\n  b: \n")
    with pytest.raises(ConflictError, match="a: this cannot be changed") as caught:
        bring_up(lab, other, board, artifacts)
    assert "disk-size (GiB): 8 -> 9" in caught.value.details
    assert (road, artifacts.asked, DefinitionStore(lab).load_all()) == ([], [], [before])
    bring_up(lab, other, board, recreate=True)
    assert DefinitionStore(lab).load("a").disk_gib == 9
    assert DefinitionStore(lab).load("a").uuid != before.uuid


def test_a_change_stops_the_machine_and_starts_it_again(lab: Lab, road: list[str], board: Board) -> None:
    bring_up(lab, wanted(lab, "  a: \n"), board)
    before = DefinitionStore(lab).load("a")
    road.clear()
    bring_up(lab, wanted(lab, "  a: {memory: 2G, labels: {x: y}}\n"), board)
    assert road == ["stop a", "start a", "login a"]
    after = DefinitionStore(lab).load("a")
    assert (after.memory_mib, after.uuid, after.ip) == (2048, before.uuid, before.ip)
    road.clear()
    bring_up(lab, wanted(lab, "  a: {memory: 2G}\n"), board)  # a label needs no restart
    assert road == ["login a"]
    assert DefinitionStore(lab).load("a").labels == ()


def test_what_was_changed_by_hand_counts_after_a_start(
    lab: Lab, road: list[str], board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_up(lab, wanted(lab, "  a: \n"), board)
    words = ["qemu", "-smp", "2", "-m", "1024", "-name", "a", "-m", "9"]  # the last ones are a person's own
    monkeypatch.setattr(processes, "arguments", lambda _: words)
    assert make_plan(wanted(lab, "  a: \n"), read_current(lab)).is_empty
    changes.apply(lab, "a", changes.Change(memory_mib=2048))
    file = wanted(lab, "  a: {memory: 2G}\n")
    (action,) = make_plan(file, read_current(lab)).actions
    assert (action.kind, action.restarts) == (ActionKind.CHANGE, True)
    assert action.reasons == ("memory (MiB): runs with 1024 until its next start, not 2048",)
    road.clear()
    bring_up(lab, file, board)
    assert road == ["stop a", "start a", "login a"]


def test_prune_removes_what_the_file_does_not_name(lab: Lab, road: list[str], board: Board) -> None:
    bring_up(lab, wanted(lab, TWO), board)
    bring_up(lab, wanted(lab, "  db1: \n"), board)
    assert DefinitionStore(lab).names() == ["db1", "web"]
    bring_up(lab, wanted(lab, "  db1: \n"), board, prune=True)
    assert DefinitionStore(lab).names() == ["db1"]


def test_the_network_is_chosen_before_there_are_machines(lab: Lab, road: list[str], board: Board) -> None:
    top = "network: {subnet: 10.9.0.0/24}\n"
    bring_up(lab, wanted(lab, "  a: \n", top), board)
    assert lab.lan.subnet == "10.9.0.0/24"
    assert lab.lan.ipv6_subnet
    assert DefinitionStore(lab).load("a").ip == "10.9.0.2"
    with pytest.raises(ConflictError, match="the network cannot become another one"):
        bring_up(lab, wanted(lab, "  a: \n", "network: {subnet: 10.8.0.0/24}\n"), board)


def test_a_provisioner_in_the_other_mode_is_stopped_and_made_anew(lab: Lab, road: list[str], board: Board) -> None:
    bring_up(lab, wanted(lab, "  a: \n"), board)
    road.clear()
    bring_up(lab, wanted(lab, "  a: \n", "provisioner: {mode: host}\n"), board)
    assert road[:3] == ["stop provisioner", "create provisioner host", "create provisioner host"]
    assert "start provisioner" in road


def test_adopted_machines_are_not_the_files(lab: Lab, road: list[str], board: Board, make_definition: Any) -> None:
    make_definition("a", managed=False)
    with pytest.raises(ConflictError, match="a: adopted"):
        bring_up(lab, wanted(lab, "  a: \n"), board)


def test_a_failure_is_told_with_all_that_it_held_up(
    lab: Lab, road: list[str], board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def login(self: Follower) -> None:
        if self.definition.name == "db1":
            raise WaitTimeoutError("db1 did not answer", details="its console is empty")

    monkeypatch.setattr(Follower, "wait_for_login", login)
    with pytest.raises(LabUpError, match="2 of 3 machines did not come up") as caught:
        bring_up(lab, wanted(lab, f"{TWO}  alone: \n"), board)
    assert caught.value.exit_code is ExitCode.TIMEOUT
    assert caught.value.details.splitlines() == [
        "db1: failed: db1 did not answer",
        "  its console is empty",
        "web: skipped: it waits for db1 (ssh), which failed",
    ]  # fmt: skip
    assert board.said("db1")[-1] == "db1: failed: db1 did not answer"
    assert board.said("web") == ["web: skipped: it waits for db1 (ssh), which failed"]
    assert board.said("alone")[-1] == "alone: up"
    assert lab.machine("db1").is_running()  # people want to look


def test_machines_that_are_off_are_checked_too_and_those_that_run_are_not(
    lab: Lab, road: list[str], board: Board, make_definition: Any, mark_running: Callable[[str], None]
) -> None:
    make_definition("off")
    make_definition("runs", ip="192.168.100.3", mac="52:54:00:00:00:02")
    mark_running("runs")
    artifacts, seen = Artifacts(), []

    def refuse(definition: VmDefinition, request: MachineRequest | None) -> None:
        seen.append((definition.name, request is not None, len(artifacts.asked)))
        if artifacts.asked:
            raise PvmlabError("the schema that was built knows no such key")

    file = wanted(lab, "  off: \n  runs: \n  new: \n")
    with pytest.raises(PvmlabError, match="2 machines cannot be made or started like this") as caught:
        manifest_apply.up(lab, file, options=UpOptions(), board=board, artifacts=artifacts, check=refuse)
    assert seen == [("off", False, 0), ("new", True, 0), ("off", False, 1), ("new", True, 1)]
    assert caught.value.details.splitlines() == [
        "off: the schema that was built knows no such key", "new: the schema that was built knows no such key",
    ]  # fmt: skip
    assert (road, DefinitionStore(lab).names()) == ([], ["off", "runs"])


def test_a_check_that_fails_leaves_nothing(lab: Lab, road: list[str], board: Board) -> None:
    def refuse(_definition: VmDefinition, _request: MachineRequest | None) -> None:
        raise PvmlabError("its user-data is at fault")

    with pytest.raises(PvmlabError, match="user-data is at fault"):
        manifest_apply.up(
            lab, wanted(lab, "  a: \n"), options=UpOptions(), board=board, artifacts=Artifacts(), check=refuse
        )
    assert (road, DefinitionStore(lab).names()) == ([], [])


def test_an_address_of_a_machine_that_stays_is_told_before_anything_is_lost(
    lab: Lab, road: list[str], board: Board, make_definition: Any
) -> None:
    bring_up(lab, wanted(lab, "  a: \n"), board)
    make_definition("other", ip="192.168.100.50")
    before, artifacts = DefinitionStore(lab).load_all(), Artifacts()
    road.clear()
    file = wanted(lab, "  a: {ip: 192.168.100.50}\n  b: {mac: '52:54:00:00:00:01'}\n")
    with pytest.raises(PvmlabError, match="2 machines cannot be made") as caught:
        bring_up(lab, file, board, artifacts, recreate=True)
    assert "a: the address 192.168.100.50 is taken by other" in caught.value.details
    assert "b: the MAC address 52:54:00:00:00:01 is taken by other" in caught.value.details
    assert (road, artifacts.asked, DefinitionStore(lab).load_all()) == ([], [], before)
    bring_up(lab, file, board, recreate=True, prune=True)  # then its address is free
    assert DefinitionStore(lab).load("a").ip == "192.168.100.50"


def test_a_network_that_this_host_has_no_address_in_is_told_before_it_is_set(
    lab: Lab, road: list[str], board: Board
) -> None:
    write_settings(lab.home, NetworkSettings(kind=NetworkKind.BRIDGE, host_address="192.168.100.100"), lab.lan)
    with pytest.raises(PvmlabError, match=r"192\.168\.100\.100 cannot be this host's address in 10\.9\.0\.0/24"):
        bring_up(lab, wanted(lab, "  a: \n", "network: {subnet: 10.9.0.0/24}\n"), board)
    assert (road, lab.lan.subnet) == ([], "192.168.100.0/24")


def test_machines_may_swap_their_addresses(lab: Lab, road: list[str], board: Board) -> None:
    bring_up(lab, wanted(lab, "  a: {ip: 192.168.100.10}\n  b: {ip: 192.168.100.11}\n"), board)
    bring_up(lab, wanted(lab, "  a: {ip: 192.168.100.11}\n  b: {ip: 192.168.100.10}\n"), board, recreate=True)
    assert [machine.ip for machine in DefinitionStore(lab).load_all()] == ["192.168.100.11", "192.168.100.10"]


def test_no_machine_gets_an_address_that_another_one_asks_for(lab: Lab, road: list[str], board: Board) -> None:
    bring_up(lab, wanted(lab, "  a: \n  b: {ip: 192.168.100.2}\n"), board)
    assert [machine.ip for machine in DefinitionStore(lab).load_all()] == ["192.168.100.3", "192.168.100.2"]


def test_nothing_is_lost_of_which_nobody_was_asked(lab: Lab, road: list[str], board: Board) -> None:
    bring_up(lab, wanted(lab, f"{TWO}  c: \n"), board)
    with pytest.raises(ConflictError, match="what is on the disks of web would be lost, too"):
        bring_up(lab, wanted(lab, "  db1: \n"), board, prune=True, agreed=frozenset({"c"}))
    assert DefinitionStore(lab).names() == ["c", "db1", "web"]
    bring_up(lab, wanted(lab, "  db1: \n"), board, prune=True, agreed=frozenset({"c", "web"}))
    assert DefinitionStore(lab).names() == ["db1"]


def test_a_machine_that_is_ordered_into_its_rescue_shell_is_not_called_up(
    lab: Lab, road: list[str], board: Board
) -> None:
    bring_up(lab, wanted(lab, "  db1: \n"), board)
    lab.machine("db1").kill()
    orders.give(lab, DefinitionStore(lab).load("db1"), OrderKind.RESCUE)
    road.clear()
    with pytest.raises(LabUpError, match="2 of 2 machines did not come up") as caught:
        bring_up(lab, wanted(lab, TWO), board)
    assert caught.value.exit_code is ExitCode.CONFLICT
    assert caught.value.details.splitlines() == [
        "db1: failed: a rescue shell is ordered for db1", "web: skipped: it waits for db1 (ssh), which failed",
    ]  # fmt: skip
    assert "start db1" not in road


class Killed(BaseException):
    """What no clean-up of ours sees, as with SIGKILL."""


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_file_the_next_call_makes_the_lab_what_it_is_to_be(
    lab: Lab, road: list[str], board: Board, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:  # fmt: skip
    publish, left = commit.publish_bytes, 0

    def dying(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        nonlocal left
        left -= threading.current_thread() is threading.main_thread()  # in another, only that one would be dead
        dies = left == 0 and threading.current_thread() is threading.main_thread()
        if dies and not after:
            raise Killed
        publish(path, data, mode=mode)
        if dies:
            raise Killed

    monkeypatch.setattr(commit, "publish_bytes", dying)
    first = wanted(lab, "  a: {ip: 192.168.100.10}\n  b: {ip: 192.168.100.11}\n  gone: \n")
    second = wanted(
        lab, "  a: {ip: 192.168.100.11, user-data: {a: 1}}\n  b: {memory: 2G, labels: {x: y}}\n  c: {cpus: 1}\n"
        .replace("b: {", "b: {ip: 192.168.100.10, ")
    )  # fmt: skip
    for moment in itertools.count(1):
        left = 0
        bring_up(lab, first, board, recreate=True, prune=True)
        left = moment
        try:
            bring_up(lab, second, board, recreate=True, prune=True)
        except Killed:
            left = 0
            bring_up(lab, second, board, recreate=True, prune=True)
        else:
            break
        assert make_plan(second, read_current(lab)).is_empty
    assert moment > 8


def test_an_interrupt_ends_what_this_call_started_and_nothing_else(
    lab: Lab, road: list[str], board: Board, monkeypatch: pytest.MonkeyPatch, mark_running: Callable[[str], None]
) -> None:
    bring_up(lab, wanted(lab, "  old: \n"), board)
    waiting, seen = threading.Event(), threading.Event()

    def login(self: Follower) -> None:
        if self.definition.name == "new":
            waiting.set()
            while True:
                self.interrupt()
                seen.wait(0.01)

    def interrupted(self: Any) -> None:
        if waiting.wait(5):
            raise KeyboardInterrupt

    monkeypatch.setattr(Follower, "wait_for_login", login)
    monkeypatch.setattr("lab.manifest_crew.Crew._listen", interrupted)
    road.clear()
    with pytest.raises(KeyboardInterrupt):
        bring_up(lab, wanted(lab, "  new: \n  old: \n"), board)
    assert [line for line in road if line.startswith("kill")] == ["kill new"]
    assert lab.machine("old").is_running()
    with lab.changing_lab():
        pass


def test_down_stops_those_that_wait_before_those_that_are_waited_for(lab: Lab, road: list[str], board: Board) -> None:
    manifest = wanted(lab, f"{TWO}  edge: {{after: {{web: started}}}}\n")
    bring_up(lab, manifest, board)
    road.clear()
    outcomes = manifest_apply.down(lab, manifest, reporter=RecordingReporter())
    assert [line for line in road if line.startswith("stop")] == [
        "stop edge", "stop web", "stop db1", "stop provisioner", "stop network",
    ]  # fmt: skip
    assert list(outcomes) == ["edge", "web", "db1", "provisioner"]


def test_down_leaves_the_provisioner_to_machines_of_others(
    lab: Lab, road: list[str], board: Board, make_definition: Any, mark_running: Callable[[str], None]
) -> None:
    bring_up(lab, wanted(lab, "  a: \n"), board)
    make_definition("other", ip="192.168.100.50")
    mark_running("other")
    reporter = RecordingReporter()
    manifest_apply.down(lab, wanted(lab, "  a: \n"), reporter=reporter)
    assert reporter.said[-1] == "the provisioner runs on, for other"
    assert lab.provisioner.is_running()


def test_down_stops_all_others_beside_one_whose_record_is_damaged(
    lab: Lab, road: list[str], board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    manifest = wanted(lab, "  a: \n  b: {after: {a: started}}\n  c: \n")
    bring_up(lab, manifest, board)
    road.clear()
    (lab.home.run / "b.json").write_text("{")

    def stop(machine: Machine, *, timeout: float, force: bool) -> StopOutcome:
        if not machine.is_running():  # says so of b
            return StopOutcome.ALREADY_OFF
        (lab.home.run / f"{machine.name}.json").unlink()
        return StopOutcome.SHUT_DOWN

    reporter = RecordingReporter()
    monkeypatch.setattr(Machine, "stop", stop)
    with pytest.raises(ConflictError, match=r"b\.json is damaged"):
        manifest_apply.down(lab, manifest, reporter=reporter)
    assert not lab.machine("a").is_running()
    assert not lab.machine("c").is_running()
    assert lab.provisioner.is_running()  # b may need it
    assert reporter.said[-1] == "the provisioner runs on, for b"


def test_a_full_disk_is_told_as_such(
    lab: Lab, road: list[str], board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "web.qcow2")

    monkeypatch.setattr(target, "start", full)
    with pytest.raises(LabUpError) as caught:
        bring_up(lab, wanted(lab, "  a: \n"), board)
    assert caught.value.details == "a: failed: the disk is full (web.qcow2)"
    assert board.said("a") == ["a: failed: the disk is full (web.qcow2)"]


def test_down_twice_is_fine(lab: Lab, road: list[str], board: Board) -> None:
    reporter = RecordingReporter()
    assert manifest_apply.down(lab, wanted(lab, "  a: \n"), reporter=reporter) == {}
    assert reporter.said == ["no machine was running"]


@pytest.mark.parametrize(
    ("kind", "free", "machines", "jobs"),
    [
        (AcceleratorKind.TCG, 100_000, 9, 4), (AcceleratorKind.KVM, 100_000, 9, 8),
        (AcceleratorKind.KVM, 3000, 9, 2), (AcceleratorKind.TCG, 10, 9, 1), (AcceleratorKind.KVM, 100_000, 2, 2),
    ],
)  # fmt: skip
def test_the_usual_cap_is_by_processors_and_memory(
    lab: Lab, make_definition: Any, monkeypatch: pytest.MonkeyPatch, kind: AcceleratorKind, free: int, machines: int,
    jobs: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(manifest_apply, "free_memory_mib", lambda: free)
    monkeypatch.setattr(Lab, "accelerator", lambda *_: Accelerator(kind, "max", "", 1))
    definition = make_definition("a")
    assert manifest_apply.usual_jobs(lab, [definition] * machines) == jobs


def test_the_host_has_some_memory() -> None:
    assert manifest_apply.free_memory_mib() > 0
