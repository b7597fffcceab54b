"""Real processes: what is reported when they fail, and that none outlives its caller."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import CommandError, ExitCode, MissingProgramError
from pipeline.run import end_all, resume, run


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_ended(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def test_output_and_input() -> None:
    assert run(["cat"], timeout=5, input="hello\n").stdout == "hello\n"


def test_a_child_gets_a_small_environment_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("https_proxy", "http://p.invalid")
    environment = run(["env"], timeout=5).stdout
    assert "SECRET_TOKEN" not in environment
    assert "https_proxy" not in environment
    assert "LC_ALL=C.UTF-8" in environment
    assert "https_proxy=http://p.invalid" in run(["env"], timeout=5, network=True).stdout
    assert run(["cat"], timeout=5).stdout == ""


def test_a_failure_names_the_command_the_status_and_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "for i in $(seq 99); do echo line $i; done; exit 3"], timeout=5, log=log)
    error = caught.value
    assert error.brief == "sh failed with exit status 3"
    assert error.returncode == 3
    assert error.tail[-1] == "line 99"
    assert len(error.tail) == 25
    assert "command: sh -c 'for i in" in error.details
    assert f"log: {log}" in error.details
    assert log.read_text().startswith("line 1\n")


def test_a_signal_is_named() -> None:
    with pytest.raises(CommandError, match="sh was ended by signal 9"):
        run(["sh", "-c", "kill -9 $$"], timeout=5)


def test_a_missing_program_says_what_installs_it() -> None:
    with pytest.raises(MissingProgramError) as caught:
        run(["no-such-program-here"], timeout=5)
    assert caught.value.exit_code is ExitCode.PREREQUISITE
    assert "./pvmlab setup" in caught.value.resolution


def test_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(CommandError, match=r"sh did not end within 0\.5 s") as caught:
        run(["sh", "-c", f"sleep 60 & echo $! > {pids}; echo started >&2; wait"], timeout=0.5)
    assert caught.value.tail == ("started",)
    assert wait_until_ended(int(pids.read_text()))


def test_ctrl_c_ends_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", f"sleep 60 & echo $! > {pids}; wait"], timeout=30)
    timer.join()
    assert wait_until_ended(int(pids.read_text()))


def test_the_main_thread_can_end_what_others_wait_for() -> None:
    failures: list[CommandError] = []

    def work() -> None:
        try:
            run(["sleep", "60"], timeout=90)
        except CommandError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    end_all()
    try:
        thread.join(timeout=5)
        assert not thread.is_alive()
        with pytest.raises(CommandError, match="sleep was ended by signal 15"):
            run(["sleep", "60"], timeout=90)
        assert run(["echo", "cleaned"], timeout=5, cleanup=True).stdout == "cleaned\n"
    finally:
        resume()
    assert failures[0].returncode == -signal.SIGTERM
    assert run(["echo", "again"], timeout=5).stdout == "again\n"


def test_what_a_watch_raises_ends_the_program(tmp_path: Path) -> None:
    pids: list[int] = []

    def watch() -> None:
        pids.append(int((tmp_path / "pid").read_text()))
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        run(["sh", "-c", f"echo $$ > {tmp_path}/pid; echo early; exec sleep 60"], timeout=60, watch=watch)
    assert wait_until_ended(pids[0])


def test_a_watched_program_loses_no_output_and_keeps_its_timeout() -> None:
    asked: list[int] = []
    text = run(
        ["sh", "-c", "cat; sleep 0.7; echo late"], timeout=10, input="early\n", watch=lambda: asked.append(1)
    ).stdout
    assert (text, bool(asked)) == ("early\nlate\n", True)
    with pytest.raises(CommandError, match=r"did not end within 0\.8 s"):
        run(["sleep", "60"], timeout=0.8, watch=lambda: None)
