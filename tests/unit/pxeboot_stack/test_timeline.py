from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts import document
from contracts.timeline import COLLAPSE_WITHIN, MAX_EVENTS, EventKind, Strangers, Timeline
from pxeboot_stack.boot_handler import timeline
from pxeboot_stack.boot_handler.timeline import MAX_STRANGER_EVENTS, MAX_STRANGERS, Timelines
from tests.fakes.lab_files import make_machine

MACHINE = make_machine()
STRANGER = "52:54:00:99:99:99"


def written(folder: Path) -> Timeline:
    return document.loads(Timeline, (folder / "web1.events.json").read_bytes())


def test_events_are_kept_written_and_taken_over(tmp_path: Path) -> None:
    lines = Timelines(tmp_path)
    lines.add(MACHINE, EventKind.ACK, "got 192.168.100.11", now=10.0)
    lines.add(MACHINE, EventKind.TFTP_SENT, "ipxe.efi sent by TFTP", now=11.0)
    assert not (tmp_path / "web1.events.json").exists()
    lines.flush()
    assert written(tmp_path).events == lines.events(MACHINE)
    again = Timelines(tmp_path)
    assert again.events(MACHINE) == lines.events(MACHINE)
    again.add(MACHINE, EventKind.CHAIN, "boot.ipxe fetched", now=12.0)
    assert len(again.events(MACHINE)) == 3


def test_what_comes_again_is_one_event_with_a_number(tmp_path: Path) -> None:
    lines = Timelines(tmp_path)
    for number in range(5):
        lines.add(MACHINE, EventKind.DISCOVER, "asked for an address", now=10.0 + number)
        lines.add(MACHINE, EventKind.OFFER, "was offered 192.168.100.11", now=10.5 + number)
    first, second = lines.events(MACHINE)
    assert (first.time, first.last, first.count, first.latest) == (10.0, 14.0, 5, 14.0)
    assert (second.time, second.count) == (10.5, 5)
    lines.add(MACHINE, EventKind.DISCOVER, "asked for an address", now=14.0 + COLLAPSE_WITHIN + 1)
    assert [event.count for event in lines.events(MACHINE)] == [5, 5, 1]  # another boot


def test_a_timeline_is_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    lines = Timelines(tmp_path)
    for number in range(MAX_EVENTS + 7):
        lines.add(MACHINE, EventKind.NOTE, f"number {number}", now=float(number))
    assert len(lines.events(MACHINE)) == MAX_EVENTS
    assert lines.events(MACHINE)[0].text == "number 7"


def test_the_timeline_of_an_older_machine_of_that_name_is_stale(tmp_path: Path) -> None:
    lines = Timelines(tmp_path)
    lines.add(MACHINE, EventKind.NOTE, "old", now=1.0)
    lines.flush()
    newer = make_machine(uuid="00000000-0000-4000-8000-000000000002")
    assert lines.events(newer) == ()
    assert Timelines(tmp_path).events(newer) == ()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}'])
def test_a_timeline_that_cannot_be_read_is_none_and_said(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "web1.events.json").write_text(text)
    lines = Timelines(tmp_path)
    assert lines.events(MACHINE) == ()
    assert "web1.events.json cannot be read" in caplog.text
    lines.add(MACHINE, EventKind.NOTE, "new", now=1.0)
    lines.flush()
    assert written(tmp_path).events[0].text == "new"


def test_what_is_written_costs_a_bounded_time_and_the_rest_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [make_machine(name=f"m{number}") for number in range(5)]
    lines = Timelines(tmp_path)
    for machine in machines:
        lines.add(machine, EventKind.NOTE, "x", now=1.0)
    clock = iter(float(second) for second in range(1000))
    monkeypatch.setattr("pxeboot_stack.boot_handler.timeline.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(timeline, "FLUSH_BUDGET", 2.5)  # of a clock that goes on by one at each look
    lines.flush()
    assert len(list(tmp_path.glob("m*.events.json"))) == 2
    lines.flush(everything=True)
    assert len(list(tmp_path.glob("m*.events.json"))) == 5


def test_a_full_disk_is_said_once_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "away"
    lines = Timelines(folder)
    lines.add(MACHINE, EventKind.NOTE, "x", now=1.0)
    for _ in range(3):
        lines.flush()
    assert caplog.text.count("timelines cannot be written: No such file") == 1
    folder.mkdir()
    lines.flush()
    assert written(folder).events[0].text == "x"


def test_strangers_are_kept_and_bounded_those_seen_last_first(tmp_path: Path) -> None:
    lines = Timelines(tmp_path)
    for number in range(MAX_STRANGERS + 10):
        mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        lines.add_stranger(mac, EventKind.DISCOVER, "asked for an address", now=float(number))
    for number in range(MAX_STRANGER_EVENTS + 5):
        lines.add_stranger("52:54:00:00:00:0a", EventKind.NOTE, str(number), address="192.168.100.130", now=500.0)
    lines.flush()
    read = document.loads(Strangers, (tmp_path / "_strangers.json").read_bytes()).strangers
    assert len(read) == MAX_STRANGERS
    assert (read[0].mac, read[0].address, len(read[0].events)) == (
        "52:54:00:00:00:0a", "192.168.100.130", MAX_STRANGER_EVENTS,
    )  # fmt: skip
    assert read[-1].mac == "52:54:00:00:00:0b"
    again = Timelines(tmp_path)
    again.load_strangers()
    assert again.strangers() == lines.strangers()
    assert again.find_stranger("192.168.100.130") == "52:54:00:00:00:0a"
    assert again.find_stranger("192.168.100.131") is None


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_no_strangers_are_no_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "_strangers.json").write_text(text)
    lines = Timelines(tmp_path)
    lines.load_strangers()
    assert lines.strangers() == []


def test_an_adopted_machine_keeps_what_was_seen_of_it(tmp_path: Path) -> None:
    lines = Timelines(tmp_path)
    lines.add_stranger(MACHINE.mac, EventKind.MENU, "was shown the menu", now=1.0)
    lines.add_stranger(STRANGER, EventKind.MENU, "was shown the menu", now=1.0)
    lines.adopt(MACHINE)
    assert [event.text for event in lines.events(MACHINE)] == ["was shown the menu"]
    assert lines.strangers() == [STRANGER]


def test_what_machines_say_is_one_harmless_line(tmp_path: Path) -> None:
    lines = Timelines(tmp_path)
    lines.add(MACHINE, EventKind.NOTE, "a\n\x1b[31mb" + "x" * 1000, now=1.0)
    (event,) = lines.events(MACHINE)
    assert event.text.isprintable()
    assert len(event.text) <= 500
    lines.flush()
    assert len(json.loads((tmp_path / "web1.events.json").read_text())["events"]) == 1
