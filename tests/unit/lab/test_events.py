from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts import document
from contracts.machine import VmDefinition
from contracts.report import InstallState, MachineStatus
from contracts.timeline import (
    Event,
    EventKind,
    RefusedDefinition,
    ServiceFaults,
    Stranger,
    Strangers,
    Timeline,
)
from lab import events
from lab.lab import Lab

Make = Callable[..., VmDefinition]
Write = Callable[[MachineStatus], None]


def write_timeline(lab: Lab, definition: VmDefinition, *seen: Event, uuid: str = "") -> None:
    timeline = Timeline(name=definition.name, uuid=uuid or definition.uuid, events=seen)
    events.events_path(lab, definition.name).write_text(document.dumps(timeline))


def test_what_is_known_comes_from_state_and_timeline_by_time(
    lab: Lab, make_definition: Make, write_status: Write
) -> None:
    definition = make_definition()
    assert events.read_events(lab, definition) == []
    sent = Event(time=3.0, kind=EventKind.INSTALL_SCRIPT, text="boot script: install")
    write_status(MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.BOOTING, events=(sent,)))
    dhcp, file = Event(time=1.0, kind=EventKind.ACK, text="a"), Event(time=4.0, kind=EventKind.FILE, text="b")
    write_timeline(lab, definition, dhcp, file)
    assert events.read_events(lab, definition) == [dhcp, sent, file]
    write_timeline(lab, definition, dhcp, uuid="00000000-0000-4000-8000-000000000009")  # of an older machine
    assert events.read_events(lab, definition) == [sent]


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_broken_files_of_the_services_are_none(lab: Lab, make_definition: Make, text: str) -> None:
    definition = make_definition()
    for name in ("web1.events.json", "_strangers.json", "_faults.json"):
        (lab.home.status / name).write_text(text)
    assert events.read_events(lab, definition) == []
    assert events.read_strangers(lab) == ()
    assert events.read_faults(lab) == ServiceFaults()


def test_strangers_and_faults_are_read(lab: Lab) -> None:
    seen = Strangers(strangers=(Stranger(mac="52:54:00:99:99:99", first=1.0, last=2.0),))
    (lab.home.status / "_strangers.json").write_text(document.dumps(seen))
    faults = ServiceFaults(definitions=(RefusedDefinition(name="web1", reason="x", kept=True),))
    (lab.home.status / "_faults.json").write_text(document.dumps(faults))
    assert events.read_strangers(lab) == seen.strangers
    assert events.read_faults(lab) == faults


def test_following_tells_each_event_once_and_repeats_as_they_come(
    lab: Lab, make_definition: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = make_definition()
    first = Event(time=1.0, kind=EventKind.DISCOVER, text="asked")
    again = Event(time=1.0, kind=EventKind.DISCOVER, text="asked", count=3, last=9.0)
    later = Event(time=5.0, kind=EventKind.OFFER, text="offered")
    steps = iter([(first,), (first,), (again, later), (again, later)])
    write_timeline(lab, definition, *next(steps))
    monkeypatch.setattr("lab.events.time.sleep", lambda _: write_timeline(lab, definition, *next(steps)))
    told = events.follow_events(lab, definition)
    found = [next(told), next(told), next(told)]
    assert [(event.time, event.text) for event in found] == [(1.0, "asked"), (9.0, "asked"), (5.0, "offered")]
    with pytest.raises(RuntimeError):  # nothing new: it waits, and this story has ended
        next(told)
