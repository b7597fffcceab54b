"""Target machines: the ones that are installed over the network."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.machine import FirmwareKind, VmDefinition
from contracts.orders import OrderKind
from contracts.report import InstallState, MachineStatus
from contracts.timeline import EVENTS_SUFFIX
from contracts.tokens import RECORDS, record_name
from distros.family import Family
from distros.registry import require_release
from distros.release import Release
from lab import orders, provisioner, ssh
from lab.disks import create_empty_disk
from lab.firmware import find_firmware
from lab.keys import make_key
from lab.lab import Lab
from lab.native import find_repository, require_memory, require_sources
from lab.spec import Accelerator, Bios, Disk, Firmware, LanCard, MachineSpec
from lab.store import BrokenDefinitionError, DefinitionStore, MachineRequest, require_name
from pipeline import commit
from pipeline.debian.apt_sources import host_mirror
from pipeline.errors import ConflictError, PrerequisiteError, PvmlabError


def target_spec(
    lab: Lab, definition: VmDefinition, *, accelerator: Accelerator, boot: Firmware | Bios, lan_socket: Path,
    network_first: bool = False,
) -> MachineSpec:  # fmt: skip
    """Return what a target's machine is made of. Touches nothing.

    The disk comes before the network in the boot order: an empty one falls through to PXE, an installed one boots.

    :param network_first: the other way round, for a machine with a system that has to ask the boot handler first.
    """
    cards = len(definition.cards)
    first_card, disk = (0, cards) if network_first else (1, 0)
    machine = lab.machine(definition.name)
    return MachineSpec(
        name=definition.name,
        uuid=definition.uuid,
        arch=definition.arch,
        cpus=definition.cpus,
        memory_mib=definition.memory_mib,
        accelerator=accelerator,
        boot=boot,
        disks=(Disk(disk_path(lab, definition.name), definition.disk_bus, boot_index=disk),),
        lan=LanCard(definition.mac, boot_index=first_card),
        more_lan=tuple(
            LanCard(nic.mac, boot_index=first_card + number) for number, nic in enumerate(definition.nics, 1)
        ),
        lan_socket=lan_socket,
        serial_log=machine.logs.serial,
        qmp_socket=machine.qmp_socket,
    )


def disk_path(lab: Lab, name: str) -> Path:
    """Return where the target's disk is."""
    return lab.home.disks / f"{name}.qcow2"


def variables_path(lab: Lab, name: str) -> Path:
    """Return where the target's UEFI variables are."""
    return lab.home.disks / f"{name}.vars.fd"


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
    require_name(request.name)
    release = require_release(request.distro, request.arch)
    store = DefinitionStore(lab)
    with lab.changing_definitions():
        definition = dataclasses.replace(plan(lab, request), managed=managed)
        if check is not None:
            check(definition)
        if definition.installer.is_native:
            require_sources(definition)
        if definition.installer.is_native and managed:
            require_memory(definition, lab.cache, release)
        if managed:
            create_empty_disk(disk_path(lab, definition.name), definition.disk_gib)
        store.write(definition, request.answers)
        ssh.write_files(lab, provisioner.find_access(lab))
    return definition


def plan(lab: Lab, request: MachineRequest) -> VmDefinition:
    """Return the machine that *request* asks for, as it would be now; nothing of it is kept.

    :raises PvmlabError: as :func:`create`.
    """
    require_name(request.name)
    release = require_release(request.distro, request.arch)
    lab.ensure_folders()
    return DefinitionStore(lab).plan(
        request,
        host_key=make_key(request.name, scratch=lab.home.ssh),
        authorized_key=ssh.lab_key(lab).read_public(),
        package_sources=_package_sources(release),
        repository=find_repository(release, request.arch) if request.installer.is_native else "",
    )


def _package_sources(release: Release) -> tuple[str, ...]:
    """Return the apt sources for a machine with Debian; none if the host knows no mirror (it is no Debian itself)."""
    if release.family is not Family.DEBIAN or not release.suite:
        return ()
    try:
        return tuple(host_mirror().source_lines(release.suite, for_host=False))
    except PrerequisiteError:
        return ()


def start(lab: Lab, definition: VmDefinition, accelerator: Accelerator) -> None:
    """Start a target: it boots its disk, or installs itself if that is not done yet.

    An install that was broken off begins anew, with an empty disk.

    :raises ConflictError: if it runs already, or is not the lab's to run. :raises UsageError: if its memory is too
        small for its installer.
    """
    name = definition.name
    require_managed(definition)
    if lab.machine(name).is_running():
        raise ConflictError(f"{name} is already running", resolution=f"{ssh.login_hint(name)} goes in")
    if read_status(lab, definition).state is not InstallState.INSTALLED:
        require_memory(definition, lab.cache, require_release(definition.distro, definition.arch))
    lab.ensure_folders()
    boot = _prepare_firmware(lab, definition)
    _prepare_disk(lab, definition)
    socket = lab.network.ensure_started()
    status = read_status(lab, definition)
    first = orders.boots_network_first(orders.find_due(lab, definition, status), status)
    lab.machine(name).start(
        target_spec(lab, definition, accelerator=accelerator, boot=boot, lan_socket=socket, network_first=first)
    )


def require_managed(definition: VmDefinition) -> None:
    """Check that the lab runs the machine itself.

    :raises ConflictError: if not: it was adopted.
    """
    if not definition.managed:
        name = definition.name
        raise ConflictError(
            f"{name} was adopted: it is no machine that this lab runs",
            resolution=f"switch it on and have it boot from the network; ./pvmlab vm.events {name} --follow shows it",
        )


def _prepare_firmware(lab: Lab, definition: VmDefinition) -> Firmware | Bios:
    """Return what boots the machine; a UEFI one gets variables of its own, which it keeps.

    :raises PrerequisiteError: if this host has no such firmware.
    """
    if definition.firmware is FirmwareKind.BIOS:
        return Bios()
    code, template = find_firmware(definition.arch)
    variables = variables_path(lab, definition.name)
    if not variables.exists():
        with commit.publish(variables, mode=0o600) as temporary:
            shutil.copyfile(template, temporary)
    return Firmware(code, variables, http=definition.firmware is FirmwareKind.UEFI_HTTP)


def read_status(lab: Lab, definition: VmDefinition) -> MachineStatus:
    """Return how far the target's install is: a fresh status if nothing is known, or only of an older machine.

    :raises ConflictError: if the file is broken.
    """
    path = status_path(lab, definition.name)
    try:
        status = document.loads(MachineStatus, path.read_bytes())
    except FileNotFoundError:
        return MachineStatus(name=definition.name, uuid=definition.uuid)
    except DocumentError as error:
        raise ConflictError(
            f"the install status of {definition.name} is broken",
            details="\n".join([str(path), *error.faults]),
            resolution="remove that file: then the machine counts as not installed, and is installed at its next start",
        ) from None
    if status.uuid != definition.uuid:
        return MachineStatus(name=definition.name, uuid=definition.uuid)
    return status


def is_installed_next(lab: Lab, definition: VmDefinition) -> bool:
    """Tell whether the target is installed when it boots from the network next: it was not yet, or it is ordered.

    :raises ConflictError: if its status is broken.
    """
    status = read_status(lab, definition)
    if (due := orders.find_due(lab, definition, status)) is not None:
        return due.kind is OrderKind.REINSTALL
    state = status.resume if status.state is InstallState.RESCUE else status.state
    return state is not InstallState.INSTALLED


def status_path(lab: Lab, name: str) -> Path:
    """Return where the boot handler keeps the target's install state."""
    return lab.home.status / f"{name}.json"


def clean(lab: Lab, name: str) -> None:
    """End the target and remove all that is known of it. Its definition goes last: until then, again is possible.

    :raises NotFoundError: if there is no such machine.
    """
    store = DefinitionStore(lab)
    if not store.exists(name):
        store.load(name)  # says so
    machine = lab.machine(name)
    machine.kill()
    with lab.changing_definitions():
        logs = machine.logs
        for path in (disk_path(lab, name), variables_path(lab, name), status_path(lab, name),
                     lab.home.status / f"{name}{EVENTS_SUFFIX}", orders.order_path(lab, name), logs.ours, logs.serial,
                     logs.qemu, *_token_records(lab, name)):  # fmt: skip
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.1").unlink(missing_ok=True)  # the log of the run before
        store.delete(name)
        ssh.write_files(lab, provisioner.find_access(lab))


def _token_records(lab: Lab, name: str) -> list[Path]:
    """Return what the boot handler keeps of the machine's token; of a broken definition's, it removes it itself."""
    try:
        uuid = DefinitionStore(lab).load(name).uuid
    except BrokenDefinitionError:
        return []
    return [lab.home.status / RECORDS / record_name(uuid)]


def _prepare_disk(lab: Lab, definition: VmDefinition) -> None:
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
