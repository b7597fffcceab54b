"""The command line: help, exit codes and messages."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from invoke import Collection, Context, Exit, task

from cli import program
from pipeline.errors import ConflictError, ExitCode, NotFoundError

Run = Callable[..., int]


@pytest.fixture
def seen() -> list[object]:
    """What the verbs were called with."""
    return []


@pytest.fixture
def raised() -> list[BaseException]:
    """What the verb ``fail`` raises."""
    return []


@pytest.fixture
def run(seen: list[object], raised: list[BaseException]) -> Iterator[Run]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    namespace = _verbs(seen, raised)
    yield lambda *words: program.run(namespace, ["pvmlab", *words])
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _verbs(seen: list[object], raised: list[BaseException]) -> Collection:
    @task(positional=["name"], auto_shortflags=False, help={"name": "The machine", "cpus": "How many"})
    def start(c: Context, name: str, cpus: int = 2, wait: bool = False) -> None:
        """Start a machine.

        And more about it.
        """
        seen.append((name, cpus, wait, c.remainder))

    @task(auto_shortflags=False)
    def up(c: Context) -> None:
        """Bring all up."""
        seen.append("up")

    @task(auto_shortflags=False)
    def fail(c: Context, output: str = "table") -> None:
        """Raise what the test wants."""
        raise raised[0]

    @task(positional=[], iterable=["task"], auto_shortflags=False, help={"task": "Which", "jobs": "How many"})
    def build(c: Context, task: list[str], jobs: int = 2, dry: bool = False) -> None:
        """Build tasks."""
        seen.append((task, jobs, dry))

    @task(positional=[], iterable=["name", "label"], auto_shortflags=False, help={"name": "Where", "label": "With"})
    def many(c: Context, name: list[str], label: list[str], jobs: int = 2) -> None:
        """Do it on many machines."""
        seen.append((name, label, jobs))

    @task(positional=["name"], iterable=["ip", "mac"], auto_shortflags=False)
    def make(c: Context, name: str, ip: list[str], mac: list[str]) -> None:
        """Make one."""
        seen.append((name, ip, mac))

    @task(positional=[], iterable=["name"], auto_shortflags=False)
    def several(c: Context, name: list[str], jobs: int = 2) -> None:
        """Do it on several machines."""
        seen.append((name, jobs, c.remainder))

    @task(positional=["name"], iterable=["port"], auto_shortflags=False)
    def lead(c: Context, name: str, port: list[str]) -> None:
        """Lead ports to one."""
        seen.append((name, port))

    return Collection(up, fail, build, many, make, several, lead, vm=Collection(start=start))


def test_alone_it_lists_the_verbs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == ExitCode.DONE
    out = capsys.readouterr().out
    assert "./pvmlab up" in out
    assert "vm.start   Start a machine." in out


@pytest.mark.parametrize(
    "words",
    [["vm.start", "--help"], ["vm.start", "-h"], ["--help", "vm.start"], ["vm.start", "web1", "--help"],
     ["vm.start", "--cpus", "3", "--help"], ["help", "vm.start"]],
)  # fmt: skip
def test_help_of_a_verb_with_a_positional(
    run: Run, seen: list[object], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run(*words) == ExitCode.DONE
    out = capsys.readouterr().out
    assert out.startswith("Usage: ./pvmlab vm.start NAME [OPTIONS]\n\nStart a machine.\n\nAnd more about it.\n")
    assert "--cpus=INT   How many (default: 2)" in out
    assert "--wait" in out
    assert "--name" not in out
    assert not seen, "help must not run the verb"


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([], ([], 2, False)),
        (["a"], (["a"], 2, False)),
        (["a", "--jobs", "3", "b", "--dry", "c"], (["a", "b", "c"], 3, True)),
        (["--jobs=3", "a:b:c", "*:d"], (["a:b:c", "*:d"], 3, False)),
        (["--task", "a", "b"], (["a", "b"], 2, False)),
    ],
)
def test_a_verb_may_take_any_number_of_words(
    run: Run, seen: list[object], words: list[str], arguments: tuple[object, ...]
) -> None:
    assert run("build", *words) == ExitCode.DONE
    assert seen == [arguments]


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["a", "b", "--jobs", "3"], (["a", "b"], [], 3)),
        (["--label", "k=1,2", "--label=l"], ([], ["k=1,2", "l"], 2)),
        (["a", "--label", "k", "b"], (["a", "b"], ["k"], 2)),
    ],
)
def test_the_words_are_the_first_argument_where_others_take_several_too(
    run: Run, seen: list[object], words: list[str], arguments: tuple[object, ...]
) -> None:
    assert run("many", *words) == ExitCode.DONE
    assert seen == [arguments]


def test_where_the_first_argument_is_one_word_a_second_is_refused(run: Run, seen: list[object]) -> None:
    assert run("make", "a", "--ip", "1", "--ip", "2") == ExitCode.DONE
    assert run("make", "a", "b") == ExitCode.USAGE
    assert seen == [("a", ["1", "2"], [])]


def test_words_of_one_verb_end_at_the_next(run: Run, seen: list[object]) -> None:
    assert run("build", "a", "b", "up") == ExitCode.DONE
    assert seen == [(["a", "b"], 2, False), "up"]


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["several", "build", "up", "--", "ls"], (["build", "up"], 2, "ls")),
        (["several", "web1", "--jobs", "3", "fail"], (["web1", "fail"], 3, "")),
        (["lead", "up", "8080:80", "81:81"], ("up", ["8080:80", "81:81"])),
    ],
)
def test_a_machine_may_be_called_like_a_verb(
    run: Run, seen: list[object], words: list[str], arguments: tuple[object, ...]
) -> None:
    assert run(*words) == ExitCode.DONE
    assert seen == [arguments]


def test_help_shows_that_a_verb_takes_any_number_of_words(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "--help") == ExitCode.DONE
    out = capsys.readouterr().out
    assert out.startswith("Usage: ./pvmlab build [TASK ...] [OPTIONS]\n")
    assert "TASK         Which" in out
    assert "--task" not in out


def test_help_shows_that_a_list_takes_a_value(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("many", "--help") == ExitCode.DONE
    assert "--label=STRING   With" in capsys.readouterr().out


def test_help_after_the_double_dash_is_for_the_machine(run: Run, seen: list[object]) -> None:
    assert run("vm.start", "web1", "--", "ls", "--help") == ExitCode.DONE
    assert seen == [("web1", 2, False, "ls --help")]


@pytest.mark.parametrize(
    ("rest", "remainder"),
    [
        (["echo $HOME; exit 3"], "echo $HOME; exit 3"),  # one word: a command line
        (["echo", "a  b", "$HOME"], "echo 'a  b' '$HOME'"),  # several: exactly these arguments
        (["echo", "--", "x"], "echo -- x"),
        ([], ""),
    ],
)
def test_words_after_the_double_dash_keep_their_boundaries(
    run: Run, seen: list[object], rest: list[str], remainder: str
) -> None:
    assert run("vm.start", "web1", "--", *rest) == ExitCode.DONE
    assert seen == [("web1", 2, False, remainder)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vm.strat", "web1"], "there is no verb 'vm.strat'; did you mean vm.start?"),
        (["--help", "upp"], "there is no verb 'upp'; did you mean up?"),
        (["vm.start"], "vm.start wants NAME"),
        (["vm.start", "web1", "web2"], "vm.start does not take 'web2'"),
        (["vm.start", "web1", "--cpsu", "3"], "unknown option --cpsu; did you mean --cpus?"),
        (["vm.start", "--forec"], "unknown option --forec"),
        (["--bad"], "unknown option --bad"),
        (["vm.start", "web1", "--cpus", "abc"], "--cpus wants a whole number, not 'abc'"),
        (["vm.start", "web1", "--cpus=abc"], "--cpus wants a whole number, not 'abc'"),
        (["vm.start", "web1", "--cpus"], "--cpus wants a value"),
    ],
)
def test_senseless_lines_are_refused(
    run: Run, seen: list[object], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(*words) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.err.startswith(f"pvmlab: error: {message}\n")
    assert captured.out == ""
    assert not seen


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (NotFoundError("there is no machine 'x'", details="known: a", resolution="./pvmlab vm.list"), 3,
         "pvmlab: error: there is no machine 'x'\n  known: a\n  what to do: ./pvmlab vm.list\n"),
        (ConflictError("it runs already"), 4, "pvmlab: error: it runs already\n"),
        (KeyboardInterrupt(), 130, "pvmlab: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/c/disk"), 1, "pvmlab: error: the disk is full (/c/disk)\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/c"), 1, "pvmlab: error: permission denied (/c)\n"),
        (OSError(errno.EROFS, "Read-only", "/c"), 1, "pvmlab: error: the file system is read-only (/c)\n"),
        (ZeroDivisionError("division by zero"), 1,
         "pvmlab: error: unexpected ZeroDivisionError: division by zero\n  what to do: this is a fault of pvmlab"),
    ],
)  # fmt: skip
def test_failures_are_one_message_and_a_code(
    run: Run, raised: list[BaseException], capsys: pytest.CaptureFixture[str],
    error: BaseException, code: int, message: str,
) -> None:  # fmt: skip
    raised.append(error)
    assert run("fail") == code
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_debug_shows_the_traceback(run: Run, raised: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    raised.append(NotFoundError("there is no machine 'x'"))
    assert run("fail", "--debug") == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--output", "json"], ["--output=json"]])
def test_with_json_the_error_is_a_document_too(
    run: Run, raised: list[BaseException], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    raised.append(NotFoundError("there is no machine 'x'", resolution="./pvmlab vm.list"))
    assert run("fail", *words) == 3
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "error": {"code": 3, "message": "there is no machine 'x'", "details": "", "hint": "./pvmlab vm.list"},
    }


def test_a_verb_may_have_an_exit_code_of_its_own(run: Run, raised: list[BaseException]) -> None:
    raised.append(Exit(code=42))
    assert run("fail") == 42


def test_sigterm_is_an_interruption(run: Run, raised: list[BaseException]) -> None:
    raised.append(AssertionError("the signal handler was not installed"))
    run("up")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_reader_that_went_away_is_no_traceback(
    run: Run, raised: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    raised.append(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert run("fail") == ExitCode.FAILED
    assert capsys.readouterr().err == ""


def test_the_version_is_the_projects(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == ExitCode.DONE
    assert capsys.readouterr().out == f"pvmlab {program.version_text()}\n"
    assert program.version_text()[0].isdigit()
