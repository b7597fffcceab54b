"""The verbs of tasks.py, as far as they go without starting anything."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tasks
from cli import program
from cli.confirm import require_yes
from lab.lab import Lab
from pipeline.errors import ConflictError, UsageError
from tests.fakes.fresh_verbs import fresh_verbs

Verb = Callable[..., int]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "home"


@pytest.fixture
def verb(home: Path) -> Iterator[Verb]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield lambda *words: program.run(tasks.namespace, ["pvmlab", *words])
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_every_verb_and_argument_has_help() -> None:
    namespace = fresh_verbs()
    for name in namespace.task_names:
        assert namespace[name].__doc__, name
        assert all(argument.help for argument in namespace[name].get_arguments()), name


def test_names_of_verbs_are_the_documented_ones() -> None:
    assert sorted(tasks.namespace.task_names) == [
        "build", "cache.export", "cache.import", "cache.list", "cache.prune", "cache.verify", "clean", "completion",
        "config.show", "distro.add", "distro.ls", "distro.pull", "distro.remove", "distro.show", "doctor", "down",
        "explain", "gc", "lab.diff", "lab.down", "lab.status", "lab.up", "lint", "net.create", "net.list", "net.remove",
        "net.show", "net.status", "provisioner.create", "provisioner.docker.logs", "provisioner.docker.shell",
        "provisioner.docker.start", "provisioner.docker.status", "provisioner.docker.stop", "provisioner.start",
        "provisioner.stop", "render", "setup", "status", "test", "up", "vm.adopt", "vm.clean", "vm.clone", "vm.console",
        "vm.copy", "vm.create", "vm.events", "vm.forward", "vm.list", "vm.logs", "vm.reinstall", "vm.restart",
        "vm.restore", "vm.run", "vm.screenshot", "vm.set", "vm.shell", "vm.show", "vm.snapshot", "vm.snapshots",
        "vm.start", "vm.stop",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("vm.start", "nope"),
        ("vm.stop", "nope"),
        ("vm.shell", "nope"),
        ("vm.logs", "nope"),
        ("vm.clean", "nope", "--yes"),
        ("vm.restart", "nope"),
        ("vm.show", "nope"),
        ("vm.run", "nope", "--", "true"),
        ("vm.copy", "nope:a", "b"),
        ("vm.console", "nope"),
        ("vm.screenshot", "nope"),
        ("vm.forward", "nope"),
        ("vm.clone", "nope", "web2"),
        ("vm.snapshot", "nope", "one"),
        ("vm.restore", "nope", "one", "--yes"),
        ("vm.snapshots", "nope"),
    ],
)
def test_unknown_machine_is_exit_code_3(verb: Verb, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert verb(*words) == 3
    assert "there is no machine 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("build", "--jobs", "0"), "--jobs is 1 or more"),
        (("build", "--output", "xml"), "--output 'xml' is unknown"),
        (("explain", "--output", "xml"), "--output 'xml' is unknown"),
        (("vm.create", "Web_1"), "'Web_1' is not a machine name"),
        (("vm.create", "web1", "--arch", "sparc"), "--arch 'sparc' is unknown"),
        (("vm.create", "web1", "--disk-bus", "ide"), "--disk-bus 'ide' is unknown"),
        (("vm.create", "web1", "--memory", "much"), "--memory 'much' is not a size"),
        (("vm.create", "web1", "--cpus", "two"), "--cpus wants a whole number"),
        (("vm.logs", "provisioner", "--which", "odd"), "--which 'odd' is unknown"),
        (("vm.list", "--output", "xml"), "--output 'xml' is unknown"),
        (("up", "--name", "No Name"), "'No Name' is not a machine name"),
        (("vm.show", "provisioner"), "the provisioner is no target machine"),
        (("vm.run", "--", "true"), "on which machines?"),
        (("vm.run", "--all"), "which command?"),
        (("vm.run", "--all", "--jobs", "0", "--", "true"), "--jobs and --timeout are 1 or more"),
        (("vm.run", "--all", "--output", "xml", "--", "true"), "--output 'xml' is unknown"),
        (("vm.copy", "a", "b"), "one of the two paths has to be a machine's, and none is"),
        (("vm.console", "provisioner"), "a console wants a terminal"),
        (("vm.start", "web1", "--interactive"), "a console wants a terminal"),
        (("vm.start", "web1", "--interactive", "--wait"), "--wait and --interactive"),
        (("vm.forward", "web1", "x"), "'x' is no forward"),
        (("vm.clone", "web1", "No Name"), "'No Name' is not a machine name"),
        (("clean",), "--yes says yes"),
    ],
)
def test_words_without_sense_are_exit_code_2(
    verb: Verb,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr("cli.setup.setup", lambda *, for_tests: None)
    assert verb(*words) == 2
    assert message in capsys.readouterr().err


def test_unknown_distribution_is_exit_code_3_and_known_ones_are_named(
    verb: Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("vm.create", "web1", "--distro", "beos") == 3
    assert "debian-12, debian-13" in capsys.readouterr().err


def test_machine_that_is_off_cannot_be_entered(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("vm.shell", "provisioner") == 4
    assert "provisioner is off\n  what to do: ./pvmlab provisioner.start" in capsys.readouterr().err


def test_stop_of_what_is_off_is_fine(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("provisioner.stop") == 0
    assert "provisioner: already off" in capsys.readouterr().err


def test_list_as_json_is_one_document(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("vm.list", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "machines": []}


def test_list_shows_a_broken_definition(verb: Verb, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "vms").mkdir(parents=True)
    (home / "vms/web1.json").write_text("{}")
    assert verb("vm.list") == 0
    assert "web1  off    broken definition: document: missing key" in capsys.readouterr().out


def test_logs_print_without_control_sequences(verb: Verb, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "logs").mkdir(parents=True)
    (home / "logs/provisioner.serial.log").write_bytes(b"\x1b[1mhello\x1b[0m\r\n")
    assert verb("vm.logs", "provisioner") == 0
    assert capsys.readouterr().out == "hello\n"


def test_looking_makes_nothing(verb: Verb, home: Path) -> None:
    verb("vm.list")
    verb("provisioner.stop")
    assert not home.exists()


def test_interrupt_of_up_is_exit_code_130(
    verb: Verb, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_lab: Lab, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.setup.setup", lambda *, for_tests: None)
    monkeypatch.setattr("lab.journey.up", interrupted)
    assert verb("up") == 130
    assert "the same command again carries on" in capsys.readouterr().err


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_yes_on_a_terminal_is_yes(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    require_yes("All gone?", yes=False)


@pytest.mark.parametrize("answer", ["\n", "n\n", "", "yesterday\n"])
def test_anything_else_on_a_terminal_is_no(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    with pytest.raises(ConflictError, match="nothing was done"):
        require_yes("All gone?", yes=False)


def test_without_a_terminal_only_the_option_says_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError):
        require_yes("All gone?", yes=False)
    require_yes("All gone?", yes=True)


@pytest.mark.parametrize("words", [("explain", "ipxx"), ("build", "ipxx", "--dry-run"), ("build", "ipxx")])
def test_unknown_task_is_exit_code_3_and_a_near_one_is_named(
    verb: Verb, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert verb(*words) == 3
    error = capsys.readouterr().err
    assert "there is no task 'ipxx'" in error
    assert "did you mean ipxe?" in error


def test_a_dry_run_says_what_would_run_and_why_and_makes_nothing(
    verb: Verb, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = home.with_name("cache")
    assert verb("build", "modules:debian-12:x86_64", "--dry-run", "--output", "json") == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert steps[-1] == {
        "task": "modules:debian-12:x86_64",
        "verdict": "would run",
        "reasons": ["images/debian-12/x86_64/modules.cpio.gz is not built"],
        "expected_seconds": None,
    }
    assert [step["task"] for step in steps][:2] == ["snapshot:bookworm:x86_64", "packages:debian-12:x86_64"]
    assert {path.name for path in cache.iterdir()} <= {".state.db", ".state.db-wal", ".state.db-shm"}
