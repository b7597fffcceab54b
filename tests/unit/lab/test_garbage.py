"""What of a lab nobody needs; above all, what is never taken for that."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import pytest

from lab import layers
from lab.garbage import YOUNG, Kind, _place_of, collect, plan_garbage
from lab.lab import Lab
from pipeline.errors import ConflictError
from pipeline.workspace import Cache, Home, Workspace


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    lab.ensure_folders()
    (lab.home.vms / "web1.json").write_text("{}")  # broken, and there
    return lab


def put(path: Path, data: bytes = b"x", *, age: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def overlay(path: Path, base: Path | None) -> Path:
    name = str(base).encode() if base else b""
    head = struct.pack(">4sIQI", b"QFI\xfb", 3, 20 if base else 0, len(name))
    return put(path, head + name)


def names(lab: Lab) -> set[str]:
    return {item.name for item in plan_garbage(lab).items}


def test_a_lab_in_order_has_none(lab: Lab) -> None:
    home = lab.home
    for name in ("web1.qcow2", "web1.disk2.qcow2", "web1.vars.fd", "web1.network-vars.fd", "web1.seed.iso"):
        put(home.disks / name)
    put(home.disks / "web1.tpm/state")
    put(home.disks / "snapshots/web1/s/record.json")
    for name in ("web1.log", "web1.serial.log", "web1.serial.log.1", "provisioner.log"):
        put(home.logs / name)
    for name in ("web1.json", "web1.events.json", "_strangers.json", "_faults.json", "provisioner.json"):
        put(home.status / name)
    for name in ("web1.lock", "_lab.lock", "_switch.log", "_taps.json", "accelerator.json", "_start-web1.lock"):
        put(home.run / name)
    for name in ("web1.answers", "web1.order"):
        put(home.vms / name)
    plan = plan_garbage(lab)
    assert plan.items == ()
    assert plan.unknown == ()
    assert plan.size == 0


def test_all_of_a_machine_that_is_gone_goes(lab: Lab) -> None:
    home = lab.home
    made = [
        put(home.disks / "old.qcow2"), put(home.disks / "old.disk2.qcow2"), put(home.disks / "old.vars.fd"),
        put(home.disks / "old.base.json"), put(home.logs / "old.log"), put(home.logs / "old.qemu.log.1"),
        put(home.status / "old.json"), put(home.status / "old.events.json"), put(home.vms / "old.answers"),
        put(home.run / "old.qmp"), put(home.run / "_forwards-old.state"),
        put(home.run / "_tpm-old.json", b'{"token": "t", "pid": 4194999, "start_time": "1"}'),
        put(home.run / "_console-old.json", b'{"user": "me"}'),
    ]  # fmt: skip
    put(home.disks / "old.tpm/state", b"x" * 10_000)
    put(home.disks / "snapshots/old/s/memory.qcow2")
    plan = plan_garbage(lab)
    assert {item.path for item in plan.items} == {*made, home.disks / "old.tpm", home.disks / "snapshots/old"}
    assert all("old" in item.why for item in plan.items)
    assert plan.size >= 10_000
    gone, failed = collect(lab, plan)
    assert len(gone) == len(plan.items)
    assert failed == []
    assert names(lab) == set()
    assert not list(home.root.rglob("*old*"))
    assert (home.vms / "web1.json").exists()


def test_a_disk_that_a_machines_disk_stands_on_stays(lab: Lab) -> None:
    disks = lab.home.disks
    bottom = overlay(disks / "gone1.qcow2", None)
    middle = overlay(layers.layers_folder(lab.home) / "gone2-0123456789ab.qcow2", bottom)
    base = overlay(lab.home.bases / "0123.img", None)
    overlay(disks / "web1.qcow2", middle)
    overlay(disks / "web1.disk2.qcow2", base)
    free = overlay(layers.layers_folder(lab.home) / "gone3-0123456789ab.qcow2", bottom)
    other = overlay(lab.home.bases / "4567.img", None)
    plan = plan_garbage(lab)
    assert {item.path: item.kind for item in plan.items} == {free: Kind.LAYER, other: Kind.BASE}


def test_what_cannot_be_read_spares_all_it_may_stand_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay(lab.home.disks / "web1.qcow2", None)
    overlay(lab.home.disks / "old.qcow2", None)
    overlay(layers.layers_folder(lab.home) / "x-0.qcow2", None)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert names(lab) == set()


def test_a_snapshot_that_cannot_be_understood_spares_all_layers(lab: Lab) -> None:
    overlay(layers.layers_folder(lab.home) / "web1-0.qcow2", None)
    assert names(lab) == {"disks/layers/web1-0.qcow2"}
    put(lab.home.disks / "snapshots/web1/s/record.json", b"{}")
    assert names(lab) == set()


def test_a_machine_that_runs_without_a_definition_stays(lab: Lab) -> None:
    token = Path("/proc/self/cmdline").read_bytes().split(b"\0")[-2].decode()
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    record = {"token": token, "pid": os.getpid(), "start_time": started, "crashed": False}
    put(lab.home.run / "ghost.json", json.dumps(record).encode())
    for path in (lab.home.disks / "ghost.qcow2", lab.home.run / "ghost.qmp", lab.home.logs / "ghost.log"):
        put(path)
    assert names(lab) == set()
    put(lab.home.run / "ghost.json", json.dumps(record | {"start_time": "1"}).encode())
    assert names(lab) == {"run/ghost.json", "run/ghost.qmp", "disks/ghost.qcow2", "logs/ghost.log"}


def test_a_companion_that_runs_keeps_all_of_its_machine(lab: Lab) -> None:
    token = Path("/proc/self/cmdline").read_bytes().split(b"\0")[-2].decode()
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    record = {"token": token, "pid": os.getpid(), "start_time": started}
    path = put(lab.home.run / "_tpm-ghost.json", json.dumps(record).encode())
    put(lab.home.disks / "ghost.tpm/state")
    assert names(lab) == set()
    put(path, json.dumps(record | {"start_time": "1"}).encode())
    assert names(lab) == {"run/_tpm-ghost.json", "disks/ghost.tpm"}


def test_a_damaged_record_spares_its_machine(lab: Lab) -> None:
    put(lab.home.run / "ghost.json", b"{")
    put(lab.home.disks / "ghost.qcow2")
    assert names(lab) == set()


def test_sockets_of_a_machine_that_is_off_go_and_a_crash_stays_visible(lab: Lab) -> None:
    put(lab.home.run / "web1.qmp")
    put(lab.home.run / "web1.serial")
    assert names(lab) == {"run/web1.qmp", "run/web1.serial"}
    put(lab.home.run / "web1.json", b'{"token": "t", "pid": 4194999, "start_time": "1", "crashed": true}')
    assert names(lab) == set()


def test_half_made_files_go_when_nobody_can_be_at_them(lab: Lab) -> None:
    young = put(lab.home.disks / ".web1.qcow2.4194999.0123abcd.partial")
    own = put(lab.home.disks / f".web1.qcow2.{os.getpid()}.0123abcd.partial", age=2 * YOUNG)
    old = put(lab.home.vms / ".web1.json.4194999.0123abcd.partial", age=2 * YOUNG)
    put(lab.home.ssh / ".key.abc/key", age=2 * YOUNG)
    os.utime(lab.home.ssh / ".key.abc", (0, 0))
    assert names(lab) == {"vms/.web1.json.4194999.0123abcd.partial", "ssh/.key.abc"}
    assert young.exists()
    assert own.exists()
    collect(lab, plan_garbage(lab))
    assert not old.exists()


def test_what_is_not_ours_is_told_and_stays(lab: Lab) -> None:
    mine = put(lab.home.disks / "My Notes.txt")
    folder = put(lab.home.logs / "backup/x").parent
    named = [
        put(lab.home.disks / "backup.tar.gz"), put(lab.home.disks / "cloud.img"), put(lab.home.logs / "notes.txt"),
        put(lab.home.vms / "todo.md"), put(lab.home.status / "old.log"), put(lab.home.disks / "web1.qcow2.bak"),
        put(lab.home.disks / ".DS_Store"),
    ]  # fmt: skip
    plan = plan_garbage(lab)
    assert plan.items == ()
    assert set(plan.unknown) == {mine, folder, *named}


def test_what_was_made_meanwhile_stays(lab: Lab) -> None:
    disk = put(lab.home.disks / "new1.qcow2")
    plan = plan_garbage(lab)
    (lab.home.vms / "new1.json").write_text("{}")
    gone, failed = collect(lab, plan)
    assert (gone, failed) == ([], [])
    assert disk.exists()


def test_what_cannot_be_removed_is_told_and_the_rest_goes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    put(lab.home.disks / "old.qcow2")
    put(lab.home.logs / "old.log")
    plan, unlink = plan_garbage(lab), Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "old.qcow2":
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    gone, failed = collect(lab, plan)
    assert [item.name for item in gone] == ["logs/old.log"]
    assert failed == ["disks/old.qcow2: [Errno 1] Operation not permitted"]


def test_it_waits_for_nobody_who_brings_the_lab_up(lab: Lab) -> None:
    with lab.changing_lab(), pytest.raises(ConflictError, match="bringing this lab up or down"):
        collect(lab, plan_garbage(lab))


def test_a_lab_that_never_was_has_none(tmp_path: Path) -> None:
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "nowhere")))
    assert plan_garbage(lab).items == ()
    assert collect(lab, plan_garbage(lab)) == ([], [])
    assert not (tmp_path / "nowhere").exists()


def test_the_sockets_of_a_killed_switch_go(lab: Lab) -> None:
    put(lab.home.run / "_switch.lan")
    assert [(item.kind, item.name) for item in plan_garbage(lab).items] == [
        (Kind.SOCKET, str(lab.home.run / "_switch.lan"))
    ]


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["python", "-m", "lab.switch", "/h/run/_switch.lan", ""], ("switch", Path("/h/run/_switch.lan"))),
        (["qemu-system-x86_64", "-name", "web1,process=pvmlab-web1", "-qmp", "unix:/h,,x/run/web1.qmp,server=on"],
         ("web1", Path("/h,x/run/web1.qmp"))),
        (["qemu-system-x86_64", "-name", "web1", "-qmp", "unix:/h/run/web1.qmp,server=on,wait=off"], None),
        (["less", "lab.switch"], None),
        ([], None),
    ],
)  # fmt: skip
def test_processes_of_ours_are_known_by_their_words(words: list[str], place: tuple[str, Path] | None) -> None:
    assert _place_of(words) == place
