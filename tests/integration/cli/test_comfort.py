"""gc, clean --purge, config.show and doctor --fix, on labs and caches of a few files."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tasks
from cli import doctor_repairs, program
from cli.doctor import Finding, State, examine_leftovers, examine_privacy
from cli.doctor_repairs import carry_out, plan_repairs
from contracts import document
from contracts.lan import Lan
from lab.network import NetworkKind
from lab.network_settings import NetworkSettings, write_settings
from pipeline.errors import CommandError
from pipeline.workspace import Home

Verb = Callable[..., int]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in [name for name in os.environ if name.startswith("PVMLAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PVMLAB_DEBIAN_MIRROR", "http://archive.example/debian")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return Home(tmp_path / "home")


@pytest.fixture
def verb(home: Home) -> Iterator[Verb]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield lambda *words: program.run(tasks.namespace, ["pvmlab", *words])
    for number, handler in handlers.items():
        signal.signal(number, handler)


def put(path: Path, text: str = "x" * 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_gc_shows_asks_and_removes(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    disk, part = put(home.disks / "old.vars.fd"), put(home.root.parent / "cache/.x.partial")
    assert verb("gc", "--dry-run") == 0
    out = capsys.readouterr().out
    assert re.search(r"disk +disks/old.vars.fd +8.0 KiB +there is no machine old", out)
    assert verb("gc") == 2
    assert "--yes says yes" in capsys.readouterr().err
    assert disk.exists()
    assert verb("gc", "--yes", "--output", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in said["removed"]} == {"disks/old.vars.fd", ".x.partial"}
    assert said["size"] > 0
    assert not disk.exists()
    assert verb("gc", "--yes") == 0
    assert "there is nothing to remove" in capsys.readouterr().err
    assert not part.exists()


def test_gc_leaves_what_is_not_ours(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    notes = put(home.disks / "notes")
    assert verb("gc", "--yes") == 0
    assert f"{notes} stays" in capsys.readouterr().err


def test_gc_says_what_it_freed_not_what_it_meant_to(
    verb: Verb, home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, goes, unlink = put(home.disks / "old.vars.fd"), put(home.disks / "old.seed.iso"), Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == stays:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert verb("gc", "--yes") == 1
    said = capsys.readouterr().err
    assert "freed 8.0 KiB" in said  # of 16
    assert "disks/old.vars.fd: [Errno 1] Operation not permitted" in said
    assert not goes.exists()


def test_gc_of_nothing_makes_nothing(verb: Verb, home: Home) -> None:
    assert verb("gc", "--dry-run") == 0
    assert not home.root.exists()


def test_purge_says_what_goes_and_leaves_what_is_a_persons(
    verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = home.root.parent / "cache"
    put(home.config / "identity", "me")
    put(home.ssh / "id_ed25519")
    mine = put(home.templates / "mine.j2")
    built, note = put(cache / "logs/rootfs:debian-12:x86_64.log"), put(cache / "README.md")
    assert verb("clean", "--purge") == 2
    err = capsys.readouterr().err
    assert "So will its keys and settings" in err
    assert str(cache) in err
    assert built.exists()
    assert verb("clean", "--purge", "--yes") == 0
    assert not built.exists()
    assert not home.ssh.exists()
    assert not home.config.exists()
    assert mine.exists()
    assert note.exists()


def test_clean_leaves_the_cache_and_the_keys(verb: Verb, home: Home) -> None:
    built, key = put(home.root.parent / "cache/logs/x.log"), put(home.config / "identity", "me")
    assert verb("clean", "--yes") == 0
    assert built.exists()
    assert key.exists()


def settings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {each["name"]: each for each in json.loads(capsys.readouterr().out)["settings"]}


def test_config_says_where_each_value_came_from(
    verb: Verb, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PVMLAB_ACCEL", "tcg")
    assert verb("config.show", "--output", "json") == 0
    found = settings(capsys)
    assert (found["PVMLAB_HOME"]["value"], found["PVMLAB_HOME"]["source"]) == (str(home.root), "environment")
    assert (found["PVMLAB_ACCEL"]["value"], found["PVMLAB_ACCEL"]["source"]) == ("tcg", "environment")
    assert (found["PVMLAB_MODULES"]["value"], found["PVMLAB_MODULES"]["source"]) == ("installer", "default")
    assert (found["lan.subnet"]["value"], found["lan.subnet"]["source"]) == ("192.168.100.0/24", "default")
    assert found["network.kind"] == {"name": "network.kind", "value": "switch", "source": "default", "fault": ""}
    assert not home.root.exists()

    write_settings(home, NetworkSettings(kind=NetworkKind.BRIDGE), Lan(subnet="10.7.0.0/24"))
    assert verb("config.show", "--output", "json") == 0
    found = settings(capsys)
    assert (found["lan.subnet"]["value"], found["lan.subnet"]["source"]) == ("10.7.0.0/24", f"{home.config}/lab.json")
    assert found["network.kind"]["source"] == f"{home.config}/network.json"


def test_config_shows_what_is_broken(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    put(home.config / "lab.json", "{")
    assert verb("config.show") == 0
    out = capsys.readouterr().out
    assert "lan " in out
    assert "are broken" in out


def test_config_shows_the_provisioners_settings_and_where_folders_are(
    verb: Verb, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = put(home.disks / "provisioner.json", '{"schema": 1, "uuid": "u", "mode": "host", "interface": "br0"}')
    monkeypatch.chdir(home.root.parent)
    monkeypatch.setenv("PVMLAB_HOME", "home")
    assert verb("config.show", "--output", "json") == 0
    found = settings(capsys)
    assert found["PVMLAB_HOME"]["value"] == str(home.root)
    for name, value in (("mode", "host"), ("interface", "br0")):
        assert (found[f"provisioner.{name}"]["value"], found[f"provisioner.{name}"]["source"]) == (value, str(record))
    record.write_text("{")
    assert verb("config.show", "--output", "json") == 0
    fault = settings(capsys)["provisioner"]
    assert fault["source"] == str(record)
    assert "not a valid" in fault["fault"]


def test_config_shows_what_may_not_be_read(
    verb: Verb, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    put(home.disks / "provisioner.json")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert verb("config.show", "--output", "json") == 0
    found = settings(capsys)
    assert [found[name]["fault"].partition(" (")[0] for name in ("lan", "network", "provisioner")] == (
        ["permission denied"] * 3
    )


@pytest.mark.parametrize("name", ["~no-such-user/lab", "home"])
def test_a_lab_that_cannot_be_told_where(
    name: str, verb: Verb, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("PVMLAB_HOME", name)
    assert verb("vm.list") == 5
    err = capsys.readouterr().err
    assert f"it cannot be told where {name} is" in err
    assert "set PVMLAB_HOME to the full path" in err


def test_every_variable_of_the_reference_is_shown(verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.workspace import REPOSITORY

    page = (REPOSITORY / "docs/reference/environment.md").read_text()
    assert verb("config.show", "--output", "json") == 0
    found = settings(capsys)
    named = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert {name for name in named if name.startswith(("PVMLAB_", "NO_"))} == {name for name in found if name.isupper()}


def test_open_folders_are_found_and_closed(home: Home) -> None:
    home.ssh.mkdir(parents=True)
    home.ssh.chmod(0o755)
    finding = examine_privacy(home)
    assert finding.state is State.WARNING
    assert str(home.ssh) in finding.found
    assert carry_out(plan_repairs([finding]), yes=False) == ["close the folders with keys and sockets to others"]
    assert home.ssh.stat().st_mode & 0o777 == 0o700
    assert examine_privacy(home).state is State.OK


def test_leftovers_are_found_and_the_safe_ones_removed(home: Home) -> None:
    socket, disk = put(home.run / "old.qmp"), put(home.disks / "old.qcow2")
    finding = examine_leftovers()
    assert (finding.state, finding.found) == (State.WARNING, "2: disk, socket")
    assert carry_out(plan_repairs([finding]), yes=False) == ["remove leftovers of killed commands"]
    assert not socket.exists()
    assert disk.exists(), "a disk goes only where gc has shown it"
    assert plan_repairs([examine_leftovers()]) == [], "what is not done is not told as done"


def test_what_changes_the_host_is_asked(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(doctor_repairs, "as_root", lambda argv: ran.append(list(argv)))
    monkeypatch.setattr(doctor_repairs, "setup", lambda *, for_tests: ran.append(["setup"]))
    findings = [
        Finding("loopback", State.MISSING, "down", "sudo ip link set lo up"),
        Finding("qemu", State.MISSING, "not there", "apt-get install x"),
        Finding("strace", State.WARNING, "only for tests", "apt-get install y"),
        Finding("memory", State.WARNING, "little", "add memory"),
        Finding("uidmap", State.OK, "there"),
    ]
    assert carry_out(plan_repairs(findings), yes=False) == []
    assert "not done: install packages for: qemu: This changes the host" in capsys.readouterr().err
    assert ran == []
    assert carry_out(plan_repairs(findings), yes=True) == ["install packages for: qemu", "sudo ip link set lo up"]
    assert ran == [["setup"], ["ip", "link", "set", "lo", "up"]]


def test_a_repair_that_fails_is_told_and_the_others_go_on(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> None:
        raise CommandError(argv, returncode=1, tail=(), log=None, how="failed")

    monkeypatch.setattr(doctor_repairs, "as_root", fail)
    home.ssh.mkdir(parents=True)
    home.ssh.chmod(0o755)
    findings = [examine_privacy(home), Finding("loopback", State.MISSING, "down", "sudo ip link set lo up")]
    assert carry_out(plan_repairs(findings), yes=True) == ["close the folders with keys and sockets to others"]
    assert "not done: sudo ip link set lo up: ip failed" in capsys.readouterr().err


def test_a_person_at_a_terminal_may_refuse(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    finding = Finding("loopback", State.MISSING, "down", "sudo ip link set lo up")
    assert carry_out(plan_repairs([finding]), yes=False) == []
    assert "nothing was done" in capsys.readouterr().err


def test_settings_are_documents(home: Home) -> None:
    write_settings(home, NetworkSettings(kind=NetworkKind.BRIDGE), Lan())
    assert document.loads(NetworkSettings, (home.config / "network.json").read_bytes()).kind is NetworkKind.BRIDGE


def test_verbs_that_act_tell_programs_what_became_of_it(
    verb: Verb, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> dict[str, Any]:
        assert verb(*words, "--output", "json") == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert document["schema"] == 1
        return document

    machine = said("vm.create", "web1", "--label", "a=b")
    assert (machine["name"], machine["state"], machine["definition"]["ip"]) == ("web1", "off", "192.168.100.2")
    assert said("vm.set", "web1", "c=d")["definition"]["labels"] == [
        {"key": "a", "value": "b"}, {"key": "c", "value": "d"},
    ]  # fmt: skip
    assert said("vm.reinstall", "web1", "--withdraw")["name"] == "web1"
    adopted = said("vm.adopt", "52:54:00:00:00:09", "--name", "web9")
    assert (adopted["name"], adopted["definition"]["managed"]) == ("web9", False)
    assert said("vm.clean", "web9", "--yes")["removed"] == ["web9"]
    assert said("vm.stop", "web1")["state"] == "off"
    assert [each["name"] for each in said("vm.stop", "provisioner")["machines"]] == ["web1"]
    assert said("provisioner.stop")["network_running"] is False
    assert said("down")["machines"][0]["name"] == "web1"
    assert said("vm.clean", "web1", "--yes")["removed"] == ["web1"]
    assert said("net.remove")["kind"] == "switch"
    assert said("clean", "--yes")["machines"] == []
    assert verb("vm.create", "web1") == 0
    assert capsys.readouterr().out == "", "for people it is told as it goes"
