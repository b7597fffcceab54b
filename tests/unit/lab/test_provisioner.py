from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import document
from contracts.provisioner import render_provisioner_env
from lab import addresses, provisioner
from lab.lab import Lab
from lab.machine import StopOutcome
from lab.provisioner import ProvisionerState, provisioner_spec
from lab.provisioner_record import ProvisionerRecord
from lab.spec import Accelerator, AcceleratorKind, MachineSpec
from lab.wait import Deadline
from pipeline.errors import ConflictError, NotFoundError, UsageError, WaitTimeoutError
from pipeline.sidecar import publish_sidecar

TCG = Accelerator(AcceleratorKind.TCG, "max", "for the test", 5)
UUID = "00000000-0000-4000-8000-000000000001"
DIGEST = "a" * 64


@pytest.fixture
def built(lab: Lab) -> Lab:
    """The lab with something in the place of the provisioner's disk in the cache."""
    _build(lab, DIGEST)
    return lab


@pytest.fixture
def created(built: Lab) -> Lab:
    """The lab with a provisioner that was created, without the keys."""
    (built.home.disks / "provisioner.json").write_text(document.dumps(ProvisionerRecord(uuid=UUID)))
    return built


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, created: Lab) -> list[MachineSpec]:
    """Take the place of what would start processes; the list gets the specification of the machine."""
    specs: list[MachineSpec] = []
    monkeypatch.setattr("lab.machine.Machine.start", lambda _, spec: specs.append(spec))
    monkeypatch.setattr("lab.network.SwitchNetwork.ensure_started", lambda self: self.socket)
    monkeypatch.setattr(provisioner, "create_overlay", lambda path, base, size: path.write_text(f"over {base} {size}"))
    monkeypatch.setattr(addresses, "is_free", lambda port: port != 2222)
    (created.home.config / "ssh_host_ed25519_key").write_text("key")
    (created.home.config / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAA provisioner\n")
    return specs


def _build(lab: Lab, digest: str) -> None:
    disk = lab.cache.provisioner(provisioner.ARCH, "disk.qcow2")
    disk.parent.mkdir(parents=True, exist_ok=True)
    disk.write_text("disk")
    publish_sidecar(disk, {"sha256": digest, "size": 4})


def test_spec_has_two_cards_in_fixed_slots_and_the_shares(lab: Lab) -> None:
    spec = provisioner_spec(
        lab, record=ProvisionerRecord(uuid=UUID), port=2222, accelerator=TCG, lan_socket=Path("/s"), identity="me"
    )
    assert spec.uuid == UUID
    assert (spec.lan.pci_slot, spec.wan and spec.wan.pci_slot, spec.wan and spec.wan.ssh_port) == (0x10, 0x11, 2222)
    assert spec.wan is not None
    assert spec.wan.mac != spec.lan.mac
    assert {share.tag: (share.path, share.writable) for share in spec.shares} == {
        "images": (lab.cache.images, False),
        "initrds": (lab.cache.initrds, False),
        "vms": (lab.home.vms, False),
        "status": (lab.home.status, True),
        "config": (lab.home.config, False),
        "templates": (lab.home.templates, False),
    }
    assert [disk.path for disk in spec.disks] == [lab.home.disks / "provisioner.qcow2"]


def test_start_makes_a_fresh_disk_boot_id_and_ssh_files(created: Lab, started: list[MachineSpec]) -> None:
    provisioner.start(created, TCG)
    (spec,) = started
    assert spec.wan is not None
    assert spec.wan.ssh_port == 2223  # 2222 is taken
    base = created.cache.provisioner(provisioner.ARCH, "disk.qcow2")
    assert (created.home.disks / "provisioner.qcow2").read_text() == f"over {base} None"
    boot_id = (created.home.config / "boot_id").read_text().strip()
    assert (created.home.config / "provisioner.env").read_text() == render_provisioner_env(created.lan, boot_id)
    assert "Port 2223" in (created.home.ssh / "config").read_text()
    assert "provisioner ssh-ed25519 AAAA\n" in (created.home.ssh / "known_hosts").read_text()


def test_next_start_keeps_the_port_but_not_boot_id_and_word(
    created: Lab, started: list[MachineSpec], announce: Callable[..., None]
) -> None:
    provisioner.start(created, TCG)
    first = (created.home.config / "boot_id").read_text()
    announce("ready")
    provisioner.start(created, TCG)
    assert started[1].wan == started[0].wan
    assert (created.home.config / "boot_id").read_text() != first
    assert provisioner.find_announcement(created) is None


def test_start_without_create_is_not_found(built: Lab) -> None:
    with pytest.raises(NotFoundError, match=r"provisioner was not created"):
        provisioner.start(built, TCG)


def test_start_of_a_running_one_leaves_its_disk_alone(
    created: Lab, started: list[MachineSpec], mark_running: Callable[[str], None]
) -> None:
    mark_running("provisioner")
    with pytest.raises(ConflictError, match=r"already running"):
        provisioner.start(created, TCG)
    assert not (created.home.disks / "provisioner.qcow2").exists()
    assert started == []


def test_fixed_port_that_is_taken_is_a_conflict(
    monkeypatch: pytest.MonkeyPatch, created: Lab, started: list[MachineSpec]
) -> None:
    monkeypatch.setenv("PVMLAB_SSH_PORT", "2222")
    with pytest.raises(ConflictError, match=r"port 2222 of 127\.0\.0\.1 is taken") as caught:
        provisioner.start(created, TCG)
    assert "unset PVMLAB_SSH_PORT" in caught.value.resolution
    assert started == []


def test_fixed_port_that_is_free_is_taken(
    monkeypatch: pytest.MonkeyPatch, created: Lab, started: list[MachineSpec]
) -> None:
    monkeypatch.setenv("PVMLAB_SSH_PORT", "4022")
    provisioner.start(created, TCG)
    assert started[0].wan is not None
    assert started[0].wan.ssh_port == 4022


@pytest.mark.parametrize("text", ["22", "65536", "ssh", "-1"])
def test_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PVMLAB_SSH_PORT", text)
    with pytest.raises(UsageError, match=r"PVMLAB_SSH_PORT is"):
        provisioner.fixed_port()


def test_create_without_artifacts_is_not_found(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match=r"disk\.qcow2 is not built"):
        provisioner.create(lab)


def test_outdated_is_what_was_started_from_another_disk(created: Lab, started: list[MachineSpec]) -> None:
    assert not provisioner.is_outdated(created)  # never started
    provisioner.start(created, TCG)
    assert not provisioner.is_outdated(created)
    _build(created, "b" * 64)
    assert provisioner.is_outdated(created)


def test_word_of_an_earlier_start_does_not_count(lab: Lab, announce: Callable[..., None]) -> None:
    announce("ready", boot_id="0123abcd")
    assert provisioner.find_announcement(lab) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot_id": "abcd1234", "state": "odd"}'])
def test_word_that_makes_no_sense_does_not_count(lab: Lab, announce: Callable[..., None], text: str) -> None:
    announce("ready")
    (lab.home.status / "provisioner.json").write_text(text)
    assert provisioner.find_announcement(lab) is None


def test_wait_for_starting_is_over_when_ready(
    lab: Lab, announce: Callable[..., None], mark_running: Callable[[str], None]
) -> None:
    mark_running("provisioner")
    announce("ready")
    provisioner.wait_until(lab, ProvisionerState.STARTING, deadline=Deadline(0))


def test_wait_outlives_a_failure_that_is_tried_again(
    lab: Lab, announce: Callable[..., None], mark_running: Callable[[str], None]
) -> None:
    mark_running("provisioner")
    announce("failed", message="the container ended")
    recovery = threading.Timer(0.3, announce, ("ready",))
    recovery.start()
    provisioner.wait_until(lab, ProvisionerState.READY, deadline=Deadline(60))
    recovery.join()


def test_wait_ends_when_the_services_failed_for_good(
    lab: Lab,
    announce: Callable[..., None],
    mark_running: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provisioner, "_FAILED_GRACE", 0.2)
    mark_running("provisioner")
    announce("failed", message="no such image")
    (lab.home.logs / "provisioner.serial.log").write_text("last words\n")
    with pytest.raises(provisioner.ProvisionerError, match=r"services failed: no such image") as caught:
        provisioner.wait_until(lab, ProvisionerState.READY, deadline=Deadline(60))
    assert "| last words" in caught.value.details


def test_wait_ends_at_once_when_qemu_is_gone(lab: Lab) -> None:
    with pytest.raises(provisioner.ProvisionerError, match=r"QEMU ended while it booted") as caught:
        provisioner.wait_until(lab, ProvisionerState.READY, deadline=Deadline(60))
    assert "its console is empty" in caught.value.details


def test_wait_says_what_it_saw_last(
    lab: Lab, announce: Callable[..., None], mark_running: Callable[[str], None]
) -> None:
    mark_running("provisioner")
    announce("starting")
    with pytest.raises(WaitTimeoutError, match=r"in vain for the provisioner to be ready") as caught:
        provisioner.wait_until(lab, ProvisionerState.READY, deadline=Deadline(0))
    assert "it says: starting" in caught.value.details


def test_stop_does_not_ask_the_guest(lab: Lab) -> None:
    assert provisioner.stop(lab) is StopOutcome.ALREADY_OFF


def test_ready_provisioner_has_not_failed_however_old(lab: Lab, announce: Callable[..., None]) -> None:
    announce("ready")
    os.utime(lab.home.config / "boot_id", (0, 0))
    assert provisioner.has_failed(lab, patience=1) is None


def test_provisioner_that_says_so_has_failed(lab: Lab, announce: Callable[..., None]) -> None:
    announce("failed", message="the container ended")
    assert provisioner.has_failed(lab, patience=1) == "the container ended"


def test_provisioner_that_is_long_overdue_has_failed(lab: Lab, announce: Callable[..., None]) -> None:
    announce("starting")
    assert provisioner.has_failed(lab, patience=1) is None
    old = time.time() - provisioner.BOOT - 5
    os.utime(lab.home.config / "boot_id", (old, old))
    assert provisioner.has_failed(lab, patience=1) == "not ready after 53 s"
    assert provisioner.has_failed(lab, patience=5) is None
