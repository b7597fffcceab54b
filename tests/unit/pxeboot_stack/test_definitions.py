from __future__ import annotations

import dataclasses
import os
import stat
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.lan import Lan
from contracts.machine import Nic, VmDefinition
from pxeboot_stack import definitions
from pxeboot_stack.definitions import DefinitionStore
from tests.fakes.lab_files import make_machine, write_definition


def store(vms: Path, interval: float = 0.0) -> DefinitionStore:
    return DefinitionStore(vms, lan=Lan(), interval=interval)


def test_machines_are_found_by_name_and_by_mac(tmp_path: Path) -> None:
    machine = make_machine()
    write_definition(tmp_path, machine)
    machines = store(tmp_path).current()
    assert machines.by_name == {"web1": machine}
    assert machines.by_mac == {machine.mac: machine}
    assert machines.faults == {}


def test_changes_are_seen_and_removed_machines_are_forgotten(tmp_path: Path) -> None:
    known = store(tmp_path)
    assert known.current().by_name == {}
    path = write_definition(tmp_path, make_machine())
    assert known.current().by_name["web1"].cpus == 2
    write_definition(tmp_path, make_machine(cpus=4))
    assert known.current().by_name["web1"].cpus == 4
    path.unlink()
    assert known.current().by_name == {}


def test_a_replaced_file_is_seen_at_once_also_between_two_full_looks(tmp_path: Path) -> None:
    known = store(tmp_path, interval=3600)
    assert known.current().by_name == {}
    write_definition(tmp_path, make_machine())
    assert set(known.current().by_name) == {"web1"}


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_definition(tmp_path, make_machine())
    known = store(tmp_path)
    known.current()
    monkeypatch.setattr("contracts.document.loads", lambda *_: pytest.fail("read again"))
    assert set(known.current().by_name) == {"web1"}
    write_definition(tmp_path, make_machine(cpus=4))
    with pytest.raises(pytest.fail.Exception):  # it would have been noticed
        known.current()


def test_a_broken_file_keeps_its_last_good_definition_and_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_definition(tmp_path, make_machine())
    known = store(tmp_path)
    known.current()
    path.write_text('{"name": "web1",')
    machines = known.current()
    assert machines.by_name["web1"] == make_machine()
    assert machines.faults["web1"].superseded
    assert "not JSON" in machines.faults["web1"].reason
    known.current()
    assert [record.message for record in caplog.records if "last good version stays" in record.message] == [
        f"definition web1: {machines.faults['web1'].reason}; its last good version stays"
    ]


def test_a_file_that_was_never_good_is_refused_with_its_mac(tmp_path: Path) -> None:
    text = write_definition(tmp_path, make_machine()).read_text()
    (tmp_path / "web1.json").write_text(text.replace('"cpus": 2', '"cpus": 0'))
    machines = store(tmp_path).current()
    assert machines.by_name == {}
    fault = machines.find_refused("52:54:00:aa:bb:01")
    assert fault is not None
    assert "cpus is 0" in fault.reason


@pytest.mark.parametrize(
    ("changes", "file", "reason"),
    [
        ({"name": "web2"}, "web1", "its name is 'web2', but the file is web1.json"),
        ({"ip": "10.0.0.1"}, "web1", "not one of the reservable addresses"),
        ({"ip": "192.168.100.200"}, "web1", "not one of the reservable addresses"),
        ({"ip": "192.168.100.1"}, "web1", "not one of the reservable addresses"),
    ],
)
def test_definitions_that_do_not_fit_the_lab_are_refused(
    tmp_path: Path, changes: dict[str, str], file: str, reason: str
) -> None:
    written = write_definition(tmp_path, make_machine(**changes))
    written.replace(tmp_path / f"{file}.json")
    machines = store(tmp_path).current()
    assert machines.by_name == {}
    assert reason in machines.faults[file].reason


@pytest.mark.parametrize("same", [{"mac": "52:54:00:aa:bb:01"}, {"ip": "192.168.100.11"}])
def test_machines_with_the_same_address_are_all_refused(tmp_path: Path, same: dict[str, str]) -> None:
    other = {"name": "web2", "mac": "52:54:00:aa:bb:02", "ip": "192.168.100.12"} | same
    write_definition(tmp_path, make_machine())
    second = write_definition(tmp_path, make_machine(**other))
    known = store(tmp_path)
    machines = known.current()
    assert machines.by_name == {}
    assert set(machines.faults) == {"web1", "web2"}
    assert "web1 and web2 have the same address" in machines.faults["web2"].reason
    second.unlink()
    assert set(known.current().by_name) == {"web1"}


def test_secrets_do_not_get_into_reasons(tmp_path: Path) -> None:
    text = write_definition(tmp_path, make_machine()).read_text()
    (tmp_path / "web1.json").write_text(text.replace("-----BEGIN OPENSSH PRIVATE KEY-----", "THE-SECRET"))
    reason = store(tmp_path).current().faults["web1"].reason
    assert "ssh_host_key" in reason
    assert "THE-SECRET" not in reason


def test_a_file_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web1.json").write_text("[" * 100_000)
    assert "recursion" in store(tmp_path).current().faults["web1"].reason


def test_machines_are_found_by_each_card_address_and_uuid(tmp_path: Path) -> None:
    machine = make_machine(nics=(Nic(mac="52:54:00:aa:bb:05", ip="192.168.100.15", ipv6="fd00::15"),))
    write_definition(tmp_path, machine)
    known = store(tmp_path)
    machines = known.current()
    assert set(machines.by_mac) == {"52:54:00:aa:bb:01", "52:54:00:aa:bb:05"}
    assert set(machines.by_address) == {"192.168.100.11", "192.168.100.15", "fd00::15"}
    assert set(machines.by_uuid) == {machine.uuid}
    write_definition(tmp_path, make_machine())
    machines = known.current()
    assert (set(machines.by_mac), set(machines.by_address)) == ({machine.mac}, {machine.ip})


@pytest.mark.parametrize(
    "nic",
    [
        Nic(mac="52:54:00:aa:bb:02", ip="192.168.100.15"),
        Nic(mac="52:54:00:aa:bb:05", ip="192.168.100.12"),
    ],
)
def test_an_address_of_a_further_card_is_nobody_elses(tmp_path: Path, nic: Nic) -> None:
    other = make_machine(name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid=str(uuid.UUID(int=2)))
    write_definition(tmp_path, other)
    write_definition(tmp_path, make_machine(nics=(nic,)))
    machines = store(tmp_path).current()
    assert machines.by_name == {}
    fault = machines.find_refused(nic.mac)
    assert fault is not None
    assert "web1 and web2 have the same address" in fault.reason


def test_two_machines_with_one_uuid_are_both_refused(tmp_path: Path) -> None:
    write_definition(tmp_path, make_machine())
    write_definition(tmp_path, make_machine(name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12"))
    machines = store(tmp_path).current()
    assert machines.by_name == {}
    assert "web1 and web2 have the same UUID" in machines.faults["web1"].reason


def test_a_change_of_one_file_reads_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = [
        make_machine(
            name=f"m{n}", mac=f"52:54:00:00:00:{n:02x}", ip=f"192.168.100.{n + 10}", uuid=str(uuid.UUID(int=n))
        )
        for n in range(1, 51)
    ]
    for machine in machines:
        write_definition(tmp_path, machine)
    known = store(tmp_path, interval=3600)
    assert len(known.current().by_name) == 50
    read: list[str] = []
    parse = known._parse

    def counted(text: bytes, stem: str) -> VmDefinition:
        read.append(stem)
        return parse(text, stem)

    monkeypatch.setattr(known, "_parse", counted)
    write_definition(tmp_path, dataclasses.replace(machines[7], cpus=4))
    assert known.current().by_name["m8"].cpus == 4
    assert read == ["m8"]


def test_an_edited_file_is_found_by_the_sweep_when_it_is_due(tmp_path: Path) -> None:
    path = write_definition(tmp_path, make_machine())
    now = [100.0]
    known = store(tmp_path, interval=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pxeboot_stack.definitions.time.monotonic", lambda: now[0])
        known.current()
        path.write_text(path.read_text().replace('"cpus": 2', '"cpus": 4'))  # in place: the directory does not change
        assert known.current().by_name["web1"].cpus == 2
        now[0] += 0.6
        assert known.current().by_name["web1"].cpus == 4


def test_a_second_change_within_a_tick_of_the_clock_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pxeboot_stack.definitions.time.monotonic", lambda: now[0])
    known = store(tmp_path, interval=5.0)
    known.current()
    frozen = tmp_path.stat()
    write_definition(tmp_path, make_machine())
    monkeypatch.setattr(definitions, "_signature", lambda _: (frozen.st_mtime_ns, 0, 0, 0))
    known.current()
    write_definition(tmp_path, make_machine(name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12",
                                            uuid=str(uuid.UUID(int=2))))  # fmt: skip
    assert set(known.current().by_name) == {"web1"}  # nothing tells that the directory has changed
    now[0] += 6
    assert set(known.current().by_name) == {"web1", "web2"}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["put", "remove", "break"]), st.integers(1, 4), st.integers(1, 4)),
        max_size=12,
    )
)
def test_whatever_happens_to_the_files_the_index_is_what_a_fresh_look_finds(
    tmp_path: Path, steps: list[tuple[int, str, int, int]]
) -> None:
    folder = tmp_path / str(uuid.uuid4())
    folder.mkdir()
    known = store(folder)
    for number, action, mac, ip in steps:
        machine = make_machine(name=f"m{number}", mac=f"52:54:00:00:00:0{mac}", ip=f"192.168.100.1{ip}",
                               uuid=str(uuid.UUID(int=number + 1)))  # fmt: skip
        path = folder / f"{machine.name}.json"
        if action == "put":
            write_definition(folder, machine)
        elif action == "remove":
            path.unlink(missing_ok=True)
        elif not path.exists():
            path.write_text("{")
        machines, fresh = known.current(), store(folder).current()
        assert dict(machines.by_name) == dict(fresh.by_name)
        assert dict(machines.by_mac) == dict(fresh.by_mac)
        assert dict(machines.by_address) == dict(fresh.by_address)
        assert dict(machines.by_uuid) == dict(fresh.by_uuid)
        assert dict(machines.faults) == dict(fresh.faults)


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web1.json").write_text(" " * (definitions.MAX_DEFINITION_BYTES + 1))
    assert "longer than" in store(tmp_path).current().faults["web1"].reason


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "web1.json"
    match kind:
        case "pipe":
            os.mkfifo(path)  # to open it would wait for a writer, for ever
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("/dev/zero")
    assert store(tmp_path).current().faults["web1"].reason == "it is no regular file"


def test_half_written_files_and_strangers_are_no_definitions(tmp_path: Path) -> None:
    (tmp_path / ".web1.json").write_text("{")
    (tmp_path / "notes.txt").write_text("{")
    machines = store(tmp_path).current()
    assert (dict(machines.by_name), dict(machines.faults)) == ({}, {})


def test_a_directory_that_cannot_be_read_keeps_what_is_known(tmp_path: Path) -> None:
    vms = tmp_path / "vms"
    vms.mkdir()
    write_definition(vms, make_machine())
    known = store(vms)
    known.current()
    vms.rename(tmp_path / "gone")
    assert set(known.current().by_name) == {"web1"}
    assert "No such file" in known.unreadable
    (tmp_path / "gone").rename(vms)
    known.current()
    assert known.unreadable == ""


def test_a_file_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "web1.json").symlink_to(tmp_path / "elsewhere")  # dangling: not there
    os.mknod(tmp_path / "web2.json", 0o600 | stat.S_IFSOCK)  # cannot be opened
    known = store(tmp_path)
    assert known.current().faults["web2"].reason == "cannot be read: No such device or address"
    (tmp_path / "web2.json").unlink()
    write_definition(tmp_path, make_machine())
    machines = known.current()
    assert set(machines.by_name) == {"web1"}
    assert machines.faults == {}
