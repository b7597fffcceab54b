"""What holds for all tests: quick feedback first, and a killed run cleans up like an interrupted one."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

import pytest

_ORDER = ("tests/test_linters.py", "tests/unit", "tests/golden", "tests/integration", "tests/e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by cost: linters, unit tests, then what starts services, then what starts machines."""
    items.sort(key=lambda item: (item.get_closest_marker("vm") is not None, _rank(item)))


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, start in enumerate(_ORDER) if item.nodeid.startswith(start)), len(_ORDER))


def pytest_sessionstart() -> None:
    """Let SIGTERM (CI's way to say stop) run the fixtures' clean-up, as Ctrl-C does: no machine may be left behind."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Exit with our code for "interrupted"; pytest's own would be 2, which is our "usage"."""
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        session.exitstatus = 130
