"""The installer's processes: what they report when they fail, and that none is left behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from contracts.report import MAX_REPORT_LINES
from installer import command
from installer.command import CommandError, Pipeline


def test_output_and_errors_come_back() -> None:
    assert command.run(["sh", "-c", "cat; echo noise >&2"], timeout=10, input="given\n") == "given\nnoise\n"


def test_a_failure_carries_the_command_and_its_last_lines() -> None:
    with pytest.raises(CommandError) as caught:
        command.run(["sh", "-c", "seq 100; exit 3"], timeout=10)
    assert caught.value.cause == "sh failed with exit status 3"
    assert caught.value.lines[0] == "$ sh -c 'seq 100; exit 3'"
    assert caught.value.lines[-1] == "100"
    assert len(caught.value.lines) == MAX_REPORT_LINES


def test_a_signal_is_told_from_a_status() -> None:
    with pytest.raises(CommandError, match="sh was ended by signal 9"):
        command.run(["sh", "-c", "kill -9 $$"], timeout=10)


def test_a_command_that_hangs_is_ended_and_its_output_kept() -> None:
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"sh did not end within 0\.5 s") as caught:
        command.run(["sh", "-c", "echo started; exec sleep 60"], timeout=0.5)
    assert time.monotonic() - began < 10
    assert caught.value.lines[-1] == "started"


def test_a_missing_program_is_an_error_like_any_other() -> None:
    with pytest.raises(CommandError, match="no-such-program could not be started: No such file"):
        command.run(["no-such-program"], timeout=1)
    with (
        pytest.raises(CommandError, match="no-such-program could not be started"),
        Pipeline(["cat"], ["no-such-program"], stall=1),
    ):
        pass


def test_a_pipeline_passes_all_it_is_given(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    with Pipeline(["cat"], ["dd", f"of={tmp_path / 'copy'}", "status=none"], stall=30) as pipeline:
        pipeline.write(data)
        pipeline.finish()
    assert (tmp_path / "copy").read_bytes() == data


def test_the_program_that_broke_the_pipe_is_blamed_not_those_before_it() -> None:
    with (  # noqa: PT012 (either call may be the one that notices)
        pytest.raises(CommandError, match="sh failed with exit status 2") as caught,
        Pipeline(["cat"], ["sh", "-c", "echo No space left on device >&2; exit 2"], stall=30) as pipeline,
    ):
        for _ in range(100):
            pipeline.write(bytes(1 << 18))
        pipeline.finish()
    assert caught.value.lines[-1] == "No space left on device"


def test_a_pipeline_that_takes_no_data_is_given_up() -> None:
    with (
        pytest.raises(CommandError, match=r"sleep took no data for 0\.3 s"),
        Pipeline(["sleep", "60"], stall=0.3) as pipeline,
    ):
        pipeline.write(bytes(1 << 24))


def test_a_pipeline_that_does_not_end_is_given_up() -> None:
    began = time.monotonic()
    with (
        pytest.raises(CommandError, match=r"sleep did not end within 0\.3 s"),
        Pipeline(["sleep", "60"], stall=0.3) as pipeline,
    ):
        pipeline.finish()
    assert time.monotonic() - began < 10
