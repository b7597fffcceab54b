"""What holds for all tests: quick feedback first, and a killed run cleans up like an interrupted one."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

import pytest

from contracts.arch import Arch
from lab.journey import DEFAULT_DISTRO
from pipeline.recipes.build import ensure
from pipeline.recipes.graph import machine_tasks
from pipeline.workspace import Cache, Workspace

_ORDER = ("tests/test_linters.py", "tests/unit", "tests/golden", "tests/integration", "tests/e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by cost: linters, unit tests, then what starts services, then what starts machines."""
    items.sort(key=lambda item: (_is_slow(item), _rank(item)))


def _is_slow(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in ("artifacts", "vm"))


@pytest.fixture(scope="session")
def artifacts() -> Cache:
    """The cache with everything an install of the usual distribution needs, built now if it was not."""
    ensure(machine_tasks(DEFAULT_DISTRO, Arch.X86_64))
    return Workspace.from_environment().cache


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, start in enumerate(_ORDER) if item.nodeid.startswith(start)), len(_ORDER))


def pytest_sessionstart() -> None:
    """Let SIGTERM (CI's way to say stop) run the fixtures' clean-up, as Ctrl-C does: no machine may be left behind.

    A shell starts what goes to its background with Ctrl-C ignored, and programs inherit that: tests of it need it back.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Exit with our code for "interrupted"; pytest's own would be 2, which is our "usage"."""
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        session.exitstatus = 130
