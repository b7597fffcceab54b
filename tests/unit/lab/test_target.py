from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.machine import DiskBus, ExtraDisk, FirmwareKind, MachineSource, Nic, NicModel, SshHostKey, VmDefinition
from contracts.orders import OrderKind
from contracts.report import InstallState, MachineStatus
from contracts.tokens import RECORDS, record_name
from lab import orders, ssh, target
from lab.addresses import derive_mac, ipv6_of
from lab.firmware import FirmwareFiles
from lab.keys import KeyPair
from lab.lab import Lab
from lab.spec import Accelerator, AcceleratorKind, Bios, Disk, Firmware, LanCard, MachineSpec
from lab.store import DefinitionStore, MachineRequest
from lab.target import BootFrom, StartOptions
from lab.tpm import tpm_of
from pipeline.debian.apt_sources import Mirror
from pipeline.errors import ConflictError, NotFoundError, PrerequisiteError, PvmlabError, UsageError
from pipeline.workspace import Cache, Home, Workspace
from tests.fakes.lab_files import HOST_KEY

TCG = Accelerator(AcceleratorKind.TCG, "max", "for the test", 5)
Make = Callable[..., VmDefinition]
Write = Callable[[MachineStatus], None]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, lab: Lab, tmp_path: Path) -> list[MachineSpec]:
    """Take the place of what would start processes; the list gets the specification of the machine."""
    specs: list[MachineSpec] = []
    template = tmp_path / "VARS.fd"
    template.write_text("template")
    monkeypatch.setattr("lab.machine.Machine.start", lambda _, spec: specs.append(spec))
    monkeypatch.setattr("lab.network.SwitchNetwork.ensure_started", lambda self: self.socket)
    monkeypatch.setattr("lab.firmware.find_firmware", lambda _: FirmwareFiles(tmp_path / "CODE.fd", template))
    monkeypatch.setattr(target, "create_empty_disk", lambda path, size: path.write_text(f"empty {size}"))
    return specs


def status_of(definition: VmDefinition, state: InstallState, *, installs: int = 0) -> MachineStatus:
    return MachineStatus(name=definition.name, uuid=definition.uuid, state=state, installs=installs)


def test_spec_boots_the_disk_before_the_network(lab: Lab, make_definition: Make) -> None:
    definition = make_definition()
    spec = target.target_spec(lab, definition, accelerator=TCG, boot=Bios(), lan_socket=Path("/lan"))
    assert (spec.disks[0].boot_index, spec.lan.boot_index) == (0, 1)
    assert spec.boot == Bios()
    assert (spec.uuid, spec.lan.mac, spec.wan) == (definition.uuid, definition.mac, None)


def test_spec_boots_from_any_of_its_cards(lab: Lab, make_definition: Make) -> None:
    nics = tuple(Nic(mac=f"52:54:00:00:00:0{number}", ip=f"192.168.100.4{number}") for number in (2, 3))
    spec = target.target_spec(lab, make_definition(nics=nics), accelerator=TCG, boot=Bios(), lan_socket=Path("/lan"))
    assert spec.more_lan == (LanCard(nics[0].mac, boot_index=2), LanCard(nics[1].mac, boot_index=3))


@pytest.mark.parametrize("kind", FirmwareKind)
def test_each_kind_of_firmware_boots(
    lab: Lab, make_definition: Make, started: list[MachineSpec], kind: FirmwareKind, tmp_path: Path
) -> None:
    target.start(lab, make_definition(firmware=kind), TCG)
    variables = lab.home.disks / "web1.vars.fd"
    assert (
        started[0].boot
        == {
            FirmwareKind.UEFI: Firmware(tmp_path / "CODE.fd", variables),
            FirmwareKind.UEFI_HTTP: Firmware(tmp_path / "CODE.fd", variables, http=True),
            FirmwareKind.BIOS: Bios(),
        }[kind]
    )
    assert variables.exists() == (kind is not FirmwareKind.BIOS)


def test_first_start_makes_disk_and_variables(lab: Lab, make_definition: Make, started: list[MachineSpec]) -> None:
    target.start(lab, make_definition(), TCG)
    assert (lab.home.disks / "web1.qcow2").read_text() == "empty 8"
    assert (lab.home.disks / "web1.vars.fd").read_text() == "template"
    assert [spec.name for spec in started] == ["web1"]


def test_installed_disk_and_its_variables_are_kept(
    lab: Lab, make_definition: Make, started: list[MachineSpec], write_status: Write
) -> None:
    definition = make_definition()
    (lab.home.disks / "web1.qcow2").write_text("system")
    (lab.home.disks / "web1.vars.fd").write_text("boot entries")
    write_status(status_of(definition, InstallState.INSTALLED, installs=1))
    target.start(lab, definition, TCG)
    assert (lab.home.disks / "web1.qcow2").read_text() == "system"
    assert (lab.home.disks / "web1.vars.fd").read_text() == "boot entries"


@pytest.mark.parametrize("state", [InstallState.BOOTING, InstallState.INSTALLING, InstallState.FAILED])
def test_half_an_install_begins_anew(
    lab: Lab, make_definition: Make, started: list[MachineSpec], write_status: Write, state: InstallState
) -> None:
    definition = make_definition()
    (lab.home.disks / "web1.qcow2").write_text("half")
    write_status(status_of(definition, state))
    target.start(lab, definition, TCG)
    assert (lab.home.disks / "web1.qcow2").read_text() == "empty 8"
    assert target.read_status(lab, definition).state is InstallState.NEW


def test_disk_that_was_installed_once_is_never_emptied(
    lab: Lab, make_definition: Make, started: list[MachineSpec], write_status: Write
) -> None:
    definition = make_definition()
    (lab.home.disks / "web1.qcow2").write_text("system")
    write_status(status_of(definition, InstallState.FAILED, installs=1))
    target.start(lab, definition, TCG)
    assert (lab.home.disks / "web1.qcow2").read_text() == "system"


def test_disk_without_a_status_is_never_emptied(lab: Lab, make_definition: Make, started: list[MachineSpec]) -> None:
    (lab.home.disks / "web1.qcow2").write_text("system")
    target.start(lab, make_definition(), TCG)
    assert (lab.home.disks / "web1.qcow2").read_text() == "system"


def test_lost_disk_of_an_installed_machine_is_told(
    lab: Lab, make_definition: Make, started: list[MachineSpec], write_status: Write
) -> None:
    definition = make_definition()
    write_status(status_of(definition, InstallState.INSTALLED, installs=1))
    with pytest.raises(PvmlabError, match=r"the disk of web1 is gone"):
        target.start(lab, definition, TCG)
    assert started == []


def test_running_machine_is_not_started_and_its_disk_not_touched(
    lab: Lab,
    make_definition: Make,
    started: list[MachineSpec],
    write_status: Write,
    mark_running: Callable[[str], None],
) -> None:
    definition = make_definition()
    (lab.home.disks / "web1.qcow2").write_text("half")
    write_status(status_of(definition, InstallState.INSTALLING))
    mark_running("web1")
    with pytest.raises(ConflictError, match=r"web1 is already running"):
        target.start(lab, definition, TCG)
    assert (lab.home.disks / "web1.qcow2").read_text() == "half"


def test_status_of_an_older_machine_does_not_count(lab: Lab, make_definition: Make, write_status: Write) -> None:
    definition = make_definition()
    write_status(MachineStatus(name="web1", uuid="another", state=InstallState.INSTALLED, installs=1))
    assert target.read_status(lab, definition).state is InstallState.NEW


def test_broken_status_is_told(lab: Lab, make_definition: Make) -> None:
    (lab.home.status / "web1.json").write_text('{"name": 1}')
    with pytest.raises(ConflictError, match=r"install status of web1 is broken") as caught:
        target.read_status(lab, make_definition())
    assert "name: expected str" in caught.value.details


def test_create_makes_the_disk_before_the_definition(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, host_key: SshHostKey, started: list[MachineSpec], tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA pvmlab\n")
    monkeypatch.setattr(ssh, "lab_key", lambda _: KeyPair(tmp_path / "key"))
    monkeypatch.setattr(target, "make_key", lambda name, *, scratch: host_key)
    monkeypatch.setattr(target, "host_mirror", lambda: Mirror("http://mirror.test/debian", None))

    def full(path: Path, size: int) -> None:
        raise OSError(28, "No space left on device")

    request = MachineRequest(name="web1", distro="debian-12")
    with monkeypatch.context() as patch:
        patch.setattr(target, "create_empty_disk", full)
        with pytest.raises(OSError, match="No space left"):
            target.create(lab, request)
    assert DefinitionStore(lab).names() == []
    definition = target.create(lab, request)
    assert definition.package_sources == (
        "deb http://mirror.test/debian bookworm main", "deb http://mirror.test/debian bookworm-updates main",
    )  # fmt: skip
    assert DefinitionStore(lab).load("web1") == definition
    assert definition.ssh_authorized_keys == ("ssh-ed25519 AAAA pvmlab",)
    assert (lab.home.disks / "web1.qcow2").read_text() == "empty 8"


def test_the_first_machine_of_a_lab_has_its_addresses_from_the_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host_key: SshHostKey
) -> None:
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA pvmlab\n")
    monkeypatch.setattr(ssh, "lab_key", lambda _: KeyPair(tmp_path / "key"))
    monkeypatch.setattr(target, "make_key", lambda name, *, scratch: host_key)
    monkeypatch.setattr(target, "host_mirror", lambda: Mirror("http://mirror.test/debian", None))
    monkeypatch.setattr(target, "create_empty_disk", lambda path, size: path.write_text(f"empty {size}"))
    definition = target.create(lab, MachineRequest(name="web1", distro="debian-12"))
    assert definition.mac == derive_mac(lab.identity(), "web1")  # else two labs have the same
    assert definition.ipv6 == ipv6_of(lab.lan, definition.ip) != ""


def test_create_leaves_nothing_of_a_clone_that_was_killed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, host_key: SshHostKey, started: list[MachineSpec], tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA pvmlab\n")
    monkeypatch.setattr(ssh, "lab_key", lambda _: KeyPair(tmp_path / "key"))
    monkeypatch.setattr(target, "make_key", lambda name, *, scratch: host_key)
    monkeypatch.setattr(target, "host_mirror", lambda: Mirror("http://mirror.test/debian", None))
    variables = target.variables_path(lab, "web1")
    variables.write_text("another machine's boot order")
    target.create(lab, MachineRequest(name="web1", distro="debian-12"))
    assert not variables.exists()


def test_a_machine_that_was_removed_meanwhile_is_not_started(
    lab: Lab, make_definition: Make, started: list[MachineSpec]
) -> None:
    definition = make_definition()
    DefinitionStore(lab).delete("web1")
    with pytest.raises(NotFoundError, match="there is no machine 'web1'"):
        target.start(lab, definition, TCG)
    make_definition(mac="52:54:00:00:00:02")
    with pytest.raises(NotFoundError, match="another command has removed web1"):
        target.start(lab, definition, TCG)
    assert not started
    assert not list(lab.home.disks.iterdir())


def test_create_refuses_an_unknown_distribution(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match=r"no distribution 'beos'"):
        target.create(lab, MachineRequest(name="web1", distro="beos"))


def test_create_refuses_a_bad_name_before_anything_is_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, host_key: SshHostKey
) -> None:
    with pytest.raises(UsageError, match=r"not a machine name"):
        target.create(lab, MachineRequest(name="../web1", distro="debian-12"))


def test_clean_removes_all_that_is_known(lab: Lab, make_definition: Make, write_status: Write) -> None:
    definition, other = make_definition(), make_definition("web10", ip="192.168.100.3", mac="52:54:00:00:00:02")
    write_status(status_of(definition, InstallState.INSTALLED, installs=1))
    for name in ("web1", "web10"):
        for path in (lab.home.disks / f"{name}.qcow2", lab.home.disks / f"{name}.vars.fd",
                     lab.home.logs / f"{name}.serial.log", lab.home.logs / f"{name}.serial.log.1"):  # fmt: skip
            path.write_text("")
    (lab.home.status / RECORDS).mkdir()
    for each in (definition, other):
        (lab.home.status / RECORDS / record_name(each.uuid)).write_text("")
    target.clean(lab, "web1")
    assert [path.name for path in (lab.home.status / RECORDS).iterdir()] == [record_name(other.uuid)]
    left = {path.name for path in lab.home.root.rglob("*") if path.is_file() and path.name.startswith("web1")}
    assert left == {
        "web10.json", "web10.qcow2", "web10.vars.fd", "web10.serial.log", "web10.serial.log.1", "web1.lock",
    } - {"web1.lock"}  # fmt: skip
    assert DefinitionStore(lab).load_all() == [other]


def test_clean_of_a_broken_definition_works(lab: Lab) -> None:
    (lab.home.vms / "web1.json").write_text("{")
    target.clean(lab, "web1")
    assert DefinitionStore(lab).names() == []


def test_clean_of_no_machine_is_not_found(lab: Lab) -> None:
    with pytest.raises(NotFoundError):
        target.clean(lab, "web1")


HARDWARE = {
    "nic_model": NicModel.E1000E,
    "disk_bus": DiskBus.SATA,
    "more_disks": (ExtraDisk(size_gib=3), ExtraDisk(size_gib=4, bus=DiskBus.VIRTIO)),
    "tpm": True,
    "qemu_arguments": ("-device", "edu"),
}


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the host be able to do all that a definition may ask for."""
    (tmp_path / "MS.fd").write_text("with keys")
    secure = FirmwareFiles(tmp_path / "CODE.ms.fd", tmp_path / "MS.fd", smm=True)
    monkeypatch.setattr("lab.firmware.find_secure_firmware", lambda _: secure)
    monkeypatch.setattr("lab.hardware.find_secure_firmware", lambda _: secure)
    monkeypatch.setattr("lab.tpm.require_swtpm", lambda: None)


def test_spec_has_all_the_hardware(lab: Lab, make_definition: Make) -> None:
    nics = (Nic(mac="52:54:00:00:00:02", ip="192.168.100.42"),)
    definition = make_definition(nics=nics, **HARDWARE)
    spec = target.target_spec(lab, definition, accelerator=TCG, boot=Bios(), lan_socket=Path("/lan"), reboots=False)
    disks = lab.home.disks
    assert spec.disks == (
        Disk(disks / "web1.qcow2", DiskBus.SATA, boot_index=0),
        Disk(disks / "web1.disk1.qcow2", DiskBus.NVME),
        Disk(disks / "web1.disk2.qcow2", DiskBus.VIRTIO),
    )
    assert target.disk_paths(lab, definition) == tuple(disk.path for disk in spec.disks)
    assert {card.model for card in (spec.lan, *spec.more_lan)} == {NicModel.E1000E}
    assert spec.tpm == tpm_of(lab.home, "web1")
    assert spec.guest_agent_socket == lab.machine("web1").qmp_socket.with_suffix(".agent")
    assert (spec.more_arguments, spec.reboots, spec.display) == (("-device", "edu"), False, True)


def test_further_disks_are_made_and_removed(
    lab: Lab, started: list[MachineSpec], at_hand: None, make_definition: Make, write_status: Write
) -> None:
    definition = make_definition(**HARDWARE)
    target.start(lab, definition, TCG)
    further = lab.home.disks / "web1.disk1.qcow2"
    assert further.read_text() == "empty 3"
    further.write_text("data")
    write_status(status_of(definition, InstallState.FAILED))
    target.start(lab, definition, TCG)
    assert further.read_text() == "data"  # no installer of ours writes there
    write_status(status_of(definition, InstallState.INSTALLED, installs=1))
    target.start(lab, definition, TCG)
    assert further.read_text() == "data"
    state = tpm_of(lab.home, "web1").state
    state.mkdir()
    target.clean(lab, "web1")
    assert not [path.name for path in lab.home.disks.iterdir()]


@pytest.mark.parametrize(
    ("installs", "options", "indices"),
    [
        (0, StartOptions(), (0, 1)),
        (1, StartOptions(), (0, 1)),
        (1, StartOptions(boot=BootFrom.PXE), (1, 0)),
        (0, StartOptions(boot=BootFrom.PXE), (1, 0)),
        (1, StartOptions(boot=BootFrom.DISK), (0, None)),
    ],
)
def test_a_start_may_be_told_what_to_boot(
    lab: Lab, make_definition: Make, started: list[MachineSpec], write_status: Write, installs: int,
    options: StartOptions, indices: tuple[int, int | None],
) -> None:  # fmt: skip
    definition = make_definition()
    state = InstallState.INSTALLED if installs else InstallState.NEW
    (lab.home.disks / "web1.qcow2").write_text("system")
    write_status(status_of(definition, state, installs=installs))
    target.start(lab, definition, TCG, options=options)
    assert (started[0].disks[0].boot_index, started[0].lan.boot_index) == indices
    assert started[0].reboots
    assert DefinitionStore(lab).load("web1") == definition


def test_a_disk_that_was_never_installed_is_not_booted(
    lab: Lab, make_definition: Make, started: list[MachineSpec]
) -> None:
    with pytest.raises(UsageError, match="web1 was never installed: there is nothing on its disk to boot"):
        target.start(lab, make_definition(), TCG, options=StartOptions(boot=BootFrom.DISK))
    assert started == []


def test_a_start_may_end_where_the_guest_reboots(lab: Lab, make_definition: Make, started: list[MachineSpec]) -> None:
    target.start(lab, make_definition(), TCG, options=StartOptions(reboots=False))
    assert not started[0].reboots


def test_secure_boot_is_off_for_the_install_and_on_for_the_disk(
    lab: Lab, make_definition: Make, started: list[MachineSpec], at_hand: None, write_status: Write, tmp_path: Path
) -> None:
    """No key that firmware knows has signed our iPXE: it could not boot from the network."""
    definition = make_definition(secure_boot=True)
    own, throw_away = lab.home.disks / "web1.vars.fd", lab.home.disks / "web1.network-vars.fd"
    target.start(lab, definition, TCG)
    write_status(status_of(definition, InstallState.INSTALLED, installs=1))
    target.start(lab, definition, TCG)
    own.write_text("with keys and boot entries")
    target.start(lab, definition, TCG)
    throw_away.write_text("of another boot")
    target.start(lab, definition, TCG, options=StartOptions(boot=BootFrom.PXE))
    unsigned = Firmware(tmp_path / "CODE.fd", throw_away)
    secure = Firmware(tmp_path / "CODE.ms.fd", own, smm=True)
    assert [(spec.boot, spec.reboots) for spec in started] == [
        (unsigned, False), (secure, True), (secure, True), (unsigned, False),
    ]  # fmt: skip
    assert own.read_text() == "with keys and boot entries"
    assert throw_away.read_text() == "template"


def test_hardware_that_cannot_be_is_refused_before_anything_is_there(
    lab: Lab, started: list[MachineSpec], monkeypatch: pytest.MonkeyPatch, host_key: SshHostKey, tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA pvmlab\n")
    monkeypatch.setattr(ssh, "lab_key", lambda _: KeyPair(tmp_path / "key"))
    monkeypatch.setattr(target, "make_key", lambda name, *, scratch: host_key)
    monkeypatch.setattr(target, "host_mirror", lambda: Mirror("http://mirror.test/debian", None))
    monkeypatch.setattr("lab.tpm.PROGRAM", "swtpm-of-nobody")
    with pytest.raises(PrerequisiteError, match="swtpm-of-nobody"):
        target.create(lab, MachineRequest(name="web1", distro="debian-12", tpm=True))
    assert not DefinitionStore(lab).exists("web1")
    assert not list(lab.home.disks.iterdir())


def test_a_plan_is_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "make_key", lambda *_, **__: HOST_KEY)
    monkeypatch.setattr(target, "_package_sources", lambda _: ("deb http://mirror.example/debian bookworm main",))
    monkeypatch.setattr("lab.ssh.lab_key", lambda _: type("Key", (), {"read_public": lambda _: "ssh-ed25519 A x"})())
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    with pytest.raises(UsageError, match="cannot be a machine's address"):
        target.plan(lab, MachineRequest(name="web1", distro="debian-12", ip="10.0.0.1"))
    for address, message in (("nonsense", "is not an IPv6 address"), ("fd00::1", "the lab's network has no IPv6")):
        with pytest.raises(UsageError, match=message):
            target.create(lab, MachineRequest(name="web1", distro="debian-12", ipv6=address))
    assert not lab.home.root.exists()  # what makes no sense does not even make the lab
    planned = target.plan(lab, MachineRequest(name="web1", distro="debian-12"))
    assert planned.package_sources == ("deb http://mirror.example/debian bookworm main",)
    assert DefinitionStore(lab).names() == []


def test_what_is_installed_next(lab: Lab, make_definition: Make, write_status: Write) -> None:
    definition = make_definition()
    assert target.is_installed_next(lab, definition)
    orders.give(lab, definition, OrderKind.RESCUE)
    assert not target.is_installed_next(lab, definition)
    orders.withdraw(lab, "web1")
    write_status(status_of(definition, InstallState.INSTALLED, installs=1))
    assert not target.is_installed_next(lab, definition)
    orders.give(lab, definition, OrderKind.REINSTALL)
    assert target.is_installed_next(lab, definition)


def test_a_machine_from_an_image_is_never_installed_next(lab: Lab, make_definition: Make) -> None:
    definition = make_definition(source=MachineSource.IMAGE)
    assert not target.is_installed_next(lab, definition)
    orders.give(lab, definition, OrderKind.REINSTALL)
    assert not target.is_installed_next(lab, definition)
