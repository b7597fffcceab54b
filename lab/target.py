"""Target machines: the ones that are installed over the network."""

from __future__ import annotations

import dataclasses
import enum
import shutil
from collections.abc import Callable
from pathlib import Path

from contracts.machine import FirmwareKind, MachineSource, SshHostKey, VmDefinition
from contracts.report import InstallState, MachineStatus
from contracts.timeline import EVENTS_SUFFIX
from distros.family import Family
from distros.registry import require_release
from distros.release import Release
from lab import cloud_machine, forwards, orders, provisioner, snapshot_store, ssh, tpm
from lab.disks import create_empty_disk
from lab.firmware import own_firmware
from lab.hardware import require_drivers, require_makeable
from lab.install_status import is_installed_next, read_status, status_path, token_path
from lab.keys import make_key
from lab.lab import Lab
from lab.machine import QemuStartError
from lab.native import find_repository, require_memory
from lab.spec import Accelerator, Bios, Disk, Firmware, LanCard, LanTaps, MachineSpec
from lab.store import BrokenDefinitionError, DefinitionStore, MachineRequest, require_name
from lab.tpm import tpm_of
from pipeline.debian.apt_sources import host_mirror
from pipeline.errors import ConflictError, PrerequisiteError, PvmlabError, UsageError
from pipeline.sidecar import read_sidecar

__all__ = ["is_installed_next", "read_status", "status_path"]  # of lab.install_status, named here as ever

_NO_KEY = SshHostKey(private="-----BEGIN OPENSSH PRIVATE KEY-----\n", public="ssh-ed25519 AAAA")  # until one is made


class BootFrom(enum.StrEnum):
    """What a machine is told to boot from, for one start."""

    DISK = "disk"
    PXE = "pxe"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What is other than usual with one start of a machine.

    :ivar boot: from where; None for what it needs next. :ivar reboots: False has it off where its system would reboot.
    :ivar resumes: its memory is loaded: it goes on where it was, be that half an install, with its disks as they are.
    """

    boot: BootFrom | None = None
    reboots: bool = True
    resumes: bool = False


USUAL_START = StartOptions()


def target_spec(
    lab: Lab, definition: VmDefinition, *, accelerator: Accelerator, boot: Firmware | Bios, lan_socket: Path | LanTaps,
    network_first: bool = False, disk_only: bool = False, reboots: bool = True,
) -> MachineSpec:  # fmt: skip
    """Return what a target's machine is made of. Touches nothing.

    The disk comes before the network in the boot order: an empty one falls through to PXE, an installed one boots.

    :param network_first: the other way round, for a machine with a system that has to ask the boot handler first.
    :param disk_only: the network is not booted from at all.
    """
    machine, name = lab.machine(definition.name), definition.name
    further = [Disk(further_disk_path(lab, name, n), disk.bus) for n, disk in enumerate(definition.more_disks, 1)]
    first_card = 0 if network_first else 1
    cards = [
        LanCard(nic.mac, boot_index=None if disk_only else first_card + number, model=definition.nic_model)
        for number, nic in enumerate(definition.cards)
    ]
    first_disk = Disk(disk_path(lab, name), definition.disk_bus, boot_index=len(cards) if network_first else 0)
    return MachineSpec(
        name=name,
        uuid=definition.uuid,
        arch=definition.arch,
        cpus=definition.cpus,
        memory_mib=definition.memory_mib,
        accelerator=accelerator,
        boot=boot,
        disks=(first_disk, *further),
        lan=cards[0],
        more_lan=tuple(cards[1:]),
        lan_socket=lan_socket,
        serial_log=machine.logs.serial,
        qmp_socket=machine.qmp_socket,
        tpm=tpm_of(lab.home, name) if definition.tpm else None,
        guest_agent_socket=machine.qmp_socket.with_suffix(".agent"),
        display=True,
        reboots=reboots,
        more_arguments=definition.qemu_arguments,
        seed=cloud_machine.seed_path(lab, name) if cloud_machine.is_cloud(definition) else None,
    )


def disk_path(lab: Lab, name: str) -> Path:
    """Return where the target's first disk is, the one with its system."""
    return lab.home.disks / f"{name}.qcow2"


def further_disk_path(lab: Lab, name: str, number: int) -> Path:
    """Return where the target's further disk *number* is, from 1 on."""
    return lab.home.disks / f"{name}.disk{number}.qcow2"


def disk_paths(lab: Lab, definition: VmDefinition) -> tuple[Path, ...]:
    """Return where all disks of the target are, the first one first."""
    further = range(1, len(definition.more_disks) + 1)
    return disk_path(lab, definition.name), *(further_disk_path(lab, definition.name, number) for number in further)


def variables_path(lab: Lab, name: str) -> Path:
    """Return where the target's UEFI variables are, with which it boots its disk."""
    return lab.home.disks / f"{name}.vars.fd"


def network_variables_path(lab: Lab, name: str) -> Path:
    """Return where a machine with Secure Boot has the variables of its network boots, which are made for each."""
    return lab.home.disks / f"{name}.network-vars.fd"


def create(
    lab: Lab, request: MachineRequest, *, managed: bool = True, check: Callable[[VmDefinition], None] | None = None
) -> VmDefinition:
    """Make a target machine: its disk, then its definition, with which it exists.

    :param managed: False for a machine that the lab does not run: it gets no disk.
    :param check: is shown the machine before anything of it is there; what it raises keeps it from being made.
    :raises UsageError: if a value makes no sense. :raises NotFoundError: for an unknown distribution.
    :raises ConflictError: if its name or an address is taken.
    :raises PrerequisiteError: if it is not known where its own installer shall find packages.
    """
    _require_plannable(lab, request)
    store = DefinitionStore(lab)
    with lab.changing_definitions():
        lab.ensure_folders()  # first: the lab's identity is in the machine's MAC and IPv6 addresses
        definition = dataclasses.replace(_plan(lab, request), managed=managed)
        if check is not None:
            check(definition)
        require_makeable(definition, lab.cache)
        if managed:
            variables_path(lab, definition.name).unlink(missing_ok=True)  # of a clone that was killed half-made
            _make_disks(lab, definition)
        store.write_user_data(definition.name, request.user_data)
        store.write(definition, request.answers)
        ssh.write_files(lab, provisioner.find_access(lab))
    return definition


def plan(lab: Lab, request: MachineRequest) -> VmDefinition:
    """Return the machine that *request* asks for, as it would be now; nothing of it is kept.

    :raises PvmlabError: as :func:`create`.
    """
    _require_plannable(lab, request)
    lab.ensure_folders()
    return _plan(lab, request)


def _require_plannable(lab: Lab, request: MachineRequest) -> None:
    """Check *request* as far as that makes nothing: what makes no sense shall not even make the lab."""
    require_name(request.name)
    require_release(request.distro, request.arch)
    DefinitionStore(lab).plan(request, host_key=_NO_KEY, authorized_key=_NO_KEY.public)


def _plan(lab: Lab, request: MachineRequest) -> VmDefinition:
    host_key, own_key = make_key(request.name, scratch=lab.home.ssh), ssh.lab_key(lab).read_public()
    return with_sources(DefinitionStore(lab).plan(request, host_key=host_key, authorized_key=own_key))


def with_sources(definition: VmDefinition) -> VmDefinition:
    """Return *definition* with where its installer and its system find packages, as far as this host knows."""
    release, native = require_release(definition.distro, definition.arch), definition.installer.is_native
    return dataclasses.replace(
        definition,
        package_sources=_package_sources(release),
        repository=find_repository(release, definition.arch) if native else "",
    )


def _make_disks(lab: Lab, definition: VmDefinition) -> None:
    """Make the disks of a machine that is being created; one of an image that is not built yet is made at its start."""
    disk = disk_path(lab, definition.name)
    for number, further in enumerate(definition.more_disks, 1):
        create_empty_disk(further_disk_path(lab, definition.name, number), further.size_gib)
    if not cloud_machine.is_cloud(definition):
        create_empty_disk(disk, definition.disk_gib)
        return
    cloud_machine.renew_disk(lab, definition.name, disk)  # a machine of that name may have left something
    packed = lab.cache.image(definition.distro, definition.arch, "disk.img.zst")
    if definition.image or read_sidecar(packed) is not None:
        cloud_machine.prepare_disk(lab, definition, disk)


def _package_sources(release: Release) -> tuple[str, ...]:
    """Return the apt sources for a machine with Debian; none if the host knows no mirror (it is no Debian itself)."""
    if release.family is not Family.DEBIAN or not release.suite:
        return ()
    try:
        return tuple(host_mirror().source_lines(release.suite, for_host=False))
    except PrerequisiteError:
        return ()


def start(
    lab: Lab, definition: VmDefinition, accelerator: Accelerator, *, options: StartOptions = USUAL_START
) -> MachineSpec:
    """Start a target: it boots its disk, or installs itself if that is not done yet; return what was started.

    An install that was broken off begins anew, with an empty disk.

    :raises ConflictError: if it runs already, or is not the lab's to run. :raises UsageError: if its memory is too
        small for its installer, or it cannot boot as *options* say.
    :raises PrerequisiteError: if this host lacks something that it needs.
    """
    spec = prepare(lab, definition, accelerator, options=options)
    machine = lab.machine(definition.name)
    try:
        machine.start(spec)
    except QemuStartError as error:  # of a TPM, QEMU only says that it failed
        raise QemuStartError(machine.name, [*error.tail, *_words_of_tpm(lab, spec)], machine.logs.qemu) from None
    forwards.ensure(lab, definition)
    return spec


def _words_of_tpm(lab: Lab, spec: MachineSpec) -> list[str]:
    return [f"{tpm.PROGRAM}: {line}" for line in tpm.last_words(lab.home, spec.name)] if spec.tpm is not None else []


def prepare(
    lab: Lab, definition: VmDefinition, accelerator: Accelerator, *, options: StartOptions = USUAL_START
) -> MachineSpec:
    """Have there be all that the target's machine is made of, and return what is to be started; see :func:`start`."""
    name = definition.name
    require_managed(definition)
    if lab.machine(name).is_running():
        raise ConflictError(f"{name} is already running", resolution=f"{ssh.login_hint(name)} goes in")
    DefinitionStore(lab).require_current(definition)  # what is started without a definition is nobody's
    snapshot_store.finish(lab.home, name)  # a restore whose command was killed
    status = read_status(lab, definition)
    by_network = _boots_network(lab, definition, status, options)
    if definition.tpm:
        tpm.require_swtpm()
    if definition.source is MachineSource.NETWORK and status.state is not InstallState.INSTALLED:
        require_memory(definition, lab.cache, require_release(definition.distro, definition.arch))
    require_drivers(definition, lab.cache)
    lab.ensure_folders()
    if not options.resumes:
        _prepare_disk(lab, definition)
    unsigned = definition.secure_boot and by_network
    return target_spec(
        lab, definition,
        accelerator=accelerator,
        boot=_prepare_firmware(lab, definition, unsigned=unsigned),
        lan_socket=lab.network.attach(name, len(definition.cards)),
        network_first=by_network and (options.boot is BootFrom.PXE or status.installs > 0),
        disk_only=options.boot is BootFrom.DISK,
        reboots=options.reboots and not unsigned,
    )  # fmt: skip


def require_bootable(lab: Lab, definition: VmDefinition, options: StartOptions) -> None:
    """Check that the target can boot as *options* say, before anything is built and started for it.

    :raises UsageError: if not.
    """
    _boots_network(lab, definition, read_status(lab, definition), options)


def _boots_network(lab: Lab, definition: VmDefinition, status: MachineStatus, options: StartOptions) -> bool:
    """Tell whether the machine is to boot from the network now.

    :raises UsageError: if it is told to boot a disk that was never installed.
    """
    if options.boot is BootFrom.PXE:
        return True
    from_network = definition.source is MachineSource.NETWORK
    if options.boot is BootFrom.DISK:
        if from_network and status.installs == 0:
            raise UsageError(
                f"{definition.name} was never installed: there is nothing on its disk to boot",
                resolution=f"./pvmlab vm.start {definition.name} --wait installs it",
            )
        return False
    due = orders.find_due(lab, definition, status)
    return from_network and (status.installs == 0 or orders.boots_network_first(due, status))


def require_managed(definition: VmDefinition) -> None:
    """Check that the lab runs the machine itself.

    :raises ConflictError: if not: it was adopted.
    """
    if not definition.managed:
        name = definition.name
        raise ConflictError(
            f"{name} was adopted: it is no machine that this lab runs",
            resolution="switch it on and off yourself; it is installed when it boots from the network: "
            f"./pvmlab vm.events {name} --follow shows it",
        )


def _prepare_firmware(lab: Lab, definition: VmDefinition, *, unsigned: bool) -> Firmware | Bios:
    """Return what boots the machine; a UEFI one gets variables of its own, which it keeps.

    :param unsigned: it boots a program that no key of Secure Boot's has signed.
    :raises PrerequisiteError: if this host has no such firmware.
    """
    if definition.firmware is FirmwareKind.BIOS:
        return Bios()
    http, name = definition.firmware is FirmwareKind.UEFI_HTTP, definition.name
    if unsigned:
        return own_firmware(definition.arch, network_variables_path(lab, name), http=http, fresh=True)
    return own_firmware(definition.arch, variables_path(lab, name), http=http, secure=definition.secure_boot)


def clean(lab: Lab, name: str) -> None:
    """End the target and remove all that is known of it. Its definition goes last: until then, again is possible.

    :raises NotFoundError: if there is no such machine.
    """
    store = DefinitionStore(lab)
    if not store.exists(name):
        store.load(name)  # says so
    machine = lab.machine(name)
    machine.kill()  # first: who is at work on it fails then, and does not keep us waiting
    with lab.starting(name), lab.changing_definitions():
        machine.kill()  # it may just have been started
        logs = machine.logs
        for path in (*_disks_of(lab, name), variables_path(lab, name), network_variables_path(lab, name),
                     status_path(lab, name), *cloud_machine.own_files(lab, name),
                     lab.home.status / f"{name}{EVENTS_SUFFIX}", orders.order_path(lab, name),
                     logs.ours, logs.serial, logs.qemu, *_token_records(lab, name)):  # fmt: skip
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.1").unlink(missing_ok=True)  # the log of the run before
        shutil.rmtree(tpm_of(lab.home, name).state, ignore_errors=True)
        snapshot_store.remove_all(lab.home, name)
        store.delete(name)
        cloud_machine.remove_unused_bases(lab)
        ssh.write_files(lab, provisioner.find_access(lab))


def _disks_of(lab: Lab, name: str) -> list[Path]:
    """Return the disks that are there of the machine *name*, whose definition may be broken."""
    return [disk_path(lab, name), *lab.home.disks.glob(f"{name}.disk*.qcow2")]


def _token_records(lab: Lab, name: str) -> list[Path]:
    """Return what the boot handler keeps of the machine's token; of a broken definition's, it removes it itself."""
    try:
        return [token_path(lab, DefinitionStore(lab).load(name))]
    except BrokenDefinitionError:
        return []


def _prepare_disk(lab: Lab, definition: VmDefinition) -> None:
    for number, further in enumerate(definition.more_disks, 1):
        if not (path := further_disk_path(lab, definition.name, number)).exists():
            create_empty_disk(path, further.size_gib)
    if cloud_machine.is_cloud(definition):
        if orders.find_due(lab, definition, read_status(lab, definition)) is not None:  # the one kind there is for it
            cloud_machine.renew_disk(lab, definition.name, disk_path(lab, definition.name))
            variables_path(lab, definition.name).unlink(missing_ok=True)
            orders.withdraw(lab, definition.name)  # after: killed in between, it is carried out once more
        cloud_machine.prepare_disk(lab, definition, disk_path(lab, definition.name))
        return
    status, disk = read_status(lab, definition), disk_path(lab, definition.name)
    if status.installs == 0 and status.state not in {InstallState.NEW, InstallState.RESCUE}:
        # Half an install: whatever of a bootloader is there must not boot. Nobody's work can be on that disk.
        if orders.find_due(lab, definition, status) is None:
            orders.withdraw(lab, definition.name)  # that it was carried out is in the status only
        create_empty_disk(disk, definition.disk_gib)
        variables_path(lab, definition.name).unlink(missing_ok=True)
        status_path(lab, definition.name).unlink(missing_ok=True)
    elif not disk.exists():
        if status.installs > 0:
            raise PvmlabError(
                f"the disk of {definition.name} is gone",
                details=str(disk),
                resolution=f"put it back, or ./pvmlab vm.clean {definition.name} and create the machine again",
            )
        create_empty_disk(disk, definition.disk_gib)
