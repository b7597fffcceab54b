from __future__ import annotations

from pathlib import Path

import pytest

from lab import logs


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("plain\n", "plain\n"),
        ("\x1b[0m\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: loading", "\nBdsDxe: loading"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]0;title\x1b\\text", "text"),
        ("\x1b(Btext\x1b=\x1b7", "text"),
        ("tab\tstays, bell\x07 and \x00 and \x9b do not", "tab\tstays, bell and  and  do not"),
        ("cut off \x1b[3", "cut off 3"),
        ("größe ✓", "größe ✓"),
    ],
)
def test_control_sequences_go_text_stays(raw: str, plain: str) -> None:
    assert logs.strip_control(raw) == plain
    assert "\x1b" not in logs.strip_control(raw)


def test_tail_is_the_last_lines_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    log.write_bytes(b"x" * 200_000 + b"\none\r\n\r\n   \n\x1b[1mtwo\x1b[0m  \nthree\xff\n")
    assert logs.tail(log, 3) == ["one", "two", "three\N{REPLACEMENT CHARACTER}"]
    assert logs.tail(log, 1) == ["three\N{REPLACEMENT CHARACTER}"]
    assert logs.tail(log, 0) == []


def test_tail_of_no_log(tmp_path: Path) -> None:
    assert logs.tail(tmp_path / "none.log", 5) == []


def test_rotate_keeps_one_generation(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    logs.rotate(log)
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second", "third"):
        log.write_text(text)
        logs.rotate(log)
    assert [path.name for path in tmp_path.iterdir()] == ["x.log.1"]
    assert (tmp_path / "x.log.1").read_text() == "third"


def test_trim_keeps_the_end_and_the_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old " * 1000 + b"the end\n")
        logs.trim(log, limit=100)
        writer.write(b"and more\n")
    assert log.stat().st_size < 200
    assert log.read_text().startswith("[pvmlab: the log was too large")
    assert log.read_text().endswith("old the end\nand more\n")


def test_trim_leaves_small_logs_alone(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    logs.trim(log)
    assert not log.exists()
    log.write_text("small")
    logs.trim(log, limit=5)
    assert log.read_text() == "small"
