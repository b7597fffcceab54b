"""The provisioner: the machine that serves network installs to the others.

It holds nothing of its user: its disk is an overlay on the one in the cache, made again at each start.
It reads ``config/`` of the lab's home at each start, and says in ``status/provisioner.json`` how far it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import secrets
import time
import uuid
from pathlib import Path

from contracts import document
from contracts.arch import Arch
from contracts.lan import DhcpMode, Lan
from contracts.machine import DiskBus
from contracts.names import PROVISIONER_NAME
from contracts.provisioner import KERNEL_ARGUMENTS, render_provisioner_env
from lab import addresses, host_mode, provisioner_record, ssh
from lab.disks import create_overlay
from lab.host_mode_uplink import NO_INTERFACE, require_interface
from lab.keys import KeyPair, ensure_key_pair
from lab.lab import Lab
from lab.lan_settings import UNCHANGED, LanRequest, plan_lan
from lab.machine import StopOutcome
from lab.provisioner_record import ProvisionerMode, ProvisionerRecord
from lab.spec import Accelerator, DirectKernel, Disk, LanCard, LanTaps, MachineSpec, Share, WanCard
from lab.ssh_config import ForwardedAccess, ProvisionerAccess
from lab.wait import Deadline, wait_for
from pipeline import commit
from pipeline.errors import ConflictError, NotFoundError, PvmlabError, UsageError
from pipeline.sidecar import read_sidecar, require_digest

ARCH = Arch.X86_64  # the services container is built for this one only
CPUS = 2
MEMORY_MIB = 1024
BOOT = 48.0  # seconds until it must be ready with hardware acceleration; emulated, 20 are usual on an idle host
PORT_VARIABLE = "PVMLAB_SSH_PORT"
_LAN_SLOT = 0x10  # by its PCI slot the guest knows which card is lan0 ...
_WAN_SLOT = 0x11  # ... and which one is wan0
_CMDLINE = " ".join([*KERNEL_ARGUMENTS, f"console={ARCH.serial_device},115200"])
_FAILED_GRACE = 8.0  # seconds: services that failed are tried again, and only the last failure stays
_TAIL = 15  # lines of its console in an error


class ProvisionerState(enum.StrEnum):
    """What the provisioner says of itself."""

    STARTING = "starting"  # the system is up, the services are about to be
    READY = "ready"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Announcement:
    """The provisioner's last word. :ivar message: for people, mostly of a failure."""

    state: ProvisionerState
    message: str


class ProvisionerError(PvmlabError):
    """The provisioner did not get ready."""


def provisioner_spec(
    lab: Lab, *, record: ProvisionerRecord, port: int, accelerator: Accelerator, lan_socket: Path | LanTaps,
    identity: str,
) -> MachineSpec:  # fmt: skip
    """Return what the provisioner's machine is made of. Touches nothing."""
    home, cache, machine = lab.home, lab.cache, lab.provisioner
    return MachineSpec(
        name=PROVISIONER_NAME,
        uuid=record.uuid,
        arch=ARCH,
        cpus=CPUS,
        memory_mib=MEMORY_MIB,
        accelerator=accelerator,
        boot=DirectKernel(cache.provisioner(ARCH, "vmlinuz"), cache.provisioner(ARCH, "initrd"), _CMDLINE),
        disks=(Disk(overlay_path(lab), DiskBus.VIRTIO),),
        lan=LanCard(addresses.derive_mac(identity, PROVISIONER_NAME), pci_slot=_LAN_SLOT),
        wan=WanCard(addresses.derive_mac(identity, PROVISIONER_NAME, card="wan"), port, pci_slot=_WAN_SLOT),
        shares=(
            Share("images", cache.images),
            Share("initrds", cache.initrds),
            Share("vms", home.vms),
            Share("status", home.status, writable=True),
            Share("config", home.config),
            Share("templates", home.templates),
        ),
        lan_socket=lan_socket,
        serial_log=machine.logs.serial,
        qmp_socket=machine.qmp_socket,
    )


def overlay_path(lab: Lab) -> Path:
    """Return where its disk is."""
    return lab.home.disks / f"{PROVISIONER_NAME}.qcow2"


def create(
    lab: Lab, mode: ProvisionerMode | None = None, *, network: LanRequest = UNCHANGED, interface: str = ""
) -> bool:
    """Make the provisioner's keys and settings where they are missing; return whether it is new.

    :param mode: where its services shall run; None for where they are to run already, or else the usual way.
    :param network: what is to change in the lab's network. :param interface: see :func:`plan_record`.
    :raises NotFoundError: if its artifacts are not built. :raises PrerequisiteError: if this host has no such mode.
    :raises ConflictError: if it runs in another mode. :raises PvmlabError: see :func:`plan_lan`, :func:`plan_record`.
    """
    record = find_record(lab)
    wanted = plan_record(lab, mode, interface, dhcp=network.dhcp).mode
    plan_lan(lab, network, mode=mode)
    if wanted is ProvisionerMode.VM:
        require_digest(_base(lab))
    elif record is None or record.mode is not wanted:
        host_mode.require_host()
    lab.ensure_folders()
    with lab.changing_definitions():
        planned = plan_record(lab, mode, interface, dhcp=network.dhcp)
        _write_config(lab, plan_lan(lab, network, mode=mode))
        if (record := find_record(lab)) == planned:
            return False
        if record is None or record.mode is not planned.mode:
            overlay_path(lab).unlink(missing_ok=True)  # of the other mode
        _write_record(lab, planned)
    return record is None or record.mode is not planned.mode


def plan_record(
    lab: Lab, mode: ProvisionerMode | None, interface: str, *, dhcp: DhcpMode | None = None
) -> ProvisionerRecord:
    """Return what is to be remembered of the provisioner; nothing is written.

    :param interface: of this host, which the lab's network is joined with in host mode; empty for the one it is joined
        with already, :data:`lab.host_mode_uplink.NO_INTERFACE` for none.
    :param dhcp: who is to give out the addresses, if that was said.
    :raises ConflictError: if it runs and would be another one, *interface* goes with the other mode only, or the lab's
        network goes with the other mode only.
    :raises UsageError: if nobody said who gives out the addresses on the network behind *interface*.
    :raises PvmlabError: if there is no such interface, see :func:`lab.host_mode_uplink.require_interface`.
    """
    record = find_record(lab)
    wanted = mode or (record.mode if record is not None else ProvisionerMode.VM)
    if wanted is ProvisionerMode.HOST:
        host_mode.require_switch(lab)
    joined = "" if interface == NO_INTERFACE else interface
    if joined and wanted is not ProvisionerMode.HOST:
        raise ConflictError(
            f"--interface={joined} is for host mode", details="the provisioner's machine is on the lab's switch only",
            resolution="--mode=host, or leave it out",
        )  # fmt: skip
    if joined:
        if dhcp is None and lab.lan.dhcp is DhcpMode.SERVER and (record is None or record.interface != joined):
            raise UsageError(
                f"--interface={joined} wants to know who gives out the addresses there",
                details="a second DHCP server would give its own addresses to every machine of that network",
                resolution="--dhcp=proxy beside another server; --dhcp=server where there is none",
            )
        require_interface(joined)
    if record is None or record.mode is not wanted:
        planned = ProvisionerRecord(uuid=str(uuid.uuid4()), mode=wanted, interface=joined)
    else:
        planned = dataclasses.replace(record, interface=joined if interface else record.interface)
    if record is not None and planned != record and lab.provisioner.is_running():
        what = f"in the other mode, {record.mode}" if record.mode is not wanted else "with another interface"
        raise ConflictError(f"the provisioner runs {what}", resolution="./pvmlab provisioner.stop first")
    return planned


def start(lab: Lab, accelerator: Accelerator) -> None:
    """Start the provisioner, which was created; return when its machine runs, long before it is ready.

    Each start begins with a fresh disk: whatever happened to the last one, this one is as good as new.

    :raises NotFoundError: if it was not created. :raises ConflictError: if it runs already, or no port is free.
    """
    record = find_record(lab)
    if record is None:
        raise NotFoundError("the provisioner was not created", resolution="./pvmlab provisioner.create")
    if lab.provisioner.is_running():
        raise ConflictError("the provisioner is already running", resolution="./pvmlab provisioner.stop ends it")
    lab.ensure_folders()
    if record.mode is ProvisionerMode.HOST:
        _announce_nothing(lab)
        ssh.write_files(lab, find_access(lab))
        host_mode.start(lab)
        return
    port, digest = _choose_port(record), require_digest(_base(lab))
    create_overlay(overlay_path(lab), _base(lab), None)
    record = dataclasses.replace(record, ssh_port=port, base_sha256=digest)
    _write_record(lab, record)
    _announce_nothing(lab)
    ssh.write_files(lab, find_access(lab))
    spec = provisioner_spec(
        lab, record=record, port=port, accelerator=accelerator,
        lan_socket=lab.network.attach(PROVISIONER_NAME, 1), identity=lab.identity(),
    )  # fmt: skip
    lab.provisioner.start(spec)


def describe_start(lab: Lab, accelerator: Accelerator) -> str:
    """Return how the provisioner that was started runs, for people."""
    if lab.provisioner_mode is ProvisionerMode.HOST:
        record = find_record(lab)
        joined = record.interface if record is not None else ""
        way = f"joined with {joined}" if joined else "no way out for targets"
        return f"host mode: in namespaces of this host, {way}"
    return f"{accelerator.kind}: {accelerator.reason}"


def stop(lab: Lab) -> StopOutcome:
    """Switch the provisioner off. Its system is not asked: there is nothing it could lose.

    :raises WaitTimeoutError: if nothing ends it.
    """
    return lab.provisioner.stop(timeout=0, force=True)


def is_outdated(lab: Lab) -> bool:
    """Tell whether the disk it was started from last has been built anew since."""
    record, sidecar = find_record(lab), read_sidecar(_base(lab))
    return record is not None and sidecar is not None and record.base_sha256 not in {None, sidecar["sha256"]}


def wait_until(lab: Lab, state: ProvisionerState, *, deadline: Deadline) -> None:
    """Return when the provisioner that runs now is in *state*, or beyond it.

    :raises ProvisionerError: soon, if it says that it failed for good, or its machine ended or panicked.
    :raises WaitTimeoutError: if the deadline passes.
    """
    wanted = {ProvisionerState.READY, state}
    failed: Deadline | None = None

    def probe() -> bool | None:
        nonlocal failed
        said = find_announcement(lab)
        if said is not None and said.state in wanted:
            return True
        if said is None or said.state is not ProvisionerState.FAILED:
            failed = None
        elif failed is None:
            failed = Deadline(_FAILED_GRACE)
        elif failed.passed:
            raise _error(lab, f"the provisioner's services failed: {said.message}")
        if not lab.provisioner.is_running():
            raise _error(lab, f"the provisioner's {lab.provisioner.runs} ended while it booted")
        return None

    def last_seen() -> str:
        said = find_announcement(lab)
        return "\n".join([f"it says: {said.state if said else 'nothing yet'}", *_console(lab)])

    wait_for(
        f"the provisioner to be {state}", probe, deadline=deadline, last_seen=last_seen,
        resolution=f"./pvmlab vm.logs {PROVISIONER_NAME} shows its whole console",
    )  # fmt: skip


def find_announcement(lab: Lab) -> Announcement | None:
    """Return what the provisioner that was started last says of itself, or None if it has not said anything yet."""
    try:
        data = json.loads(_announcement_path(lab).read_bytes())
        if data["boot_id"] != (lab.home.config / "boot_id").read_text().strip():
            return None
        return Announcement(ProvisionerState(data["state"]), str(data.get("message", "")))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def has_failed(lab: Lab, *, patience: float) -> str | None:
    """Return why the provisioner that runs will not get ready any more, or None if it is or may.

    :param patience: see :class:`lab.spec.Accelerator`.
    """
    said = find_announcement(lab)
    if said is not None and said.state is not ProvisionerState.STARTING:
        return said.message if said.state is ProvisionerState.FAILED else None
    with contextlib.suppress(FileNotFoundError):
        age = time.time() - (lab.home.config / "boot_id").stat().st_mtime
        if age > BOOT * patience:
            return f"not ready after {age:.0f} s"
    return None


def find_record(lab: Lab) -> ProvisionerRecord | None:
    """Return what is remembered of the provisioner; None if it was never created (or the record is broken)."""
    return provisioner_record.find_record(lab.home)


def find_access(lab: Lab) -> ProvisionerAccess | ForwardedAccess | None:
    """Return how the lab's machines are reached by SSH, or None if the provisioner was never started."""
    record = find_record(lab)
    if record is not None and record.mode is ProvisionerMode.HOST:
        return host_mode.access(lab)
    if record is None or record.ssh_port is None:
        return None
    with contextlib.suppress(FileNotFoundError):
        return ProvisionerAccess(port=record.ssh_port, public_host_key=_host_key(lab).read_public())
    return None


def remove(lab: Lab) -> None:
    """Remove its disk and what it announced. Its keys stay. It must be off."""
    for path in (provisioner_record.record_path(lab.home), overlay_path(lab), _announcement_path(lab)):
        path.unlink(missing_ok=True)


def fixed_port() -> int | None:
    """Return the port that ``PVMLAB_SSH_PORT`` names, or None.

    :raises UsageError: if it is no port an ordinary user may listen on.
    """
    text = os.environ.get(PORT_VARIABLE)
    if not text:
        return None
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise UsageError(f"{PORT_VARIABLE} is {text!r}", resolution="set it to a number from 1024 to 65535")
    return int(text)


def _choose_port(record: ProvisionerRecord) -> int:
    wanted = fixed_port()
    if wanted is None:
        return addresses.choose_port(record.ssh_port)
    if not addresses.is_free(wanted):
        raise ConflictError(
            f"the port {wanted} of {addresses.LOOPBACK} is taken by another program",
            details=f"{PORT_VARIABLE} says that the provisioner's SSH shall be there",
            resolution=f"end that program, or unset {PORT_VARIABLE}: then pvmlab looks for a free port",
        )
    return wanted


def _write_config(lab: Lab, lan: Lan) -> None:
    """Write what the provisioner reads at its start. :param lan: the lab's network from now on."""
    config, key = lab.home.config, ssh.lab_key(lab)
    _host_key(lab)
    lab.identity()
    for path, text in (
        (config / "lab.json", document.dumps(lan)),
        (config / "authorized_keys", key.read_public() + "\n"),
    ):
        if not path.exists() or path.read_text() != text:
            commit.publish_text(path, text)


def _write_boot_id(lab: Lab, boot_id: str) -> None:
    commit.publish_text(lab.home.config / "boot_id", f"{boot_id}\n")
    commit.publish_text(lab.home.config / "provisioner.env", render_provisioner_env(lab.lan, boot_id))


def _base(lab: Lab) -> Path:
    return lab.cache.provisioner(ARCH, "disk.qcow2")


def _host_key(lab: Lab) -> KeyPair:
    return ensure_key_pair(lab.home.config / "ssh_host_ed25519_key", comment=PROVISIONER_NAME)


def _write_record(lab: Lab, record: ProvisionerRecord) -> None:
    provisioner_record.write_record(lab.home, record)


def _announce_nothing(lab: Lab) -> None:
    """Have what an earlier start announced count no more."""
    _announcement_path(lab).unlink(missing_ok=True)
    _write_boot_id(lab, secrets.token_hex(16))


def _announcement_path(lab: Lab) -> Path:
    return lab.home.status / f"{PROVISIONER_NAME}.json"


def _console(lab: Lab) -> list[str]:
    return [f"  | {line}" for line in lab.provisioner.serial_tail(_TAIL)] or ["its console is empty"]


def _error(lab: Lab, brief: str) -> ProvisionerError:
    logs = lab.provisioner.logs
    others = "" if logs.qemu == logs.serial else f" and {logs.qemu.name} beside it"
    return ProvisionerError(brief, details="\n".join(_console(lab)), resolution=f"see {logs.serial}{others}")
