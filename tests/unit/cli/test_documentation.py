"""The documentation names verbs and options that exist, and files that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke import Collection, Context, task

from cli.reference import render_reference
from pipeline.workspace import REPOSITORY
from tests.fakes.fresh_verbs import fresh_verbs

PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "cache/README.md"]
PLACEHOLDERS = {"VERB", "__complete"}  # the second is what shells ask, no verb


def command_faults(text: str, verbs: Collection) -> Iterator[str]:
    """Find ``./pvmlab`` command lines that would be refused."""
    for line in re.findall(r"\./pvmlab((?:[ \t]+[\w.<>-]+)*)", text):
        words = line.split()
        if "--" in words:
            words = words[: words.index("--")]
        if not words or words[0].startswith("-") or words[0] in PLACEHOLDERS:
            continue
        if words[0] not in verbs.task_names:
            yield f"no verb {words[0]!r}"
            continue
        context = next(c for c in verbs.to_contexts() if c.name == words[0] or words[0] in c.aliases)
        known = {*context.flags, "--help", "--debug"}
        yield from (f"{words[0]} has no option {word}" for word in words if word.startswith("-") and word not in known)


def link_faults(page: Path, text: str) -> Iterator[str]:
    """Find relative links that lead nowhere."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target and not (page.parent / target).exists():
            yield f"link to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_pages_are_true(page: Path) -> None:
    text = page.read_text()
    faults = [*command_faults(text, fresh_verbs()), *link_faults(page, text)]
    assert not faults, "\n".join(faults)


def test_the_reference_of_verbs_is_up_to_date() -> None:
    page = REPOSITORY / "docs/reference/verbs.md"
    assert page.read_text() == render_reference(fresh_verbs()), (
        "make it again: .venv/bin/python -m cli.reference >docs/reference/verbs.md"
    )


@task(name="up", auto_shortflags=False)
def _up(c: Context, name: str = "") -> None:
    """Up."""


@pytest.mark.parametrize("text", ["`./pvmlab upp`", "./pvmlab up --nmae x", "run ./pvmlab down --force"])
def test_wrong_commands_are_found(text: str) -> None:
    assert list(command_faults(text, Collection(_up)))


@pytest.mark.parametrize(
    "text", ["./pvmlab", "./pvmlab up", "./pvmlab up --name x -- ls --all", "./pvmlab VERB --help"]
)
def test_right_commands_pass(text: str) -> None:
    assert not list(command_faults(text, Collection(_up)))


def test_dead_links_are_found(tmp_path: Path) -> None:
    assert list(link_faults(tmp_path / "a.md", "[b](b.md#part)")) == ["link to b.md"]
