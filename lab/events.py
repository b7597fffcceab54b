"""What happened to a machine, and what unknown machines were seen: read from what the boot handler writes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.machine import VmDefinition
from contracts.report import MachineStatus
from contracts.timeline import (
    EVENTS_SUFFIX,
    FAULTS_FILE,
    STRANGERS_FILE,
    Event,
    ServiceFaults,
    Stranger,
    Strangers,
    Timeline,
)
from lab.install_status import read_status
from lab.lab import Lab

_POLL = 0.5  # seconds between two looks at small local files


def events_path(lab: Lab, name: str) -> Path:
    """Return where the boot handler writes what was seen of the machine *name*."""
    return lab.home.status / f"{name}{EVENTS_SUFFIX}"


def read_events(lab: Lab, definition: VmDefinition, status: MachineStatus | None = None) -> list[Event]:
    """Return all that is known to have happened to a machine, the oldest first.

    :param status: its install state, if it was read already.
    :raises ConflictError: if its status is broken. A broken timeline is none: nothing depends on it.
    """
    known = status or read_status(lab, definition)
    try:
        timeline = document.loads(Timeline, events_path(lab, definition.name).read_bytes())
    except (OSError, DocumentError):
        seen: tuple[Event, ...] = ()
    else:
        seen = timeline.events if timeline.uuid == definition.uuid else ()
    return sorted((*known.events, *seen), key=lambda event: event.time)


def read_last_event(lab: Lab, definition: VmDefinition, status: MachineStatus) -> Event | None:
    """Return what happened to a machine last, or None if nothing is known.

    As :func:`read_events`, but no event is made of all the others: a list of many machines wants one of each.
    """
    last = max(status.events, key=lambda event: event.latest, default=None)
    try:
        timeline = json.loads(events_path(lab, definition.name).read_bytes())
        seen = timeline["events"] if timeline["uuid"] == definition.uuid else []
        newest = max(seen, key=lambda event: float(event.get("last") or event["time"]), default=None)
        event = document.decode(Event, newest) if newest is not None else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # a broken timeline is none
        return last
    return event if event is not None and (last is None or event.latest > last.latest) else last


def follow_events(lab: Lab, definition: VmDefinition) -> Iterator[Event]:
    """Yield what happened and what happens, each event once as it is first seen; ends only by being interrupted.

    An event that comes again is one more event, of which only the last one is told.
    """
    told: dict[tuple[float, str], int] = {}
    while True:
        for event in read_events(lab, definition):
            key = (event.time, event.text)
            before = told.get(key)
            told[key] = event.count
            if before is None:
                yield event
            elif before != event.count:
                yield Event(time=event.latest, text=event.text, kind=event.kind)
        time.sleep(_POLL)


def read_strangers(lab: Lab) -> tuple[Stranger, ...]:
    """Return the machines that were seen and are unknown, the latest first."""
    try:
        return document.loads(Strangers, (lab.home.status / STRANGERS_FILE).read_bytes()).strangers
    except (OSError, DocumentError):
        return ()


def read_faults(lab: Lab) -> ServiceFaults:
    """Return what the services said last that they cannot use; nothing if they have not said anything."""
    try:
        return document.loads(ServiceFaults, (lab.home.status / FAULTS_FILE).read_bytes())
    except (OSError, DocumentError):
        return ServiceFaults()
