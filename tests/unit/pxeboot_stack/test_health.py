from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pxeboot_stack import health
from pxeboot_stack.health import Health


class Service:
    """A service that answers, or not."""

    def __init__(self) -> None:
        self.answers = True

    def ask(self) -> None:
        if not self.answers:
            raise TimeoutError("timed out")


class Clock:
    """Seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    ended: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda pid, number: ended.append((pid, number)))
    return ended


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    def write(**pids: int | None) -> Path:
        path = tmp_path / "services.json"
        path.write_text(json.dumps({name: {"pid": pid} for name, pid in pids.items()}))
        return path

    return write


def test_all_well_is_told_by_a_file(tmp_path: Path, record: Callable[..., Path]) -> None:
    one, other = Service(), Service()
    looker = Health({"one": one.ask, "other": other.ask}, record=record(one=11, other=12), healthy=tmp_path / "healthy")
    other.answers = False
    assert looker.look() == ["other"]
    assert not (tmp_path / "healthy").exists()
    other.answers = True
    assert looker.look() == []
    assert (tmp_path / "healthy").exists()


def test_one_that_stops_answering_is_ended_at_the_third_time(
    tmp_path: Path, record: Callable[..., Path], killed: list[tuple[int, int]]
) -> None:
    service = Service()
    looker = Health({"one": service.ask}, record=record(one=11), healthy=tmp_path / "healthy")
    looker.look()
    service.answers = False
    looker.look()
    looker.look()
    assert killed == []
    service.answers = True
    looker.look()  # it was only slow: counted anew
    service.answers = False
    for _ in range(health.FAILURES):
        looker.look()
    assert killed == [(11, signal.SIGKILL)]


def test_one_that_is_just_starting_has_time(
    tmp_path: Path, record: Callable[..., Path], killed: list[tuple[int, int]]
) -> None:
    service, clock = Service(), Clock()
    service.answers = False
    looker = Health({"one": service.ask}, record=record(one=11), healthy=tmp_path / "healthy", clock=clock)
    for _ in range(10):
        looker.look()
    assert killed == []
    clock.now += health.FIRST_ANSWER + 1
    looker.look()
    assert killed == [(11, signal.SIGKILL)]
    record(one=12)  # started again: it has its time again
    looker.look()
    assert len(killed) == 1


@pytest.mark.parametrize("text", [None, "", "{", "{}", '{"one": {"pid": null}}', '{"one": {}}'])
def test_one_that_does_not_run_is_not_asked(tmp_path: Path, text: str | None, killed: list[tuple[int, int]]) -> None:
    if text is not None:
        (tmp_path / "record").write_text(text)
    looker = Health({"one": lambda: None}, record=tmp_path / "record", healthy=tmp_path / "healthy")
    assert looker.look() == ["one"]
    assert killed == []


def test_who_ended_while_it_was_asked_is_let_be(
    tmp_path: Path, record: Callable[..., Path], killed: list[tuple[int, int]]
) -> None:
    service = Service()
    answers = iter([None, None, None, None])

    def ask() -> None:
        next(answers)
        if service.answers:
            return
        record(one=12)  # the supervisor has started it again
        raise TimeoutError("timed out")

    looker = Health({"one": ask}, record=record(one=11), healthy=tmp_path / "healthy")
    looker.look()
    service.answers = False
    for _ in range(3):
        record(one=11)
        looker.look()
    assert killed == []
