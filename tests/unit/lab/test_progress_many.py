from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from lab import progress_many
from lab.progress_many import LiveBoard, PlainBoard, open_board


def test_plain_lines_are_whole_and_timed_from_one_start() -> None:
    stream = io.StringIO()
    board = PlainBoard(stream)
    reporters = [board.reporter(f"m{number}") for number in range(8)]

    def tell(number: int) -> None:
        for percent in range(0, 101, 5):
            reporters[number].show(f"m{number}: works", percent)
        reporters[number].say(f"m{number}: up")

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert all(re.fullmatch(r"\[ +0\.\d s\] m\d: (works, \d+ %|up)", line) for line in lines), lines
    assert sum(line.endswith(": up") for line in lines) == 8
    assert len(lines) == 8 * (6 + 1)  # percents only now and then


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Progress]:
    """What a terminal would show, without one."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    progress = Progress(TextColumn("{task.description}", markup=False), console=console, auto_refresh=False)
    monkeypatch.setattr(progress_many, "open_progress", lambda: progress)
    yield progress
    progress.stop()


def test_each_machine_has_a_line_that_moves_until_it_is_done(
    screen: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    board = LiveBoard()
    one, two = board.reporter("one"), board.reporter("two")
    one.say("before anything moves")
    assert "before anything moves" in capsys.readouterr().err
    assert screen.tasks == []
    one.show("one: [1/7] disk", 10)
    two.show("two: boots")
    one.show("one: [2/7] system", 40)
    assert [(task.description, task.completed, task.total) for task in screen.tasks] == [
        ("one: [2/7] system, 40 %", 40, 100), ("two: boots", 0, None),
    ]  # fmt: skip
    board.done("one")
    board.done("one")
    assert [task.description for task in screen.tasks] == ["two: boots"]
    two.say("two: [up]")
    assert isinstance(screen.console.file, io.StringIO)
    assert "two: [up]" in screen.console.file.getvalue()
    board.close()
    board.close()


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with open_board() as board:
        board.reporter("a").say("hello")
        board.done("a")
    assert capsys.readouterr().err.endswith("s] hello\n")


def test_who_tells_something_after_the_end_does_not_take_the_terminal_again(screen: Progress) -> None:
    board = LiveBoard()
    board.reporter("one").show("one: boots")
    board.close()
    board.reporter("one").show("one: still at it")
    assert [task.description for task in screen.tasks] == ["one: boots"]
    assert board._progress is None
