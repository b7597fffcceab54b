from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest

from contracts import document
from contracts.machine import MachineSource, VmDefinition
from contracts.orders import OrderKind
from contracts.report import InstallState, MachineStatus, Phase
from contracts.timeline import Event, EventKind, Timeline
from lab import orders, ssh
from lab.follow import (
    IMAGE_PACE,
    CloudInitError,
    Follower,
    InstallFailedError,
    MachineEndedError,
    find_death,
    pace_of,
    parse_result,
)
from lab.lab import Lab
from lab.progress import Reporter
from lab.provisioner import ProvisionerError
from lab.wait import Deadline
from lab.watch import MachineStuckError
from pipeline.errors import CommandError, WaitTimeoutError
from pipeline.run import Completed
from tests.unit.lab.conftest import RecordingReporter

Make = Callable[..., VmDefinition]
Mark = Callable[[str], None]
Write = Callable[[MachineStatus], None]


@pytest.fixture
def definition(make_definition: Make) -> VmDefinition:
    return make_definition()


@pytest.fixture
def running(mark_running: Mark, announce: Callable[..., None]) -> None:
    mark_running("web1")
    mark_running("provisioner")
    announce("ready")


@pytest.fixture(autouse=True)
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every machine that seems to run answer its monitor, which none has here."""
    monkeypatch.setattr("lab.watch.answers", lambda _machine: True)


@pytest.fixture
def follower(lab: Lab, definition: VmDefinition, reporter: Reporter) -> Follower:
    return Follower(lab, definition, reporter, 0.0, Deadline(60))  # no patience at all: each wait looks once


def status(state: InstallState, **more: object) -> MachineStatus:
    base = MachineStatus(name="web1", uuid="00000000-0000-4000-8000-525400000001", state=state)
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


class FarSide:
    """Answers in the place of ssh, in turn; the last answer stays."""

    def __init__(self, *answers: Completed | CommandError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def __call__(
        self, lab: Lab, name: str, argv: Sequence[str], *, timeout: float, check: bool = True,
        watch: Callable[[], None] = lambda: None,
    ) -> Completed:  # fmt: skip
        watch()
        self.asked.append((name, tuple(argv)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, CommandError):
            raise answer
        if check and answer.returncode:
            raise CommandError(answer.argv, returncode=answer.returncode, tail=(), log=None, how="failed")
        return answer


def answer(returncode: int, stdout: str = "", stderr: str = "") -> Completed:
    return Completed(("ssh",), returncode, stdout, stderr)


def test_installed_machine_is_not_waited_for(follower: Follower, write_status: Write) -> None:
    write_status(status(InstallState.INSTALLED, installs=1))
    follower.wait_for_install()


def test_phases_are_shown_with_percent(
    lab: Lab, definition: VmDefinition, running: None, reporter: Reporter, monkeypatch: pytest.MonkeyPatch,
    write_status: Write,
) -> None:  # fmt: skip
    steps = iter([
        status(InstallState.BOOTING, message="fetched its boot script"),
        status(InstallState.INSTALLING, phase=Phase.SYSTEM, percent=40),
        status(InstallState.INSTALLED, installs=1, percent=100),
    ])  # fmt: skip
    monkeypatch.setattr("lab.follow.time.sleep", lambda _: write_status(next(steps)))
    Follower(lab, definition, reporter, 1.0, Deadline(60)).wait_for_install()
    assert reporter.shown == [  # type: ignore[attr-defined]
        ("web1: firmware starts, then asks the network", None),
        ("web1: fetched its boot script", None),
        ("web1: 5/7 system", 40),
    ]


def test_failed_install_tells_phase_cause_and_last_lines(follower: Follower, write_status: Write) -> None:
    write_status(
        status(InstallState.FAILED, phase=Phase.DISK, message="sfdisk failed", lines=("no space", "really none"))
    )
    with pytest.raises(InstallFailedError, match=r"web1 failed in phase 4 of 7, disk: sfdisk failed") as caught:
        follower.wait_for_install()
    assert caught.value.details == "  | no space\n  | really none"
    assert "./pvmlab vm.logs web1" in caught.value.resolution


def test_refused_machine_tells_why_without_a_phase(follower: Follower, write_status: Write) -> None:
    write_status(status(InstallState.FAILED, message="its definition is broken"))
    with pytest.raises(InstallFailedError, match=r"the install of web1 failed: its definition is broken"):
        follower.wait_for_install()


def test_qemu_that_died_ends_the_wait_at_once(lab: Lab, follower: Follower, mark_running: Mark) -> None:
    mark_running("provisioner")
    (lab.home.logs / "web1.serial.log").write_text("last words\n")
    with pytest.raises(MachineEndedError, match=r"QEMU of web1 ended during its install \(new\)") as caught:
        follower.wait_for_install()
    assert "last words" in caught.value.details


def test_provisioner_that_died_ends_the_wait_at_once(follower: Follower, mark_running: Mark) -> None:
    mark_running("web1")
    with pytest.raises(MachineEndedError, match=r"provisioner's QEMU ended"):
        follower.wait_for_install()


def test_services_that_failed_end_the_wait_at_once(
    follower: Follower, running: None, announce: Callable[..., None]
) -> None:
    announce("failed", message="the container ended")
    with pytest.raises(ProvisionerError, match=r"the container ended"):
        follower.wait_for_install()


def test_installer_that_died_without_a_report_ends_the_wait_at_once(
    lab: Lab, definition: VmDefinition, reporter: Reporter, running: None
) -> None:
    (lab.home.logs / "web1.serial.log").write_text("Kernel panic - not syncing: no init\n")
    with pytest.raises(MachineEndedError, match=r"died without a report: Kernel panic - not syncing"):
        Follower(lab, definition, reporter, 100.0, Deadline(60)).wait_for_install()


def test_silence_is_a_timeout_with_diagnosis_and_console(lab: Lab, follower: Follower, running: None) -> None:
    (lab.home.logs / "web1.serial.log").write_text("BdsDxe\n>>Start PXE over IPv4.\n")
    with pytest.raises(WaitTimeoutError, match=r"the provisioner saw nothing of it.*\(waited 0 s\)") as caught:
        follower.wait_for_install()
    assert "| >>Start PXE over IPv4." in caught.value.details
    assert "vm.shell provisioner -- journalctl" in caught.value.resolution


def test_silence_is_explained_by_what_the_services_saw(
    lab: Lab, follower: Follower, running: None, definition: VmDefinition
) -> None:
    seen = (Event(time=1000.0, kind=EventKind.ACK, text="got 192.168.100.2"),)
    timeline = Timeline(name="web1", uuid=definition.uuid, events=seen)
    (lab.home.status / "web1.events.json").write_text(document.dumps(timeline))
    with pytest.raises(WaitTimeoutError, match=r"DHCP answered web1 .* ago, and no TFTP request came"):
        follower.wait_for_install()


def test_an_ordered_install_is_waited_for_although_there_is_a_system(
    lab: Lab, definition: VmDefinition, running: None, reporter: Reporter, monkeypatch: pytest.MonkeyPatch,
    write_status: Write,
) -> None:  # fmt: skip
    write_status(status(InstallState.INSTALLED, installs=1))
    order = orders.give(lab, definition, OrderKind.REINSTALL)
    steps = iter([
        status(InstallState.BOOTING, installs=1, order=order.id),
        status(InstallState.INSTALLED, installs=2, order=order.id),
    ])  # fmt: skip
    monkeypatch.setattr("lab.follow.time.sleep", lambda _: write_status(next(steps)))
    Follower(lab, definition, reporter, 1.0, Deadline(60)).wait_for_install()
    assert not list(steps)


def test_a_rescue_is_waited_for(
    lab: Lab, definition: VmDefinition, running: None, reporter: Reporter, monkeypatch: pytest.MonkeyPatch,
    write_status: Write,
) -> None:  # fmt: skip
    write_status(status(InstallState.INSTALLED, installs=1))
    monkeypatch.setattr("lab.follow.time.sleep", lambda _: write_status(status(InstallState.RESCUE, installs=1)))
    Follower(lab, definition, reporter, 1.0, Deadline(60)).wait_for_rescue()


def test_a_rescue_that_does_not_come_is_a_timeout(follower: Follower, running: None, write_status: Write) -> None:
    write_status(status(InstallState.INSTALLED, installs=1))
    with pytest.raises(WaitTimeoutError, match=r"never asked the network"):
        follower.wait_for_rescue()


def test_ordinary_console_is_no_death() -> None:
    assert find_death(["pvmlab: init reached after 2 s", "[ 1.0] usb: ok"]) is None


def test_login_is_asked_on_the_provisioner(
    follower: Follower, running: None, monkeypatch: pytest.MonkeyPatch, definition: VmDefinition
) -> None:
    far = FarSide(answer(0))
    monkeypatch.setattr(ssh, "run_on", far)
    follower.wait_for_login()
    ((name, words),) = far.asked
    assert name == "provisioner"
    assert words[-2] == definition.ip


def test_login_is_asked_again_until_it_answers(
    lab: Lab, definition: VmDefinition, reporter: Reporter, running: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = CommandError(["ssh"], returncode=None, tail=(), log=None, how="did not end")
    far = FarSide(answer(75), answer(255, stderr="connection refused"), hangs, answer(0))
    monkeypatch.setattr(ssh, "run_on", far)
    monkeypatch.setattr("lab.follow.time.sleep", lambda _: None)
    Follower(lab, definition, reporter, 1.0, Deadline(60)).wait_for_login()
    assert len(far.asked) == 4


def test_login_that_never_comes_tells_what_ssh_said(
    follower: Follower, running: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "run_on", FarSide(answer(255, stderr="Host key verification failed.\n")))
    with pytest.raises(WaitTimeoutError, match=r"did not answer by SSH at 192\.168\.100\.2; ssh said: Host key ver"):
        follower.wait_for_login()


def test_login_that_hangs_is_a_timeout(follower: Follower, running: None, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = CommandError(["ssh"], returncode=None, tail=(), log=None, how="did not end within 60 s")
    monkeypatch.setattr(ssh, "run_on", FarSide(hangs))
    with pytest.raises(WaitTimeoutError, match=r"ssh did not end within 60 s"):
        follower.wait_for_login()


def test_machine_that_dies_while_it_boots_ends_the_wait(
    follower: Follower, mark_running: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_running("provisioner")
    far = FarSide(answer(75))
    monkeypatch.setattr(ssh, "run_on", far)
    with pytest.raises(MachineEndedError, match=r"ended while it booted from its disk"):
        follower.wait_for_login()
    assert far.asked == []


def test_cloud_init_that_finished_well(follower: Follower, running: None, monkeypatch: pytest.MonkeyPatch) -> None:
    far = FarSide(answer(0, '{"v1": {"datasource": "DataSourceNoCloud", "errors": []}}'))
    monkeypatch.setattr(ssh, "run_on", far)
    follower.wait_for_cloud_init()
    assert far.asked[0][0] == "web1"


def test_errors_of_cloud_init_are_told(follower: Follower, running: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "run_on", FarSide(answer(0, '{"v1": {"errors": ["no such module"]}}')))
    with pytest.raises(CloudInitError, match=r"finished with errors on web1") as caught:
        follower.wait_for_cloud_init()
    assert caught.value.details == "no such module"


def test_cloud_init_that_does_not_finish_is_a_timeout(
    follower: Follower, running: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "run_on", FarSide(answer(75)))
    with pytest.raises(WaitTimeoutError, match=r"cloud-init did not finish on web1"):
        follower.wait_for_cloud_init()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"v1": 3}'])
def test_result_that_cannot_be_read_is_an_error(text: str) -> None:
    assert parse_result(text) == [f"its result cannot be read: {text!r}"]


def test_answers_is_a_plain_yes_or_no(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "run_on", FarSide(answer(0)))
    assert follower.answers()
    monkeypatch.setattr(ssh, "run_on", FarSide(answer(75)))
    assert not follower.answers()


def test_a_machine_that_ends_within_a_remote_loop_ends_the_wait(
    follower: Follower, running: None, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, watch: Callable[[], None], **__: object) -> Completed:
        (lab.home.run / "web1.json").unlink()
        watch()  # as pipeline.run does every half second
        raise AssertionError("it was not seen")

    monkeypatch.setattr(ssh, "run_on", dies)
    with pytest.raises(MachineEndedError, match=r"the QEMU of web1 ended while it booted from its disk"):
        follower.wait_for_login()


def test_a_qemu_that_does_not_answer_ends_every_wait(
    follower: Follower, running: None, write_status: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.watch.answers", lambda _machine: False)
    write_status(status(InstallState.INSTALLING, phase=Phase.DISK))
    for wait in (follower.wait_for_install, follower.wait_for_rescue, follower.wait_for_login):
        with pytest.raises(MachineStuckError, match=r"the QEMU of web1 does not answer"):
            wait()


def test_a_panic_while_it_boots_ends_the_wait(
    follower: Follower, running: None, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "run_on", FarSide(answer(75)))
    lab.machine("web1").logs.serial.write_text("[    1.0] Kernel panic - not syncing: no root\n")
    with pytest.raises(MachineEndedError, match=r"died while it booted from its disk: .*Kernel panic"):
        follower.wait_for_login()


def test_an_interrupt_ends_every_wait(follower: Follower, running: None, write_status: Write) -> None:
    def interrupt() -> None:
        raise InterruptedError

    interrupted = dataclasses.replace(follower, interrupt=interrupt)
    write_status(status(InstallState.NEW))
    for wait in (interrupted.wait_for_install, interrupted.wait_for_rescue, interrupted.wait_for_login,
                 interrupted.wait_for_cloud_init):  # fmt: skip
        with pytest.raises(InterruptedError):
            wait()


def test_a_login_that_never_comes_says_what_was_seen(
    follower: Follower, running: None, lab: Lab, definition: VmDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "run_on", FarSide(answer(75)))
    lab.machine("web1").logs.serial.write_text("Debian GNU/Linux 12 web1 ttyS0\nweb1 login:\n")
    event = Event(time=4e9, text="asked for 192.168.100.2 and has it", kind=EventKind.ACK)
    timeline = Timeline(name="web1", uuid=definition.uuid, events=(event,))
    (lab.home.status / "web1.events.json").write_text(document.dumps(timeline))
    with pytest.raises(WaitTimeoutError, match=r"its console asks for a login: its SSH server does not run") as caught:
        follower.wait_for_login()
    assert "  | web1 login:" in caught.value.details
    assert "dhcp: asked for 192.168.100.2 and has it" in caught.value.details


def test_a_machine_from_an_image_has_cloud_init_and_its_own_pace(lab: Lab, make_definition: Make) -> None:
    cloud = make_definition("cloud1", source=MachineSource.IMAGE)
    assert pace_of(cloud) is IMAGE_PACE
    assert Follower(lab, cloud, RecordingReporter(), 1.0, Deadline(1)).has_cloud_init()


def test_a_machine_that_says_installed_as_it_ends_is_installed(
    lab: Lab, definition: VmDefinition, running: None, reporter: Reporter, monkeypatch: pytest.MonkeyPatch,
    write_status: Write,
) -> None:  # fmt: skip
    """With ``--no-reboot``: its last report may come after we read the status and before we look whether it runs."""

    def end(self: Follower, when: str) -> None:
        write_status(status(InstallState.INSTALLED, installs=1))
        raise MachineEndedError(f"ended {when}")

    monkeypatch.setattr(Follower, "_require_alive", end)
    Follower(lab, definition, reporter, 1.0, Deadline(60)).wait_for_install()


def test_a_machine_that_shall_not_reboot_is_waited_for_until_it_is_off(
    lab: Lab, definition: VmDefinition, running: None, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = lab.home.run / "web1.json"
    monkeypatch.setattr("lab.follow.time.sleep", lambda _: record.unlink())
    Follower(lab, definition, reporter, 1.0, Deadline(60)).wait_until_off()
    assert not record.exists()


def test_a_machine_that_does_not_reboot_is_told(follower: Follower, running: None) -> None:
    with pytest.raises(WaitTimeoutError, match="web1 is installed and did not reboot, where it would be off"):
        follower.wait_until_off()


def test_waiting_for_the_end_can_be_interrupted(lab: Lab, definition: VmDefinition, running: None) -> None:
    class StoppedError(Exception):
        pass

    def interrupt() -> None:
        raise StoppedError

    reporter = RecordingReporter()
    with pytest.raises(StoppedError):
        Follower(lab, definition, reporter, 1.0, Deadline(60), interrupt=interrupt).wait_until_off()
