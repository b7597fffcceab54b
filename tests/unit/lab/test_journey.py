from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.arch import Arch
from contracts.machine import Installer, MachineSource, VmDefinition
from contracts.names import PROVISIONER_NAME
from contracts.orders import OrderKind
from contracts.report import InstallState, MachineStatus
from lab import bringup, journey, orders, provisioner, target
from lab.follow import Follower
from lab.lab import Lab
from lab.machine import Machine, StopOutcome
from lab.spec import Accelerator, AcceleratorKind, Bios, MachineSpec
from lab.store import DefinitionStore
from lab.target import USUAL_START, BootFrom, StartOptions
from pipeline.errors import ConflictError, PvmlabError, UsageError

TCG = Accelerator(AcceleratorKind.TCG, "max", "for the test", 5)
Make = Callable[..., VmDefinition]
Mark = Callable[[str], None]


class Artifacts:
    """Keeps what was asked to be built."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ensure_for(self, distro: str, arch: Arch, installer: Installer) -> None:
        self.asked.append(f"{distro}:{arch}:{installer}")

    def ensure_image(self, distro: str, arch: Arch) -> None:
        self.asked.append(f"image:{distro}:{arch}")

    def ensure_provisioner(self) -> None:
        self.asked.append("provisioner")

    def seed_documents(self, lab: Lab, definition: VmDefinition) -> dict[str, str]:
        self.asked.append(f"seed of {definition.name}")
        return {"meta-data": "", "user-data": ""}


@pytest.fixture
def artifacts() -> Artifacts:
    return Artifacts()


@pytest.fixture
def road(monkeypatch: pytest.MonkeyPatch, mark_running: Mark, lab: Lab, announce: Callable[..., None]) -> list[str]:
    """Take the place of machines and waits; the list gets what happened, in its order."""
    log: list[str] = []

    def start_provisioner(_lab: Lab, _accelerator: Accelerator) -> None:
        log.append("start provisioner")
        mark_running("provisioner")
        announce("starting")

    def start_target(
        lab: Lab, definition: VmDefinition, accelerator: Accelerator, *, options: StartOptions = USUAL_START
    ) -> MachineSpec:
        extra = "" if options == USUAL_START else f" {options.boot or 'as ever'}, reboots {options.reboots}"
        log.append(f"start {definition.name}{extra}")
        mark_running(definition.name)
        return target.target_spec(lab, definition, accelerator=accelerator, boot=Bios(), lan_socket=Path("/lan"))

    def wait_until_off(follower: Follower) -> None:
        log.append("off")
        (lab.home.run / f"{follower.definition.name}.json").unlink()

    def wait_until(_lab: Lab, state: provisioner.ProvisionerState, **_: object) -> None:
        log.append(f"provisioner {state}")

    def kill(self: Machine) -> None:
        log.append(f"kill {self.name}")
        (lab.home.run / f"{self.name}.json").unlink(missing_ok=True)

    def stop(self: Machine, *, timeout: float, force: bool = False) -> StopOutcome:
        log.append(f"{'force' if force else 'stop'} {self.name}")
        (lab.home.run / f"{self.name}.json").unlink(missing_ok=True)
        return StopOutcome.QUIT if force else StopOutcome.SHUT_DOWN

    monkeypatch.setattr(Lab, "accelerator", lambda _self, _arch: TCG)
    monkeypatch.setattr(provisioner, "create", lambda _: False)
    monkeypatch.setattr(provisioner, "start", start_provisioner)
    monkeypatch.setattr(provisioner, "wait_until", wait_until)
    monkeypatch.setattr(target, "start", start_target)
    monkeypatch.setattr(Machine, "kill", kill)
    monkeypatch.setattr(Machine, "stop", stop)
    monkeypatch.setattr("lab.network.SwitchNetwork.stop", lambda _: log.append("stop network"))
    monkeypatch.setattr(Follower, "wait_for_install", lambda _: log.append("installed"))
    monkeypatch.setattr(Follower, "wait_until_off", wait_until_off)
    monkeypatch.setattr(Follower, "wait_for_login", lambda _: log.append("login"))
    monkeypatch.setattr(Follower, "wait_for_cloud_init", lambda _: log.append("cloud-init"))
    monkeypatch.setattr(Follower, "answers", lambda _: True)
    return log


def up(lab: Lab, reporter: Any, artifacts: Artifacts, **more: Any) -> None:
    journey.up(lab, **({"name": "web1", "distro": None} | more), reporter=reporter, artifacts=artifacts)


def test_target_starts_before_the_services_are_ready(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make
) -> None:
    make_definition()
    up(lab, reporter, artifacts)
    assert road == [
        "start provisioner", "provisioner starting", "start web1", "provisioner ready", "installed", "login",
        "cloud-init",
    ]  # fmt: skip
    assert artifacts.asked == ["debian-12:x86_64:pvmlab"]
    assert "./pvmlab vm.shell web1 goes in" in reporter.said[-1]


def test_installed_target_goes_straight_to_its_login(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make,
    write_status: Callable[[MachineStatus], None],
) -> None:  # fmt: skip
    definition = make_definition()
    write_status(MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.INSTALLED, installs=1))
    up(lab, reporter, artifacts)
    assert "installed" not in road
    assert road[-2:] == ["login", "cloud-init"]


def test_all_up_changes_nothing(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, mark_running: Mark,
    announce: Callable[..., None], write_status: Callable[[MachineStatus], None],
) -> None:  # fmt: skip
    definition = make_definition()
    mark_running("web1")
    mark_running("provisioner")
    announce("ready")
    write_status(MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.INSTALLED, installs=1))
    up(lab, reporter, artifacts)
    assert road == []
    assert reporter.said == ["everything is up; ./pvmlab vm.shell web1 goes in"]


def test_up_carries_on_where_another_one_stopped(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, mark_running: Mark,
    announce: Callable[..., None],
) -> None:  # fmt: skip
    make_definition()
    mark_running("provisioner")
    announce("ready")
    up(lab, reporter, artifacts)
    assert road == ["provisioner starting", "start web1", "installed", "login", "cloud-init"]


def test_provisioner_whose_services_failed_is_started_again(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, mark_running: Mark,
    announce: Callable[..., None],
) -> None:  # fmt: skip
    make_definition()
    mark_running("provisioner")
    announce("failed", message="no image")
    up(lab, reporter, artifacts)
    assert road[:2] == ["kill provisioner", "start provisioner"]


def test_missing_target_is_created(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(target, "create", lambda _lab, request: make_definition(request.name))
    up(lab, reporter, artifacts, distro="debian-13")
    assert artifacts.asked == ["debian-13:x86_64:pvmlab"]
    assert DefinitionStore(lab).names() == ["web1"]


def test_other_distro_than_the_targets_is_a_conflict(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make
) -> None:
    make_definition()
    with pytest.raises(ConflictError, match=r"web1 is a debian-12 machine, not a debian-13 one"):
        up(lab, reporter, artifacts, distro="debian-13")
    assert (road, artifacts.asked) == ([], [])


def test_bad_name_is_told_before_anything_is_built(lab: Lab, reporter: Any, artifacts: Artifacts) -> None:
    with pytest.raises(UsageError):
        up(lab, reporter, artifacts, name="No Name")
    assert artifacts.asked == []


def test_two_ups_at_once_are_a_conflict(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make
) -> None:
    make_definition()
    with lab.changing_lab(), pytest.raises(ConflictError, match=r"another command is bringing this lab up or down"):
        up(lab, reporter, artifacts)
    up(lab, reporter, artifacts)  # the lock is free again


def test_interrupt_ends_what_this_call_started_and_frees_the_lock(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make_definition()

    def interrupt(_self: Follower) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Follower, "wait_for_login", interrupt)
    with pytest.raises(KeyboardInterrupt):
        up(lab, reporter, artifacts)
    assert road[-3:] == ["kill web1", "kill provisioner", "stop network"]
    with lab.changing_lab():
        pass


def test_interrupt_leaves_what_ran_before(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, mark_running: Mark,
    announce: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make_definition()
    mark_running("provisioner")
    announce("ready")

    def interrupt(_self: Follower) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Follower, "wait_for_install", interrupt)
    with pytest.raises(KeyboardInterrupt):
        up(lab, reporter, artifacts)
    assert road[-1] == "kill web1"
    assert lab.provisioner.is_running()


def test_interrupt_within_a_start_ends_that_machine_too(lab: Lab, road: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), bringup.stopped_if_interrupted(lab) as starting, starting("web1"):
        raise KeyboardInterrupt
    assert road == ["kill web1", "stop network"]


def test_machine_that_another_command_started_is_left_alone(lab: Lab, road: list[str]) -> None:
    def refused_then_interrupted() -> None:
        with bringup.stopped_if_interrupted(lab) as starting:
            with contextlib.suppress(ConflictError), starting("web1"):
                raise ConflictError("web1 is already running")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refused_then_interrupted()
    assert road == ["stop network"]


def test_failure_leaves_the_machines_to_look_at(lab: Lab, road: list[str]) -> None:
    def started_then_failed() -> None:
        with bringup.stopped_if_interrupted(lab) as starting:
            with starting("web1"):
                pass
            raise PvmlabError("the install failed")

    with pytest.raises(PvmlabError):
        started_then_failed()
    assert road == ["stop network"]  # as no machine really runs here


def test_second_interrupt_cannot_stop_the_clean_up() -> None:
    before = signal.getsignal(signal.SIGINT)
    with bringup.uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


def test_start_without_wait_needs_the_services_first(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make
) -> None:
    journey.start(lab, make_definition(), reporter=reporter, artifacts=artifacts, wait=False)
    assert road == ["start provisioner", "provisioner ready", "start web1"]


def test_start_of_a_running_machine_is_a_conflict(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, mark_running: Mark
) -> None:
    mark_running("web1")
    with pytest.raises(ConflictError, match=r"web1 is already running"):
        journey.start(lab, make_definition(), reporter=reporter, artifacts=artifacts, wait=False)
    assert artifacts.asked == []


def test_down_stops_all_and_the_provisioner_last(
    lab: Lab, reporter: Any, road: list[str], make_definition: Make, mark_running: Mark
) -> None:
    for name in ("web1", "orphan", "provisioner"):  # an orphan has no definition any more
        mark_running(name)
    make_definition()
    outcomes = journey.down(lab, reporter=reporter)
    assert outcomes == {
        "web1": StopOutcome.SHUT_DOWN, "orphan": StopOutcome.SHUT_DOWN, "provisioner": StopOutcome.QUIT,
    }  # fmt: skip
    assert sorted(road[:2]) == ["stop orphan", "stop web1"]
    assert road[2:] == ["force provisioner", "stop network"]


def test_down_does_not_stumble_over_strange_files(lab: Lab, reporter: Any, road: list[str], mark_running: Mark) -> None:
    mark_running("web1")
    (lab.home.vms / "Bad_Name.json").write_text("{}")
    (lab.home.run / "accelerator.json").write_text("{}")
    assert journey.down(lab, reporter=reporter) == {"web1": StopOutcome.SHUT_DOWN}


def test_down_stops_all_others_beside_one_whose_record_is_damaged(
    lab: Lab, reporter: Any, road: list[str], mark_running: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("web1", "web2", PROVISIONER_NAME):
        mark_running(name)
    (lab.home.run / "web1.json").write_text("{")
    ended: list[str] = []

    def stop(machine: Machine, *, timeout: float, force: bool) -> StopOutcome:
        ended.append(machine.name if machine.is_running() else "")  # says so of web1
        return StopOutcome.SHUT_DOWN

    monkeypatch.setattr(Machine, "stop", stop)
    with pytest.raises(ConflictError, match=r"web1\.json is damaged"):
        journey.down(lab, reporter=reporter)
    assert ended == ["web2"]
    assert "stop network" not in road


def test_down_twice_is_fine(lab: Lab, reporter: Any, road: list[str]) -> None:
    assert journey.down(lab, reporter=reporter) == {}
    assert reporter.said == ["no machine was running"]


def test_clean_removes_machines_and_keeps_keys_and_cache(
    lab: Lab, reporter: Any, road: list[str], make_definition: Make
) -> None:
    make_definition()
    (lab.home.ssh / "id_ed25519").write_text("key")
    (lab.home.disks / "web1.qcow2").write_text("disk")
    lab.cache.root.mkdir()
    journey.clean(lab, reporter=reporter, with_keys=False)
    assert DefinitionStore(lab).names() == []
    assert not lab.home.disks.exists()
    assert (lab.home.ssh / "id_ed25519").exists()
    assert lab.cache.root.exists()


@pytest.mark.parametrize("with_keys", [False, True])
def test_clean_leaves_what_is_not_named_as_ours(
    lab: Lab, reporter: Any, road: list[str], make_definition: Make, with_keys: bool
) -> None:  # fmt: skip
    make_definition()
    mine = [lab.home.disks / "notes", lab.home.disks / "backup.tar.gz", lab.home.logs / "old", lab.home.vms / "x.md"]
    ours = [lab.home.disks / "web1.qcow2", lab.home.disks / "layers/a.qcow2", lab.home.logs / "gone.log"]
    for path in (*mine, *ours):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    journey.clean(lab, reporter=reporter, with_keys=with_keys)
    assert all(path.exists() for path in mine)
    assert not any(path.exists() for path in ours)
    assert not DefinitionStore(lab).path("web1").exists()


def test_clean_with_keys_leaves_nothing_of_ours(
    lab: Lab, reporter: Any, road: list[str], make_definition: Make
) -> None:
    make_definition()
    (lab.home.root / "mine.txt").write_text("not pvmlab's")
    journey.clean(lab, reporter=reporter, with_keys=True)
    assert [path.name for path in lab.home.root.iterdir()] == ["mine.txt"]
    (lab.home.root / "mine.txt").unlink()
    journey.clean(lab, reporter=reporter, with_keys=True)
    assert not lab.home.root.exists()


def test_machine_that_another_command_starts_is_waited_for(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("lab.lab._START_TIMEOUT", 0.0)
    make_definition()
    with lab.starting("web1"), pytest.raises(ConflictError, match=r"another command is at work on web1"):
        up(lab, reporter, artifacts)
    assert "start web1" not in road


def start(lab: Lab, definition: VmDefinition, reporter: Any, artifacts: Artifacts, **more: Any) -> None:
    journey.start(lab, definition, reporter=reporter, artifacts=artifacts, **({"wait": True} | more))


def test_a_target_that_may_not_reboot_is_installed_and_off(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make
) -> None:
    start(lab, make_definition(), reporter, artifacts, options=StartOptions(reboots=False))
    assert road[2:] == ["start web1 as ever, reboots False", "provisioner ready", "installed", "off"]
    assert "web1 is installed and off after" in reporter.said[-1]
    assert "./pvmlab vm.start web1 boots it" in reporter.said[-1]


def test_a_target_with_secure_boot_is_started_again_after_its_install(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make
) -> None:
    start(lab, make_definition(secure_boot=True), reporter, artifacts)
    assert road[2:] == [
        "start web1", "provisioner ready", "installed", "off", "start web1", "login", "cloud-init",
    ]  # fmt: skip
    assert "web1 started again, Secure Boot on" in reporter.said


@pytest.mark.parametrize(
    ("options", "secure_boot", "words"),
    [
        (USUAL_START, False, "./pvmlab vm.start web1 --wait follows it to a login"),
        (StartOptions(reboots=False), False, "it will be off where its system would reboot"),
        (USUAL_START, True, "installed, it will be off, and ./pvmlab vm.start web1 boots its disk with Secure Boot on"),
    ],
)
def test_who_does_not_wait_is_told_what_will_be(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, options: StartOptions,
    secure_boot: bool, words: str,
) -> None:  # fmt: skip
    definition = make_definition(secure_boot=secure_boot)
    start(lab, definition, reporter, artifacts, wait=False, options=options)
    assert words in reporter.said[-1]
    assert "installed" not in road


def test_a_target_that_runs_is_not_told_what_to_boot(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, mark_running: Mark
) -> None:
    definition = make_definition()
    mark_running("web1")
    with pytest.raises(ConflictError, match="web1 is already running, and --boot and --no-reboot are for its start"):
        start(lab, definition, reporter, artifacts, options=StartOptions(boot=BootFrom.PXE))
    assert road == []


def test_a_target_that_boots_its_disk_is_not_waited_for_as_if_it_was_installed(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make,
    write_status: Callable[[MachineStatus], None],
) -> None:  # fmt: skip
    definition = make_definition()
    write_status(MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.FAILED, installs=1))
    start(lab, definition, reporter, artifacts, options=StartOptions(boot=BootFrom.DISK))
    assert road[2:] == ["start web1 disk, reboots True", "provisioner ready", "login", "cloud-init"]


@pytest.mark.parametrize(
    ("image", "built"), [("", "image:debian-12:x86_64"), ("/images/mine.qcow2", "provisioner")], ids=["distro", "own"]
)
def test_a_machine_from_an_image_is_not_installed(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, image: str, built: str
) -> None:
    definition = make_definition(source=MachineSource.IMAGE, image=image)
    journey.start(lab, definition, reporter=reporter, artifacts=artifacts, wait=True)
    assert artifacts.asked == [built, "seed of web1"]
    assert road == [
        "start provisioner", "provisioner starting", "start web1", "provisioner ready", "login", "cloud-init",
    ]  # fmt: skip
    assert (lab.home.disks / "web1.seed.iso").stat().st_mode & 0o777 == 0o600


def test_an_order_for_a_machine_from_an_image_needs_a_start(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, mark_running: Mark
) -> None:
    definition = make_definition(source=MachineSource.IMAGE)
    mark_running("web1")
    orders.give(lab, definition, OrderKind.REINSTALL)
    with pytest.raises(ConflictError, match=r"web1 runs from its disk, and a reinstall is ordered"):
        journey.start(lab, definition, reporter=reporter, artifacts=artifacts, wait=True)


def test_a_disk_that_was_never_installed_is_refused_before_anything_is_built(
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make
) -> None:
    with pytest.raises(UsageError, match="web1 was never installed"):
        start(lab, make_definition(), reporter, artifacts, options=StartOptions(boot=BootFrom.DISK))
    assert (road, artifacts.asked) == ([], [])


@pytest.mark.parametrize(
    ("source", "running", "boot", "asked"),
    [
        (MachineSource.NETWORK, False, None, 2),
        (MachineSource.NETWORK, False, BootFrom.DISK, 0),  # it reads none
        (MachineSource.IMAGE, False, None, 2),
        (MachineSource.IMAGE, False, BootFrom.DISK, 2),  # its seed disc is written all the same
        (MachineSource.IMAGE, True, None, 0),
    ],
)
def test_documents_are_checked_before_a_start_that_reads_them(  # noqa: PLR0917 (fixtures)
    lab: Lab, reporter: Any, artifacts: Artifacts, road: list[str], make_definition: Make, mark_running: Mark,
    write_status: Callable[[MachineStatus], None], source: MachineSource, boot: BootFrom | None, asked: int, *,
    running: bool,
) -> None:  # fmt: skip
    definition = make_definition(source=source)
    seen: list[VmDefinition] = []
    if boot is BootFrom.DISK:
        write_status(
            MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.INSTALLED, installs=1)
        )  # fmt: skip
    if running:
        mark_running("web1")
    options = StartOptions(boot=boot)
    journey.start(
        lab, definition, reporter=reporter, artifacts=artifacts, wait=True, options=options, check=seen.append
    )
    assert seen == [definition] * asked
