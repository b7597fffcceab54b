"""A lab of its own for the end-to-end tests: a fresh home, the shared cache of artifacts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.command_line import CommandLine, qemu_processes


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """The command line of a lab in a fresh home; whatever runs in it is ended afterwards."""
    command = CommandLine(tmp_path_factory.mktemp("lab") / "home")
    command.home.mkdir()
    try:
        yield command
    finally:
        command("clean", "--yes", check=False)
        assert qemu_processes(command.home) == {}
