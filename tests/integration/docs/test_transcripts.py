"""The pages' transcripts are what the commands print; those with machines: tests/e2e/test_first_light.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.workspace import REPOSITORY
from tests.fakes.transcripts import PAGES, differences, make_person, missing_lines, readme_transcript, steps_of

WITH_STEPS = [page for page in PAGES if steps_of(page.read_text(), "host")]


@pytest.mark.parametrize("page", WITH_STEPS, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_the_commands_print_what_the_page_says(page: Path, tmp_path: Path) -> None:
    person = make_person(tmp_path)
    for step in steps_of(page.read_text(), "host"):
        seen = person.types(step.command, timeout=60)
        assert not (fault := differences(step.output, seen)), f"{page.name}, line {step.line}, {step.command}\n{fault}"


def test_the_tutorials_lab_is_as_it_says(tmp_path: Path) -> None:
    """The file that its reader writes, and what `lab.diff` says of it; bringing it up is tests/e2e/test_lab_yaml.py."""
    page = (REPOSITORY / "docs/tutorial/lab-yaml.md").read_text()
    person = make_person(tmp_path)
    (person.folder / "lab.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    person.types("mkdir img && qemu-img create -q -f qcow2 img/cloud.qcow2 2G", timeout=60)
    (step,) = steps_of(page, "tutorial")
    assert not (fault := differences(step.output, person.types(step.command, timeout=60))), fault


def test_there_are_such_pages() -> None:
    assert len(WITH_STEPS) >= 3


PAGE = """
<!-- run: host -->
```console
$ echo one
one
$ printf 'a\\nb\\n'; echo c
a
...
```

<!-- run: first-light -->
```
$ echo two
```

```
$ not run
```
"""


def test_blocks_are_found_with_their_lines() -> None:
    assert [(step.line, step.command, step.output) for step in steps_of(PAGE, "host")] == [
        (4, "echo one", "one\n"), (6, "printf 'a\\nb\\n'; echo c", "a\n...\n"),
    ]  # fmt: skip
    assert [step.command for step in steps_of(PAGE, "first-light")] == ["echo two"]


@pytest.mark.parametrize(
    ("expected", "seen"),
    [("a\n", "a\n"), ("", ""), ("a  b\n", "a      b   \n"), ("took ... s\n", "took 1.23 s\n"),
     ("a\n...\nz\n", "a\nb\nc\nz\n"), ("...\n", ""), ("a (b) [c] $d\n", "a (b) [c] $d\n")],
)  # fmt: skip
def test_what_is_the_same(expected: str, seen: str) -> None:
    assert differences(expected, seen) == ""


@pytest.mark.parametrize(
    ("expected", "seen"),
    [("a\n", "b\n"), ("a\n", ""), ("", "a\n"), ("a\n", "a\nb\n"), ("a b\n", "a  b\n"), ("took ... s\n", "took\n1 s\n")],
)
def test_what_differs(expected: str, seen: str) -> None:
    assert differences(expected, seen)


def test_a_page_that_is_wrong_is_found(tmp_path: Path) -> None:
    person = make_person(tmp_path)
    assert person.types("echo ~; echo two >&2", timeout=10) == "/home/you\ntwo\n"
    assert differences("one\n", person.types("echo two", timeout=10))


def test_the_readmes_transcript_is_found_and_compared() -> None:
    first, again = readme_transcript()
    assert (first.command, again.command) == ("./pvmlab up", "./pvmlab up")
    assert missing_lines(first.output, first.output) == []
    slower = first.output.replace(" 10 %", " 17 %").replace("(tcg)", "(kvm)").replace("[ 141.1 s]", "[  41.1 s]")
    assert missing_lines(first.output, f"more\n{slower}and more\n") == []
    assert missing_lines(first.output, first.output.replace("SSH answers", "SSH is silent"))
    assert missing_lines("a\nb\n", "b\na\n") == ["b"]
