from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from contracts.lan import Lan
from pxeboot_stack import watcher
from pxeboot_stack.paths import RunFiles
from pxeboot_stack.watcher import Watcher, reload_dnsmasq
from tests.fakes.lab_files import make_machine, write_definition


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    (tmp_path / "run").mkdir()
    return RunFiles(tmp_path / "run")


@pytest.fixture
def vms(tmp_path: Path) -> Path:
    (tmp_path / "vms").mkdir()
    return tmp_path / "vms"


def test_files_are_written_at_the_first_look_and_then_only_on_changes(vms: Path, run: RunFiles) -> None:
    watch = Watcher(vms, lan=Lan(), run=run)
    assert watch.look()
    assert run.dhcp_hosts.read_text() == ""
    assert not watch.look()
    write_definition(vms, make_machine())
    assert watch.look()
    assert "192.168.100.11" in run.dhcp_hosts.read_text()
    assert "web1.pvmlab.local" in run.dns_hosts.read_text()
    (vms / "web1.json").unlink()
    assert watch.look()
    assert run.dhcp_hosts.read_text() == ""


def test_a_broken_definition_keeps_its_reservation(vms: Path, run: RunFiles) -> None:
    watch = Watcher(vms, lan=Lan(), run=run)
    write_definition(vms, make_machine())
    watch.look()
    (vms / "web1.json").write_text("{")
    assert not watch.look()
    assert "52:54:00:aa:bb:01,id:*,192.168.100.11,12h" in run.dhcp_hosts.read_text()


def test_dnsmasq_is_signalled_once_a_change_and_only_when_it_is_there(
    vms: Path, run: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, asked = [False], []

    def reload(pid_file: Path) -> bool:
        asked.append(pid_file)
        return there[0]

    monkeypatch.setattr(watcher, "reload_dnsmasq", reload)
    watch = Watcher(vms, lan=Lan(), run=run)
    watch.look()
    watch.look()
    assert len(asked) == 2  # not there yet: asked again
    there[0] = True
    watch.look()
    watch.look()
    assert len(asked) == 3


@pytest.mark.parametrize("content", [None, "", "nonsense", "999999999", "0", "-1"])
def test_no_process_of_that_number_is_not_signalled(
    run: RunFiles, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled"))
    if content is not None:
        run.dnsmasq_pid.write_text(content)
    assert not reload_dnsmasq(run.dnsmasq_pid)


def test_a_bystander_with_the_old_number_is_not_signalled(run: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    run.dnsmasq_pid.write_text(f"{os.getpid()}\n")
    assert not reload_dnsmasq(run.dnsmasq_pid)
    assert sent == []
    monkeypatch.setattr(watcher, "_PROGRAM", Path("/proc/self/comm").read_text().strip())
    assert reload_dnsmasq(run.dnsmasq_pid)  # it would have been
    assert sent == [(os.getpid(), signal.SIGHUP)]
