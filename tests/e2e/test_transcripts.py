"""The transcripts of pages that need machines, typed in the lab of the end-to-end tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.workspace import REPOSITORY
from tests.e2e.command_line import UP_TIMEOUT, CommandLine
from tests.fakes.transcripts import PAGES, differences, make_person, steps_of

pytestmark = pytest.mark.vm
WITH_STEPS = [page for page in PAGES if steps_of(page.read_text(), "vm")]


@pytest.mark.parametrize("page", WITH_STEPS, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_the_commands_print_what_the_page_says(page: Path, lab: CommandLine, tmp_path: Path) -> None:
    person = make_person(tmp_path, home=lab.home, cache=os.environ.get("PVMLAB_CACHE", ""))
    for step in steps_of(page.read_text(), "vm"):
        seen = person.types(step.command, timeout=UP_TIMEOUT).replace(str(lab.home), "/home/you/.pvmlab")
        assert not (fault := differences(step.output, seen)), f"{page.name}, line {step.line}, {step.command}\n{fault}"
