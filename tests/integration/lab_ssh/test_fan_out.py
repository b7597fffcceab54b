"""A command on many machines, which are SSH servers of this host."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from contracts.machine import Label
from contracts.names import PROVISIONER_NAME
from lab import fan_out, provisioner, ssh
from lab.fan_out import Output, choose_machines, run_on_all
from lab.keys import make_key
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.errors import NotFoundError, UsageError
from tests.integration.lab_ssh.conftest import TARGET_IP, MarkRunning, StartServer

OTHER_IP = "127.77.0.4"


@pytest.fixture
def two(
    lab: Lab, start_server: StartServer, provisioner_port: int, provisioner_key: str, mark_running: MarkRunning
) -> Lab:
    """A lab with two machines that answer."""
    store = DefinitionStore(lab)
    first = store.load("web1")
    second = dataclasses.replace(
        first, name="web2", ip=OTHER_IP, mac="52:54:00:00:00:02", uuid="00000000-0000-4000-8000-000000000003",
        ssh_host_key=make_key("web2", scratch=lab.home.ssh), labels=(Label(key="role", value="db"),),
    )  # fmt: skip
    store.write(second)
    ssh.write_files(lab, provisioner.find_access(lab))
    start_server("127.0.0.1", provisioner_port, provisioner_key)
    start_server(TARGET_IP, 22, first.ssh_host_key.private)
    start_server(OTHER_IP, 22, second.ssh_host_key.private)
    for name in (PROVISIONER_NAME, "web1", "web2"):
        mark_running(name)
    return lab


def run(
    lab: Lab, command: str, *, timeout: float = 60, jobs: int = 8
) -> tuple[list[fan_out.Outcome], list[tuple[str, str, Output]]]:
    told: list[tuple[str, str, Output]] = []
    outcomes = run_on_all(
        lab, ["web1", "web2"], command, timeout=timeout, jobs=jobs, tell=lambda *words: told.append(words)
    )
    return outcomes, told


def test_lines_come_with_their_machines_name(two: Lab) -> None:
    outcomes, told = run(two, "echo one; echo two; echo bad >&2; printf unfinished")
    assert [(each.name, each.exit_status, each.stdout, each.stderr) for each in outcomes] == [
        (name, 0, "one\ntwo\nunfinished", "bad\n") for name in ("web1", "web2")
    ]
    for name in ("web1", "web2"):
        assert [line for who, line, where in told if (who, where) == (name, Output.STDOUT)] == [
            "one",
            "two",
            "unfinished",
        ]
        assert (name, "bad", Output.STDERR) in told
    assert all(each.succeeded and each.seconds > 0 and not each.fault for each in outcomes)


def test_each_has_its_own_end(two: Lab) -> None:
    (first, second), _ = run(two, "case $SSH_CONNECTION in *127.77.0.2*) exit 3;; esac", jobs=1)
    assert (first.exit_status, first.succeeded, second.exit_status, second.succeeded) == (3, False, 0, True)


def test_time_is_up_for_those_who_do_not_end(two: Lab) -> None:
    began = time.monotonic()
    (first, second), told = run(two, "echo begun; exec sleep 100", timeout=3)
    assert time.monotonic() - began < 15
    assert (first.exit_status, first.fault, first.stdout) == (None, "it did not end within 3 s", "begun\n")
    assert not second.succeeded
    assert [line for _, line, where in told if where is Output.STDOUT] == ["begun", "begun"]


def test_one_that_is_off_or_does_not_let_us_in_is_told_and_the_others_run(two: Lab, start_server: StartServer) -> None:
    (two.home.run / "web2.json").unlink()
    (first, second), _ = run(two, "true")
    assert (first.succeeded, second.fault) == (True, "web2 is off")
    impostor = make_key("impostor", scratch=two.home.ssh)
    store = DefinitionStore(two)
    store.write(dataclasses.replace(store.load("web1"), ssh_host_key=impostor))
    ssh.write_files(two, provisioner.find_access(two))
    (first, _), _ = run(two, "true")
    assert first.exit_status is None
    assert first.fault.startswith("Host key verification failed")


def test_much_output_is_told_and_its_beginning_is_kept(two: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "LIMIT", 1000)
    (first, _), told = run(two, "seq 10000")
    assert len(first.stdout) == 1000
    assert first.truncated
    assert len(told) == 20000


def test_an_interrupt_ends_all_of_them(two: Lab) -> None:
    marker = "sleep 98.7654"
    threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run(two, f"exec {marker}")
    ours = [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if str(ssh.config_path(two)).encode() in path.read_bytes()
    ]
    assert not ours


def test_machines_are_chosen_by_name_by_label_or_all(two: Lab) -> None:
    assert choose_machines(two, ["web2", "web1", "web2"], everyone=False, labels=[]) == ["web2", "web1"]
    assert choose_machines(two, [], everyone=True, labels=[]) == ["web1", "web2"]
    assert choose_machines(two, [], everyone=False, labels=["role=db"]) == ["web2"]
    assert choose_machines(two, [], everyone=False, labels=["role"]) == ["web2"]
    assert choose_machines(two, [PROVISIONER_NAME], everyone=False, labels=[]) == [PROVISIONER_NAME]
    for words in ({"everyone": True, "labels": ["role"]}, {"everyone": False, "labels": []}):
        with pytest.raises(UsageError, match="on which machines"):
            choose_machines(two, [], **words)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no machine has the labels role=web"):
        choose_machines(two, [], everyone=False, labels=["role=web"])
    with pytest.raises(NotFoundError):
        choose_machines(two, ["nope"], everyone=False, labels=[])
