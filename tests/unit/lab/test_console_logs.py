from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.console_logs import choose_log, follow_log, read_log
from lab.machine import MachineLogs
from pipeline.errors import NotFoundError, UsageError

LOGS = MachineLogs(Path("ours"), Path("serial"), Path("qemu"))


def test_logs_by_their_words() -> None:
    assert [choose_log(LOGS, word) for word in ("serial", "qemu", "lab")] == [
        Path("serial"),
        Path("qemu"),
        Path("ours"),
    ]


def test_unknown_word_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--which 'kernel' is unknown") as caught:
        choose_log(LOGS, "kernel")
    assert caught.value.resolution == "use one of: serial, qemu, lab"


def test_log_is_read_without_control_sequences(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\x1b[31mred\x1b[0m\r\nplain\n")
    assert read_log(log) == ["red", "plain"]


def test_log_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no log web1\.log yet"):
        read_log(tmp_path / "web1.log")


def test_follow_gives_what_is_added_and_starts_over_with_a_new_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")

    def append(text: str) -> None:
        with log.open("a") as stream:
            stream.write(text)

    def renew() -> None:
        log.rename(tmp_path / "log.1")
        log.write_text("new\n")

    steps = iter([lambda: append("more\n"), lambda: None, renew])
    monkeypatch.setattr("lab.console_logs.time.sleep", lambda _: next(steps)())
    added = follow_log(log)
    assert next(added) == "more\n"
    assert next(added) == "new\n"


def test_follow_waits_for_the_rest_of_a_character_and_for_a_log_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")

    def append(data: bytes) -> None:
        with log.open("ab") as stream:
            stream.write(data)

    steps: list[Callable[[], object]] = [
        lambda: append(b"caf\xc3"), lambda: append(b"\xa9\n"), log.unlink, lambda: log.write_text("new\n")
    ]  # fmt: skip
    monkeypatch.setattr("lab.console_logs.time.sleep", lambda _: steps.pop(0)())
    added = follow_log(log)
    assert next(added) + next(added) == "café\n"
    assert next(added) == "new\n"
