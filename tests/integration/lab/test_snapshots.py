"""Snapshots of machines with real disks; running ones are QEMUs without a guest (tests/fakes/idle_machines.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import document
from contracts.machine import DiskBus, ExtraDisk
from contracts.report import InstallState, MachineStatus
from contracts.tokens import LIFETIME, Record
from lab import disks, layers, live_snapshots, qmp, snapshot_store, snapshots, target, tpm
from lab.install_status import token_path
from lab.machine import StopOutcome
from lab.nbd import open_image
from lab.snapshot_store import SnapshotKind
from pipeline import commit
from pipeline.errors import ConflictError, NotFoundError, PvmlabError, UsageError
from pipeline.run import find_program, run
from tests.fakes.idle_machines import IdleLab


@pytest.fixture
def place(tmp_path: Path) -> Iterator[IdleLab]:
    """A lab without machines."""
    idle = IdleLab(tmp_path)
    yield idle
    idle.end()


def put(disk: Path, text: bytes, offset: int = 0) -> None:
    with open_image(disk) as device:
        device.write(offset, text)


def get(disk: Path, length: int, offset: int = 0) -> bytes:
    with open_image(disk) as device:
        return device.read(offset, length)


def test_a_machine_that_is_off_goes_back_to_what_it_was(place: IdleLab) -> None:
    definition = place.make("web1", more_disks=(ExtraDisk(size_gib=2),))
    first, second = target.disk_paths(place.lab, definition)
    variables = target.variables_path(place.lab, "web1")
    variables.write_text("variables then")
    put(first, b"then1")
    put(second, b"then2", 1 << 20)

    taken = snapshots.take(place.lab, definition, "before", comment="as it was")

    assert taken.kind is SnapshotKind.OFF
    put(first, b"now 1")
    put(second, b"now 2", 1 << 20)
    variables.write_text("variables now")
    target.status_path(place.lab, "web1").unlink()
    for _ in range(2):  # the snapshot stays, so that it can be done again
        restored, outcome = snapshots.restore(place.lab, definition, "before", place.accelerator)
        assert (restored, outcome) == (taken, StopOutcome.ALREADY_OFF)
        assert (get(first, 5), get(second, 5, 1 << 20)) == (b"then1", b"then2")
        assert variables.read_text() == "variables then"
        assert target.read_status(place.lab, definition).state is InstallState.INSTALLED
        put(first, b"again")


def test_snapshots_are_listed_by_age_and_removed_with_their_layers(place: IdleLab) -> None:
    definition = place.make("web1")
    (disk,) = target.disk_paths(place.lab, definition)
    for name in ("b", "a", "c"):
        put(disk, name.encode())
        snapshots.take(place.lab, definition, name)
    assert [each.name for each in snapshot_store.list_snapshots(place.lab.home, "web1")] == ["b", "a", "c"]
    assert len(layers.chain(disk)) == 3
    snapshots.restore(place.lab, definition, "b", place.accelerator)
    assert get(disk, 1) == b"b"

    snapshots.remove(place.lab, definition, "c")
    assert len(list(layers.layers_folder(place.lab.home).iterdir())) == 2
    snapshots.remove(place.lab, definition, "b")
    assert get(disk, 1) == b"b"  # the disk stands on its layer
    snapshots.remove(place.lab, definition, "a")
    assert [path.name for path in layers.layers_folder(place.lab.home).iterdir()] == [layers.chain(disk)[0].name]


def test_cleaning_a_machine_takes_its_snapshots(place: IdleLab) -> None:
    definition = place.make("web1")
    snapshots.take(place.lab, definition, "one")
    target.clean(place.lab, "web1")
    assert not list(layers.layers_folder(place.lab.home).iterdir())
    assert snapshot_store.list_snapshots(place.lab.home, "web1") == []


def test_what_makes_no_sense_is_refused(place: IdleLab) -> None:
    definition = place.make("web1")
    with pytest.raises(UsageError, match="'Not A Name' is not a snapshot's name"):
        snapshots.take(place.lab, definition, "Not A Name")
    with pytest.raises(NotFoundError, match="web1 has no snapshot 'x'") as caught:
        snapshots.restore(place.lab, definition, "x", place.accelerator)
    assert "it has none at all" in caught.value.resolution
    snapshots.take(place.lab, definition, "one")
    with pytest.raises(ConflictError, match="has a snapshot 'one' already"):
        snapshots.take(place.lab, definition, "one")
    with pytest.raises(NotFoundError) as caught:
        snapshots.remove(place.lab, definition, "two")
    assert "it has: one" in caught.value.resolution
    target.disk_paths(place.lab, definition)[0].unlink()
    with pytest.raises(ConflictError, match="web1 has no disk yet"):
        snapshots.take(place.lab, definition, "two")


def test_a_lost_layer_is_told_before_anything_is_lost(place: IdleLab) -> None:
    definition = place.make("web1")
    (disk,) = target.disk_paths(place.lab, definition)
    taken = snapshots.take(place.lab, definition, "one")
    snapshots.restore(place.lab, definition, "one", place.accelerator)
    snapshot_store.layer_path(place.lab.home, taken.disks[0]).unlink()
    before = disk.read_bytes()
    with pytest.raises(ConflictError, match="the snapshot one is damaged"):
        snapshots.restore(place.lab, definition, "one", place.accelerator)
    assert disk.read_bytes() == before


def test_a_disk_stands_on_so_many_layers_only(place: IdleLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "DEEPEST", 2)
    definition = place.make("web1")
    for name in ("a", "b", "c"):
        snapshots.take(place.lab, definition, name)
    with pytest.raises(layers.LayerError, match="stands on 2 layers already"):
        snapshots.take(place.lab, definition, "d")
    assert [each.name for each in snapshot_store.list_snapshots(place.lab.home, "web1")] == ["a", "b", "c"]

    (disk,) = target.disk_paths(place.lab, definition)  # what the error says helps
    put(disk, b"kept")
    run(["qemu-img", "convert", "-O", "qcow2", disk, disk.with_name("flat.qcow2")], timeout=60)
    disk.with_name("flat.qcow2").rename(disk)
    snapshots.take(place.lab, definition, "d")
    snapshots.restore(place.lab, definition, "a", place.accelerator)
    snapshots.restore(place.lab, definition, "d", place.accelerator)
    assert get(disk, 4) == b"kept"


@pytest.mark.parametrize("bus", [DiskBus.VIRTIO, DiskBus.SATA])
def test_a_running_machine_goes_back_with_its_memory(place: IdleLab, bus: DiskBus) -> None:
    definition = place.make("web1", bus=bus)
    (disk,) = target.disk_paths(place.lab, definition)
    put(disk, b"then")
    machine = place.start("web1", runs=True)
    before = machine.process()

    taken = snapshots.take(place.lab, definition, "live")

    assert taken.kind is SnapshotKind.MEMORY
    assert machine.process() == before
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-status")["status"] == "running"
        (written,) = (each["inserted"] for each in client.execute("query-block") if each["device"] == "disk0")
        assert written["backing_file_depth"] == len(layers.chain(disk)) == 1
    machine.stop(timeout=0, force=True)
    put(disk, b"now ")

    _, outcome = snapshots.restore(place.lab, definition, "live", place.accelerator)

    assert outcome is StopOutcome.ALREADY_OFF
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-status")["status"] == "running"
    machine.stop(timeout=0, force=True)
    assert get(disk, 4) == b"then"
    assert snapshots.size_of(place.lab, taken).memory > 1 << 20


def test_a_restore_ends_the_machine_that_runs(place: IdleLab) -> None:
    definition = place.make("web1")
    snapshots.take(place.lab, definition, "one")
    machine = place.start("web1")
    _, outcome = snapshots.restore(place.lab, definition, "one", place.accelerator)
    assert outcome is StopOutcome.QUIT
    assert machine.process() is None


def test_memory_that_qemu_cannot_save_is_refused_before_anything_is_done(place: IdleLab) -> None:
    definition = place.make("web1", bus=DiskBus.NVME)
    machine = place.start("web1", runs=True)
    with pytest.raises(ConflictError, match="the memory of web1 cannot be saved") as caught:
        snapshots.take(place.lab, definition, "live")
    assert "nvme" in caught.value.details
    assert "--disk-only" in caught.value.resolution
    assert snapshot_store.list_snapshots(place.lab.home, "web1") == []
    assert not layers.layers_folder(place.lab.home).exists()

    taken = snapshots.take(place.lab, definition, "disks", disk_only=True)
    assert (taken.kind, taken.quiet) == (SnapshotKind.DISK, False)
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-status")["status"] == "running"


def test_memory_of_other_hardware_is_not_loaded(place: IdleLab) -> None:
    definition = place.make("web1")
    machine = place.start("web1", runs=True)
    snapshots.take(place.lab, definition, "live")
    machine.kill()
    changed = place.lab.home.vms / "web1.json"
    changed.write_text(changed.read_text().replace('"memory_mib": 512', '"memory_mib": 768'))
    from lab.store import DefinitionStore

    with pytest.raises(ConflictError, match="the memory in live is of another machine") as caught:
        snapshots.restore(place.lab, DefinitionStore(place.lab).load("web1"), "live", place.accelerator)
    assert "its disks are restored, and it is off" in caught.value.details
    assert machine.process() is None


def test_a_tpm_goes_with_a_snapshot_of_a_machine_that_is_off(place: IdleLab) -> None:
    definition = place.make("web1", tpm=True)
    state = place.lab.home.disks / "web1.tpm"
    state.mkdir()
    (state / "tpm2-00.permall").write_text("sealed then")
    snapshots.take(place.lab, definition, "one")
    (state / "tpm2-00.permall").write_text("sealed now")
    (state / "more").write_text("new")
    snapshots.restore(place.lab, definition, "one", place.accelerator)
    assert {path.name: path.read_text() for path in state.iterdir()} == {"tpm2-00.permall": "sealed then"}


def test_a_tpm_that_was_never_used_then_is_empty_again(place: IdleLab) -> None:
    definition = place.make("web1", tpm=True)
    snapshots.take(place.lab, definition, "new")
    state = place.lab.home.disks / "web1.tpm"
    state.mkdir()
    (state / "tpm2-00.permall").write_text("sealed now")
    snapshots.restore(place.lab, definition, "new", place.accelerator)
    assert not state.exists()


@pytest.mark.parametrize("disk_only", [False, True])
def test_a_tpm_goes_with_a_snapshot_of_a_machine_that_runs(place: IdleLab, *, disk_only: bool) -> None:
    if find_program(tpm.PROGRAM) is None:
        pytest.skip(f"no {tpm.PROGRAM} here")
    definition = place.make("web1", tpm=True)
    machine = place.start("web1", runs=True)
    taken = snapshots.take(place.lab, definition, "live", disk_only=disk_only)
    assert "tpm.tar" in {kept.name for kept in taken.files}
    state = place.lab.home.disks / "web1.tpm"
    (state / "more").write_text("new")

    snapshots.restore(place.lab, definition, "live", place.accelerator)

    assert not (state / "more").exists()
    assert (state / "tpm2-00.permall").stat().st_size > 0
    if disk_only:
        machine = place.start("web1", runs=True)
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-status")["status"] == "running"
    assert tpm.find_fault(place.lab.home, "web1") is None


def test_a_restore_that_was_killed_is_carried_to_its_end(place: IdleLab, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = place.make("web1", more_disks=(ExtraDisk(size_gib=2),))
    first, second = target.disk_paths(place.lab, definition)
    put(first, b"then")
    put(second, b"then")
    snapshots.take(place.lab, definition, "one")
    put(first, b"now ")
    put(second, b"now ")
    real, calls = disks.create_overlay, []

    def die_at_the_second(path: Path, base: Path, size: int | None) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(path, base, size)

    with monkeypatch.context() as patch:
        patch.setattr(snapshot_store, "create_overlay", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            snapshots.restore(place.lab, definition, "one", place.accelerator)
    assert (get(first, 4), get(second, 4)) == (b"then", b"now ")
    assert snapshot_store.needs_care(place.lab.home, "web1")

    place.start("web1").kill()  # a start sees to it, as every other command does

    assert (get(first, 4), get(second, 4)) == (b"then", b"then")
    assert not snapshot_store.needs_care(place.lab.home, "web1")


def test_a_machine_that_a_killed_snapshot_left_waiting_goes_on(place: IdleLab) -> None:
    definition = place.make("web1")
    machine = place.start("web1", runs=True)
    marker = snapshot_store.snapshot_folder(place.lab.home, "web1", "_waiting")
    marker.parent.mkdir(parents=True)
    marker.touch()
    with qmp.connect(machine.qmp_socket) as client:
        client.execute("stop")

    with place.lab.starting("web1"):  # somebody is at it: nothing is touched
        snapshots.recover(place.lab, "web1")
    assert marker.exists()
    snapshots.recover(place.lab, "web1")

    assert not marker.exists()
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-status")["status"] == "running"
    snapshots.take(place.lab, definition, "after")


def test_a_failed_save_leaves_the_machine_running_and_no_snapshot(
    place: IdleLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = place.make("web1")
    machine = place.start("web1", runs=True)

    def fail(_client: qmp.QmpClient, _path: Path) -> None:
        raise PvmlabError("no memory today")

    monkeypatch.setattr(live_snapshots, "save_memory", fail)
    with pytest.raises(PvmlabError, match="no memory today"):
        snapshots.take(place.lab, definition, "live")
    assert snapshot_store.list_snapshots(place.lab.home, "web1") == []
    assert not snapshot_store.needs_care(place.lab.home, "web1")
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-status")["status"] == "running"


def test_after_ctrl_c_in_a_save_the_next_command_carries_on(place: IdleLab, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = place.make("web1")
    machine = place.start("web1", runs=True)
    real = qmp.QmpClient.execute

    def interrupted(client: qmp.QmpClient, command: str, *words: Any, **more: Any) -> Any:
        if command == "query-jobs":  # the job that writes the memory is on its way
            raise KeyboardInterrupt
        return real(client, command, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(qmp.QmpClient, "execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            snapshots.take(place.lab, definition, "live")
    assert snapshot_store.list_snapshots(place.lab.home, "web1") == []
    assert snapshots.take(place.lab, definition, "live").kind is SnapshotKind.MEMORY
    with qmp.connect(machine.qmp_socket) as client:
        assert client.execute("query-status")["status"] == "running"
        assert client.execute("query-jobs") == []


def test_an_install_goes_on_from_a_snapshot_as_long_as_its_token_does(place: IdleLab) -> None:
    definition = place.make("web1")
    machine = place.start("web1", runs=True)
    installing = MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.INSTALLING)
    commit.publish_text(target.status_path(place.lab, "web1"), document.dumps(installing))
    token = Record(uuid=definition.uuid, digest="0" * 64, issued=time.time())
    path = token_path(place.lab, definition)
    commit.publish_text(path, document.dumps(token))
    taken = snapshots.take(place.lab, definition, "amid")
    assert snapshots.is_amid_install(place.lab, definition, taken)

    snapshots.restore(place.lab, definition, "amid", place.accelerator)

    before = machine.process()
    for now in (
        None,
        dataclasses.replace(token, ended=time.time()),
        dataclasses.replace(token, digest="1" * 64),
        dataclasses.replace(token, issued=time.time() - LIFETIME - 1),
    ):
        path.unlink()
        if now is not None:
            commit.publish_text(path, document.dumps(now))
        else:
            path.touch()
        with pytest.raises(ConflictError, match="that install cannot go on") as caught:
            snapshots.restore(place.lab, definition, "amid", place.accelerator)
        assert "--disk-only" in caught.value.resolution
        assert machine.process() == before  # it runs as before
    snapshots.restore(place.lab, definition, "amid", place.accelerator, disk_only=True)
    assert machine.process() is None


def test_a_damaged_record_is_told_and_can_be_removed(place: IdleLab) -> None:
    definition = place.make("web1")
    snapshots.take(place.lab, definition, "one")
    folder = snapshot_store.snapshot_folder(place.lab.home, "web1", "one")
    (folder / "record.json").write_text("{")
    with pytest.raises(ConflictError, match="the record of the snapshot one of web1 is damaged") as caught:
        snapshots.restore(place.lab, definition, "one", place.accelerator)
    assert f"remove the folder {folder}" in caught.value.resolution
    shutil.rmtree(folder)
    snapshots.take(place.lab, definition, "one")


def test_what_qemu_cannot_load_is_told_and_the_machine_is_off(place: IdleLab) -> None:
    definition = place.make("web1")
    machine = place.start("web1", runs=True)
    taken = snapshots.take(place.lab, definition, "live")
    memory = snapshot_store.snapshot_folder(place.lab.home, "web1", taken.name) / snapshot_store.MEMORY
    data = bytearray(memory.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    memory.write_bytes(data)
    with pytest.raises(PvmlabError):
        snapshots.restore(place.lab, definition, "live", place.accelerator)
    assert machine.process() is None


def test_an_install_state_of_then_comes_back(place: IdleLab) -> None:
    definition = place.make("web1")
    path = target.status_path(place.lab, "web1")
    path.unlink()
    snapshots.take(place.lab, definition, "new")
    path.write_text(document.dumps(MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.INSTALLED)))
    snapshots.restore(place.lab, definition, "new", place.accelerator)
    assert target.read_status(place.lab, definition).state is InstallState.NEW


class Agent:
    """A guest agent at the machine's end of its channel: here, a server in the socket's place."""

    def __init__(self, path: Path, *, refuses: str = "") -> None:
        self.heard: list[str] = []
        self._refuses = refuses
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink()  # QEMU's own: nobody is at its other end
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rb") as lines:
                    for line in lines:
                        request = json.loads(line.replace(b"\xff", b""))
                        self.heard.append(request["execute"])
                        answer: dict[str, object] = {"return": request.get("arguments", {}).get("id", 1)}
                        if request["execute"] == self._refuses:
                            answer = {"error": {"desc": "it cannot"}}
                        connection.sendall(b"\xff" + json.dumps(answer).encode() + b"\n")


def test_a_guest_agent_has_the_file_systems_in_order(place: IdleLab) -> None:
    definition = place.make("web1", bus=DiskBus.NVME)
    machine = place.start("web1", runs=True)
    agent = Agent(machine.guest_agent_socket)
    try:
        assert snapshots.take(place.lab, definition, "quiet", disk_only=True).quiet
        assert [word for word in agent.heard if "fsfreeze" in word] == ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]
        agent.heard.clear()
        marker = snapshot_store.snapshot_folder(place.lab.home, "web1", "_waiting")
        marker.touch()  # a snapshot that was killed
        snapshots.recover(place.lab, "web1")
        assert agent.heard[-1] == "guest-fsfreeze-thaw"
    finally:
        agent.close()


def test_file_systems_that_did_not_freeze_in_time_are_thawed_all_the_same(place: IdleLab) -> None:
    definition = place.make("web1", bus=DiskBus.NVME)
    agent = Agent(place.start("web1", runs=True).guest_agent_socket, refuses="guest-fsfreeze-freeze")
    try:
        assert not snapshots.take(place.lab, definition, "loud", disk_only=True).quiet
        assert agent.heard[-1] == "guest-fsfreeze-thaw"  # a freeze that comes late would stay for ever
    finally:
        agent.close()
