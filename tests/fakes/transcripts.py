"""Transcripts in the documentation that are run, so that they stay true.

A block that follows a line ``<!-- run: host -->`` is run in a lab of the page's own, without machines; one that follows
``first-light`` in the lab of the end-to-end tests, when ``up`` has just brought up target1::

    <!-- run: host -->
    ```console
    $ ./pvmlab vm.list
    NAME  STATE  ...
    ```

Lines that begin with ``$`` are commands, each for a bash of its own; what follows is what it prints, to either stream.
``...`` in a line stands for anything, a line of nothing else for any lines. Several blanks are as good as two: columns
are as wide as what is in them.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.run import run
from pipeline.workspace import REPOSITORY

PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
_BLOCK = re.compile(r"^<!-- run: (?P<where>[\w-]+) -->\n```\w*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PERSON = "/home/you"


@dataclasses.dataclass(frozen=True)
class Step:
    """A command, and what it shall print. :ivar line: of the page, for people."""

    line: int
    command: str
    output: str


def steps_of(text: str, where: str) -> list[Step]:
    """Return the commands in the blocks of a page that are to be run *where*, in their order."""
    return list(_steps(text, where))


def _steps(text: str, where: str) -> Iterator[Step]:
    for block in _BLOCK.finditer(text):
        if block["where"] != where:
            continue
        line = text.count("\n", 0, block.start("text"))
        for part in re.split(r"^(?=\$ )", block["text"], flags=re.MULTILINE):
            if part.startswith("$ "):
                command, _, output = part.removeprefix("$ ").partition("\n")
                yield Step(line + 1, command, output)
            line += part.count("\n")


def differences(expected: str, seen: str) -> str:
    """Return how *seen* is other than *expected*; nothing if it is not."""
    pattern = "".join(map(_pattern, expected.splitlines()))
    if re.fullmatch(pattern, _even(seen)):
        return ""
    return f"expected:\n{expected}\nseen:\n{seen}"


def _pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:[^\n]*\n)*?"
    return ".*?".join(re.escape(part) for part in _even(line).rstrip("\n").split("...")) + r"[ ]*\n"


def _even(text: str) -> str:
    return "".join(re.sub(r"  +", "  ", line.rstrip()) + "\n" for line in text.splitlines())


def readme_transcript() -> list[Step]:
    """Return the commands of the README's transcript, which leaves lines out."""
    text = PAGES[0].read_text()
    begin, end = text.index("<!-- transcript:begin -->"), text.index("<!-- transcript:end -->")
    return steps_of(re.sub(r".*?```", "<!-- run: readme -->\n```", text[begin:end], count=1, flags=re.DOTALL), "readme")


def missing_lines(expected: str, seen: str) -> list[str]:
    """Return the lines of *expected* that *seen* does not have, in that order; numbers, and what is in brackets, may
    differ: times, percentages, and why guests run as they do.
    """
    left = iter([_vague(line) for line in seen.splitlines()])
    return [line for line in expected.splitlines() if _vague(line) not in left]


def _vague(line: str) -> str:
    return re.sub(r"\d+(?:\.\d+)?", "#", re.sub(r"\(.*?\)", "()", re.sub(r"^\[.*?\]", "[]", line))).strip()


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody who types. :ivar folder: with ``pvmlab`` in it. :ivar variables: of the environment."""

    folder: Path
    variables: Mapping[str, str]

    def types(self, command: str, *, timeout: float) -> str:
        """Return what *command* prints, with the person's folder called ``/home/you``."""
        done = run(
            ["bash", "-c", f"exec 2>&1\n{command}"], timeout=timeout, check=False, cwd=self.folder, network=True,
            env={"HOME": str(self.folder), **self.variables},
        )  # fmt: skip
        return done.stdout.replace(str(self.folder), _PERSON)


def make_person(folder: Path, *, home: Path | None = None, cache: str = "") -> Person:
    """Return a person in *folder*, with a lab in ``~/.pvmlab``, or in *home*."""
    (folder / "pvmlab").symlink_to(REPOSITORY / "pvmlab")
    variables = {"PVMLAB_CACHE": cache or str(folder / "cache")} | ({"PVMLAB_HOME": str(home)} if home else {})
    return Person(folder, variables)


def main(pages: list[str]) -> None:
    """Print what the commands of *pages* for the host print now."""
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            person = make_person(Path(folder))
            for step in steps_of(Path(page).read_text(), "host"):
                print(f"$ {step.command}\n{person.types(step.command, timeout=60)}", end="")  # noqa: T201


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
