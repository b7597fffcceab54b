"""doit's own runs, in this process, told by the reporter: real tasks, threads and failures."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from pipeline.artifact import Artifact, Making
from pipeline.engine.reporter import CommandLineReporter, Reporter
from pipeline.engine.settings import doit_settings
from pipeline.errors import ChecksumError, ExitCode, NotFoundError
from pipeline.graph import Graph
from pipeline.progress import Progress
from pipeline.workspace import Cache

Recipe = Callable[[Making], None]


def write(making: Making) -> None:
    making.report("writing", 4, 4)
    making.output.write_text("file")


def refuse(making: Making) -> None:
    making.note("looked at everything")
    raise ChecksumError("a digest is wrong", details="it is not the promised one", resolution="try another mirror")


def stumble(_making: Making) -> None:
    raise ZeroDivisionError("by nothing")


def be_interrupted(_making: Making) -> None:
    raise KeyboardInterrupt


class Build:
    """A cache with a graph of little artifacts, and doit to build them."""

    def __init__(self, root: Path) -> None:
        self.cache = Cache(root / "cache")
        self.recipes: dict[str, Recipe] = {}
        self.needs: dict[str, tuple[str, ...]] = {}
        self.reporter: Reporter | None = None
        self.exit_code = 0

    def add(self, name: str, make: Recipe = write, *, needs: tuple[str, ...] = ()) -> None:
        self.recipes[name], self.needs[name] = make, needs

    def artifact(self, name: str) -> Artifact:
        inputs = tuple(self.cache.root / need for need in self.needs[name])
        target = self.cache.root / name
        return Artifact(
            name=f"toy:{name}", doc=name, cache=self.cache, targets=(target,), inputs=inputs, make=self.recipes[name]
        )  # fmt: skip

    def run(self, *arguments: str, kind: type[Reporter] = Reporter, **settings: Any) -> str:
        """Run doit; return what was told."""
        stream, build, graph = io.StringIO(), self, Graph(map(self.artifact, self.recipes))

        class Told(kind):  # type: ignore[misc, valid-type]
            def __init__(self, _outstream: object, options: dict[str, Any]) -> None:
                for name, value in settings.items():
                    setattr(self, name, value)
                super().__init__(stream, options)
                build.reporter = self

        Told.cache = self.cache
        self.cache.root.mkdir(exist_ok=True)
        namespace = {"DOIT_CONFIG": doit_settings(self.cache, Told), "task_toy": lambda: graph.tasks("toy")}
        try:
            self.exit_code = DoitMain(ModuleTaskLoader(namespace)).run(["run", *arguments])
        except SystemExit as ending:
            self.exit_code = int(ending.code or 0)
        return stream.getvalue()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def without_times(text: str) -> str:
    return re.sub(r"\d+\.\d s", "0.0 s", text)


def test_a_build_is_told_from_the_reason_to_the_size(build: Build) -> None:
    build.add("a")
    build.add("b", needs=("a",))
    assert without_times(build.run()) == (
        "[   0.0 s] building   toy:a  (a is not built)\n"
        "[   0.0 s] progress   toy:a  writing: 100 %, 4 of 4 B\n"
        "[   0.0 s] built      toy:a  0.0 s, 4 B\n"
        "[   0.0 s] building   toy:b  (b is not built)\n"
        "[   0.0 s] progress   toy:b  writing: 100 %, 4 of 4 B\n"
        "[   0.0 s] built      toy:b  0.0 s, 4 B\n"
        "2 built, after 0.0 s\n"
    )
    assert build.run() == "all 2 artifacts are up to date\n"
    assert build.reporter is not None
    assert build.reporter.up_to_date == ["toy:a", "toy:b"]


def test_a_failure_comes_last_and_tells_how_to_repeat_it(build: Build) -> None:
    build.add("a", refuse)
    build.add("b", needs=("a",))
    build.add("c")
    assert without_times(build.run("--continue", "toy:a", "toy:b", "toy:c")).endswith(
        "[   0.0 s] failed     toy:a  after 0.0 s\n"
        "[   0.0 s] skipped    toy:b  (needs toy:a)\n"
        "[   0.0 s] building   toy:c  (c is not built)\n"
        "[   0.0 s] progress   toy:c  writing: 100 %, 4 of 4 B\n"
        "[   0.0 s] built      toy:c  0.0 s, 4 B\n"
        "1 failed, 1 built, after 0.0 s\n"
        "error: a digest is wrong\n"
        "  task: toy:a\n"
        "  it is not the promised one\n"
        "  | looked at everything\n"
        f"  log: {build.cache.logs / 'toy.a.log'}\n"
        "  what to do: try another mirror\n"
        "  repeat: doit toy:a\n"
    )


def test_several_failures_of_a_parallel_run_are_each_whole(build: Build) -> None:
    together = threading.Barrier(3, timeout=30)

    def refuse_together(making: Making) -> None:
        together.wait()
        refuse(making)

    for name in "abc":
        build.add(name, refuse_together)
    text = build.run("-n", "3", "--continue")
    footers = text[text.index("error: ") :].split("error: ")[1:]
    assert [re.findall(r"toy:(.)", footer) for footer in footers] in (
        [[*one * 2], [*two * 2], [*three * 2]]
        for one in "abc" for two in "abc" for three in "abc" if len({one, two, three}) == 3
    )  # fmt: skip
    assert all(footer.startswith("a digest is wrong\n  task: ") for footer in footers)


def test_an_exception_nobody_expected_is_called_a_fault_of_ours(build: Build) -> None:
    build.add("a", stumble)
    text = build.run()
    assert "error: toy:a failed: ZeroDivisionError: by nothing\n" in text
    assert 'raise ZeroDivisionError("by nothing")' in text
    assert "  what to do: this is a fault of pvmlab, please report it\n  repeat: doit toy:a\n" in text


def test_who_asked_for_the_run_may_tell_the_failures(build: Build) -> None:
    build.add("a", refuse)
    text = build.run(tells_failures=False)
    assert "error:" not in text
    assert "failed     toy:a" in text
    assert build.reporter is not None
    assert [type(error) for error in build.reporter.failures] == [ChecksumError]


@pytest.mark.parametrize("output", ["text", "json"])
def test_parallel_tasks_never_mix_their_lines(build: Build, output: str) -> None:
    def chatter(making: Making) -> None:
        for step in range(50):
            making.report(f"step {step} of {making.output.name}", step, 50)
        making.output.write_text("file")

    names = [f"artifact-{number}" for number in range(12)]
    for name in names:
        build.add(name, chatter)
    lines = build.run("-n", "8", output=output).splitlines()
    if output == "json":
        events = [json.loads(line) for line in lines]
        assert sum(event["event"] == "task_progressed" for event in events) == 12 * 50
        assert sorted(events[-1]["built"]) == sorted(f"toy:{name}" for name in names)
        return
    whole = re.compile(
        r"\[ +\d+\.\d s\] (building   toy:artifact-\d+  \(artifact-\d+ is not built\)"
        r"|progress   toy:(artifact-\d+)  step \d+ of \.\2\S+: (\d+ %, \d+ of )?50 B"
        r"|built      toy:artifact-\d+  \d+\.\d s, 4 B)"
    )
    assert len(lines) == 12 * 52 + 1
    assert all(whole.fullmatch(line) for line in lines[:-1]), [line for line in lines[:-1] if not whole.fullmatch(line)]
    assert lines[-1].startswith("12 built, after ")


def test_progress_after_the_end_of_a_task_is_not_told(build: Build) -> None:
    straggler: list[Making] = []

    def make(making: Making) -> None:
        straggler.append(making)
        write(making)

    build.add("a", make)
    text = build.run(output="json")
    assert build.reporter is not None
    assert straggler[0].listener is not None
    straggler[0].report("too late")
    build.reporter.progress_of("toy:unknown")(Progress(step="who is that"))
    assert "too late" not in text
    assert json.loads(text.splitlines()[-1])["event"] == "run_finished"


def test_an_interrupt_is_told_last(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_OUTPUT", "json")
    build.add("a")
    build.add("b", be_interrupted)
    text = build.run(kind=CommandLineReporter)
    assert build.exit_code == ExitCode.INTERRUPTED
    last = json.loads(text.splitlines()[-1])
    assert (last["outcome"], last["built"]) == ("interrupted", ["toy:a"])


@pytest.mark.parametrize(("error", "code"), [(ChecksumError("x"), 7), (NotFoundError("x"), 3)])
def test_the_command_exits_with_the_code_of_the_first_failure(build: Build, error: Exception, code: int) -> None:
    def fail(_making: Making) -> None:
        raise error

    build.add("a", fail)
    build.run(kind=CommandLineReporter)
    assert build.exit_code == code


def test_a_cache_that_cannot_be_had_is_told_like_any_failure(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_WAIT_LOCK", "soon")
    build.add("a")
    text = build.run(kind=CommandLineReporter)
    assert text.startswith("error: PVMLAB_WAIT_LOCK is 'soon'\n")
    assert build.exit_code == ExitCode.USAGE
    assert not (build.cache.root / "a").exists()


def test_an_output_that_nobody_knows_is_refused(
    build: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PVMLAB_OUTPUT", "xml")
    build.add("a")
    build.run(kind=CommandLineReporter)
    assert build.exit_code == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("error: PVMLAB_OUTPUT is 'xml'\n")
