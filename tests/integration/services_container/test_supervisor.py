"""The container's first process, with services that behave badly."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.run import Popen, spawn
from pipeline.workspace import REPOSITORY

PROGRAM = """
import ctypes, json, logging, os, pathlib, sys, time
from pxeboot_stack import supervisor
logging.basicConfig(level=logging.INFO, format="%(message)s")
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here, as to a first process
def fail(): raise RuntimeError("no way")
def wait(): print("function in group", os.getpgid(0) == os.getpid(), flush=True); time.sleep(60)
functions = {"fail": fail, "wait": wait}
services = {name: functions.get(str(service), service) for name, service in json.loads(sys.argv[1]).items()}
record, receiver = map(pathlib.Path, sys.argv[2:])
supervisor.LONGEST_PAUSE = float(os.environ.get("LONGEST_PAUSE", supervisor.LONGEST_PAUSE))
try:
    supervisor.Supervisor(services, record=record, receivers={"teller": receiver}).run()
except supervisor.FlappingError as error:
    sys.exit(f"flapping: {error}")
"""
STUBBORN = "trap '' TERM; echo started; while :; do sleep 0.1; done"


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Popen[bytes]]]:
    """Return a function that supervises the services of a JSON text; their output goes to ``log``."""
    running: list[Popen[bytes]] = []

    def start(services: str, **variables: str) -> Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            argv = [sys.executable, "-c", PROGRAM, services, str(tmp_path / "record"), str(tmp_path / "socket")]
            running.append(spawn(argv, env={"PYTHONPATH": str(REPOSITORY), **variables}, stdout=log, stderr=log))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def wait_for_lines(path: Path, text: str, count: int = 1) -> list[str]:
    deadline = time.monotonic() + 15
    while True:
        lines = [line for line in path.read_text().splitlines() if text in line]
        if len(lines) >= count:
            return lines
        if time.monotonic() > deadline:
            pytest.fail(f"{count} times {text!r}: not within 15 s, there is {path.read_text()!r}")
        time.sleep(0.05)


def test_what_ends_is_started_again_after_growing_pauses(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path
) -> None:
    supervise('{"broken": ["sh", "-c", "exit 3"], "good": ["sleep", "60"]}')
    lines = wait_for_lines(tmp_path / "log", "broken ended", 3)
    assert lines[:3] == [f"broken ended with status 3; it is started again in {pause:g} s" for pause in (0.5, 1, 2)]
    assert len(wait_for_lines(tmp_path / "log", "good started")) == 1


def test_a_program_that_is_not_there_is_said_and_tried_again(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path
) -> None:
    supervise('{"missing": ["pvmlab-no-such-program"]}')
    assert "No such file" in wait_for_lines(tmp_path / "log", "missing cannot be started", 2)[1]


def test_a_service_that_does_not_end_is_killed_with_its_children(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path
) -> None:
    process = supervise(f'{{"stubborn": ["sh", "-c", "{STUBBORN}"]}}')
    wait_for_lines(tmp_path / "log", "started")
    (line,) = wait_for_lines(tmp_path / "log", "stubborn started as process ")
    wait_for_lines(tmp_path / "log", "started", 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert wait_for_lines(tmp_path / "log", "did not end within 1.5 s: killed")
    assert not Path(f"/proc/{line.split()[-1]}").exists()


def test_children_of_a_service_that_died_are_ended(supervise: Callable[[str], Popen[bytes]], tmp_path: Path) -> None:
    """A worker of nginx that outlived its master would hold the port."""
    supervise('{"master": ["sh", "-c", "sleep 61 & echo child $!; wait"]}')
    child = wait_for_lines(tmp_path / "log", "child ")[0].split()[-1]
    master = wait_for_lines(tmp_path / "log", "master started as process ")[0].split()[-1]
    assert Path(f"/proc/{child}").exists()
    os.kill(int(master), signal.SIGKILL)
    wait_for_lines(tmp_path / "log", "master started", 2)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)


def test_functions_are_services_too(supervise: Callable[[str], Popen[bytes]], tmp_path: Path) -> None:
    process = supervise('{"bad": "fail", "good": "wait"}')
    wait_for_lines(tmp_path / "log", "function in group True")
    wait_for_lines(tmp_path / "log", "RuntimeError: no way", 2)
    assert wait_for_lines(tmp_path / "log", "bad ended with status 1; it is started again in 0.5 s")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=3) == 0
    assert "killed" not in (tmp_path / "log").read_text()


def test_a_service_that_flaps_fails_the_container(supervise: Callable[..., Popen[bytes]], tmp_path: Path) -> None:
    """Five deaths within a minute. As a rule the pauses between them add up to 7.5 s."""
    process = supervise(
        '{"good": ["sh", "-c", "trap \\"echo good ended; exit\\" TERM; sleep 60 & wait"], "bad": ["false"]}',
        LONGEST_PAUSE="0.1",
    )
    assert process.wait(timeout=30) == 1
    text = (tmp_path / "log").read_text()
    assert text.count("bad started as process") == 5
    assert "bad ended with status 1, the 5th time within 60 s: giving up" in text
    assert "good ended\n" in text  # the others are ended as they always are
    assert text.rstrip().endswith("flapping: bad ended 5 times within 60 s")


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT, signal.SIGSEGV], ids=lambda n: n.name
)
def test_whatever_ends_or_stops_a_service_it_is_started_again(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path, number: signal.Signals
) -> None:
    supervise('{"victim": ["sleep", "62"]}')
    first = int(wait_for_lines(tmp_path / "log", "victim started")[0].split()[-1])
    os.kill(first, number)
    second = int(wait_for_lines(tmp_path / "log", "victim started", 2)[1].split()[-1])
    assert not Path(f"/proc/{first}").exists()
    assert Path(f"/proc/{second}").exists()
    if number is signal.SIGSTOP:
        assert wait_for_lines(tmp_path / "log", f"victim was stopped by signal {number:d}: killed")


def test_orphans_are_reaped(supervise: Callable[[str], Popen[bytes]], tmp_path: Path) -> None:
    process = supervise('{"parent": ["sh", "-c", "(sh -c \'sleep 0.2; echo orphan $$\' &) ; exec sleep 63"]}')
    orphan = wait_for_lines(tmp_path / "log", "orphan ")[0].split()[-1]
    deadline = time.monotonic() + 10
    while Path(f"/proc/{orphan}").exists():
        assert time.monotonic() < deadline, Path(f"/proc/{orphan}/status").read_text()
        time.sleep(0.05)
    assert process.poll() is None


def test_services_end_in_the_reverse_order_of_their_start(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path
) -> None:
    names = ("first", "second", "third")
    says = {name: ["sh", "-c", f"trap 'echo {name} ends; exit' TERM; echo up; sleep 64 & wait"] for name in names}
    process = supervise(json.dumps(says))
    wait_for_lines(tmp_path / "log", ": up", 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if line.endswith(" ends")]
    assert lines == ["third ends", "second ends", "first ends"]  # a line that begins with the name gets no other


def test_every_line_has_its_services_name_once(supervise: Callable[[str], Popen[bytes]], tmp_path: Path) -> None:
    words = ("printf 'a\\nb'", "sleep 0.3", "printf 'c\\nteller-dhcp: d\\n\\n'", "echo e >&2",
             "head -c 20000 /dev/zero | tr '\\0' x", "exec sleep 65")  # fmt: skip
    program = "; ".join(words)
    supervise(json.dumps({"teller": ["sh", "-c", program]}))
    lines = wait_for_lines(tmp_path / "log", "x" * 3000)
    text = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("teller")]
    assert text[1:6] == ["teller: a", "teller: bc", "teller-dhcp: d", "teller: ", "teller: e"]
    assert all(line.startswith("teller: x") for line in lines)


def test_lines_reach_a_receiver_that_comes_later(supervise: Callable[[str], Popen[bytes]], tmp_path: Path) -> None:
    supervise(json.dumps({"teller": ["sh", "-c", "for n in $(seq 300); do echo line $n; done; exec sleep 66"]}))
    wait_for_lines(tmp_path / "log", "line 300")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "socket"))
        receiver.settimeout(10)
        assert [receiver.recv(9000) for _ in range(300)] == [f"line {number}".encode() for number in range(1, 301)]


def test_the_record_says_what_runs_and_how_often_it_was_started(
    supervise: Callable[[str], Popen[bytes]], tmp_path: Path
) -> None:
    supervise('{"good": ["sleep", "67"], "bad": ["sh", "-c", "sleep 0.1; exit 4"]}')
    wait_for_lines(tmp_path / "log", "bad started", 3)
    record = json.loads((tmp_path / "record").read_text())
    pid = int(wait_for_lines(tmp_path / "log", "good started")[0].split()[-1])
    assert (record["good"]["pid"], record["good"]["restarts"], record["good"]["last"]) == (pid, 0, "")
    assert abs(record["good"]["since"] - time.time()) < 60
    assert record["bad"]["restarts"] >= 2
    assert record["bad"]["last"] == "ended with status 4"


@pytest.mark.nightly
def test_services_killed_at_random_come_back(supervise: Callable[[str], Popen[bytes]], tmp_path: Path) -> None:
    """Two hundred deaths, each service's far enough apart not to be flapping."""
    names = [f"service{number}" for number in range(40)]
    supervise(json.dumps({name: ["sleep", "600"] for name in names}))
    wait_for_lines(tmp_path / "log", "started as process", len(names))
    chance = random.Random(5)
    for _ in range(5):
        for name in chance.sample(names, len(names)):
            record = json.loads((tmp_path / "record").read_text())
            if pid := record[name]["pid"]:
                os.kill(pid, chance.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]))
        time.sleep(16)
    assert all(entry["pid"] for entry in json.loads((tmp_path / "record").read_text()).values())
