"""The real ``doit`` on a pseudo-terminal and on pipes, with recipes that tell their progress."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pytest

from pipeline.run import PIPE, Popen, spawn
from pipeline.workspace import REPOSITORY

DODO = REPOSITORY / "tests/fakes/progress_dodo.py"
WIDTH = 100


def doit(*arguments: str, python: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "doit", "--file", str(DODO), *arguments]


def environment(root: Path, **variables: str) -> dict[str, str]:
    return {
        "TOY_CACHE": str(root / "cache"), "TOY_SECONDS": "0", "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color",
        **variables,
    }  # fmt: skip


class Terminal:
    """A program on a pseudo-terminal, and what it wrote there."""

    def __init__(self, root: Path, *arguments: str, python: tuple[str, ...] = (), **variables: str) -> None:
        self._reading, writing = os.openpty()
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        with os.fdopen(writing, "wb") as stream:
            self.process: Popen[bytes] = spawn(
                doit(*arguments, python=python), env=environment(root, **variables), cwd=root, stdout=stream,
                stderr=stream,
            )  # fmt: skip
        self.written = b""

    def read_until(self, text: bytes) -> None:
        """Read until *text* comes."""
        deadline = time.monotonic() + 30
        while text not in self.written:
            assert time.monotonic() < deadline
            assert self._read(), self.written

    def read_all(self) -> str:
        """Read to the program's end and return everything."""
        while self._read():
            pass
        os.close(self._reading)
        self.process.wait(timeout=30)
        return self.written.decode()

    def _read(self) -> bytes:
        try:
            data = os.read(self._reading, 65536)
        except OSError as error:  # the other side is closed: Linux says so with an error
            assert error.errno == errno.EIO  # noqa: PT017
            data = b""
        self.written += data
        return data


def screen(written: str) -> list[str]:
    """Return the lines a terminal shows at last, for the control sequences we expect; any other fails."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", token):
            row -= int(token[2:-1] or 1)
        elif not token.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
        else:
            assert re.fullmatch(r"\x1b\[([\d;]*m|\?25[lh])", token), token
    return "\n".join(line.rstrip() for line in lines).rstrip().split("\n")


def test_a_terminal_shows_what_runs_and_keeps_what_has_happened(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "-n", "2", "toy:kernel", "toy:modules", TOY_SECONDS="2.4")
    written = terminal.read_all()
    assert terminal.process.returncode == 0, written
    plain = re.sub(r"\x1b\[[\d;]*m", "", written)
    table = r"toy:kernel +fetching packages +\S+ +\d+ of 118 MiB +[\d.]+ MiB/s +0:0\d left"
    assert re.search(table, plain)
    assert re.search(table.replace("kernel", "modules"), plain)
    assert "0 of 2 artifacts, 2 running" in plain
    shown = screen(written)
    assert re.fullmatch(r"2 built, after \d+\.\d s", shown.pop())
    assert all(re.fullmatch(r"\[ +\d+\.\d s\] (building|built) +toy:.*", line) for line in shown), shown
    assert {line.split()[4] for line in shown if " built " in line} == {"toy:kernel", "toy:modules"}
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h"), "the cursor is back"


def test_a_failure_is_the_last_thing_on_the_screen(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "-n", "2", "--continue", TOY_FAILS="modules", TOY_SECONDS="0.2")
    shown = screen(terminal.read_all())
    assert terminal.process.returncode == 1
    last = shown[next(number for number, line in enumerate(shown) if line.startswith("1 failed")) :]
    assert re.fullmatch(r"1 failed, 2 built, after \d+\.\d s", last[0])
    assert last[1:4] == [
        "error: tar failed with exit status 2", "  task: toy:modules",
        "  command: tar --extract --file 'no such archive'",
    ]  # fmt: skip
    assert "  | reading the archive" in last
    assert last[-2:] == [f"  log: {tmp_path / 'cache/logs/toy.modules.log'}", "  repeat: doit toy:modules"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("parallel", [(), ("-n", "2")])
def test_an_interrupt_gives_the_terminal_back(
    tmp_path: Path, number: signal.Signals, parallel: tuple[str, ...]
) -> None:
    terminal = Terminal(tmp_path, *parallel, TOY_SECONDS="1.5")
    terminal.read_until(b"running")
    terminal.process.send_signal(number)
    written = terminal.read_all()
    assert terminal.process.returncode == 130
    assert "Traceback" not in written
    assert screen(written)[-1] == "interrupted; what was built stays, the next run carries on"
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_a_dumb_terminal_and_a_wish_for_plain_lines_get_no_control_sequence(tmp_path: Path) -> None:
    dumb = Terminal(tmp_path, "-n", "2", TERM="dumb").read_all()
    plain = Terminal(tmp_path, "-n", "2", "--always-execute", PVMLAB_OUTPUT="plain").read_all()
    for written in (dumb, plain):
        assert "\x1b" not in written
        assert "4 built, after" in written


def test_no_color_leaves_the_table_and_takes_the_colours(tmp_path: Path) -> None:
    written = Terminal(tmp_path, TOY_SECONDS="0.3", NO_COLOR="1").read_all()
    assert "artifacts, 1 running" in written
    assert not re.search(r"\x1b\[(\d+;)*[34][0-8](;\d+)*m", written)


def test_rich_is_not_even_imported_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    Terminal(tmp_path).read_all()
    written = Terminal(tmp_path, python=("-X", "importtime")).read_all()
    assert "all 4 artifacts are up to date" in written
    assert "pipeline.reporting.live_view" in written, "imports are listed"
    assert not re.search(r"\| +rich\b", written)


def test_ndjson_is_all_there_is_on_standard_output(tmp_path: Path) -> None:
    command = doit("-n", "2", "--continue")
    variables = environment(tmp_path, PVMLAB_OUTPUT="json", TOY_FAILS="rootfs")
    process = spawn(command, env=variables, cwd=tmp_path, stdout=PIPE, stderr=PIPE)
    out, err = process.communicate(timeout=60)
    assert err == b""
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["event"] == "run_started"
    assert (events[-1]["event"], events[-1]["outcome"]) == ("run_finished", "failed")
    (failed,) = (event for event in events if event["event"] == "task_failed")
    assert failed["failure"]["command"] == "tar --extract --file 'no such archive'"
    assert failed["failure"]["tail"][0] == "reading the archive"
    assert process.returncode == failed["failure"]["exit_code"] == 1


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_build_goes_on_when_its_reader_goes(tmp_path: Path, output: str) -> None:
    variables = environment(tmp_path, PVMLAB_OUTPUT=output, TOY_SECONDS="0.2")
    process = spawn(doit("-n", "2"), env=variables, cwd=tmp_path, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()  # `| head -1`
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "cache/image").read_text() == "whole"
