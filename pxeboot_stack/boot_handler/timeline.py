"""What the services were asked, kept for each machine and for those that the lab does not know.

In memory, bounded; repeats of the same are one event with a number. Written by :meth:`Timelines.flush`, a bounded time
at each call and without waiting for the disk, so that a storm of DHCP does not hold up an answer: a crash of the
provisioner loses what is younger than the last flush, and after a power failure of the host a file may be empty, which
counts as none.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from contracts import document
from contracts.machine import VmDefinition
from contracts.timeline import (
    COLLAPSE_WITHIN,
    EVENTS_SUFFIX,
    MAX_EVENTS,
    STRANGERS_FILE,
    Event,
    EventKind,
    Strangers,
    Timeline,
)
from pxeboot_stack.boot_handler.status import plain_line
from pxeboot_stack.publish import publish_text

_LOG = logging.getLogger(__name__)
COLLAPSE_SPAN = 8  # events among which the same is looked for
MAX_STRANGERS = 256  # the one not seen for longest goes first
MAX_STRANGER_EVENTS = 20
FLUSH_BUDGET = 0.02  # seconds


class _Machine:
    def __init__(self, machine: VmDefinition, events: Iterable[Event]) -> None:
        self.uuid = machine.uuid
        self.events: deque[Event] = deque(events, maxlen=MAX_EVENTS)


@dataclasses.dataclass
class _Stranger:
    first: float
    last: float
    address: str
    events: deque[Event]


class Timelines:
    """All timelines. :param directory: the status directory; this is the only writer of its timelines."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._machines: dict[str, _Machine] = {}
        self._dirty: OrderedDict[str, None] = OrderedDict()
        self._strangers: OrderedDict[str, _Stranger] = OrderedDict()
        self._strangers_dirty = False
        self._complained = False
        self.events_seen = 0

    def add(self, machine: VmDefinition, kind: EventKind, text: str, *, now: float) -> None:
        """Put an event into the timeline of *machine*. :param now: seconds since the epoch."""
        known = self._of(machine)
        _append(known.events, Event(time=now, kind=kind, text=plain_line(text)))
        self._dirty[machine.name] = None
        self.events_seen += 1

    def events(self, machine: VmDefinition) -> Sequence[Event]:
        """Return what is known of *machine*, the oldest first."""
        return tuple(self._of(machine).events)

    def add_stranger(self, mac: str, kind: EventKind, text: str, *, address: str = "", now: float) -> None:
        """Put an event into the timeline of a machine that the lab does not know."""
        known = self._strangers.pop(mac, None) or _Stranger(now, now, "", deque(maxlen=MAX_STRANGER_EVENTS))
        known.last, known.address = now, address or known.address
        _append(known.events, Event(time=now, kind=kind, text=plain_line(text)))
        self._strangers[mac] = known
        while len(self._strangers) > MAX_STRANGERS:
            self._strangers.popitem(last=False)
        self._strangers_dirty = True
        self.events_seen += 1

    def find_stranger(self, address: str) -> str | None:
        """Return the MAC address of the stranger that was last seen with *address*, or None."""
        return next((mac for mac, known in reversed(self._strangers.items()) if known.address == address), None)

    def strangers(self) -> list[str]:
        """Return the MAC addresses of the strangers that are kept."""
        return list(self._strangers)

    def adopt(self, machine: VmDefinition) -> None:
        """Give *machine* what was seen of it while it was a stranger."""
        for card in machine.cards:
            if (stranger := self._strangers.pop(card.mac, None)) is not None:
                self._of(machine).events.extend(stranger.events)
                self._dirty[machine.name] = None
                self._strangers_dirty = True

    def forget(self, name: str) -> None:
        """Drop what is in memory of the machine *name*; its file is its owner's."""
        self._machines.pop(name, None)
        self._dirty.pop(name, None)

    def names(self) -> list[str]:
        """Return the machines of which something is in memory."""
        return list(self._machines)

    def flush(self, *, everything: bool = False) -> None:
        """Write what has changed, as far as there is time for. :param everything: however long it takes."""
        end = time.monotonic() + FLUSH_BUDGET
        try:
            if self._strangers_dirty:
                publish_text(self._directory / STRANGERS_FILE, self._render_strangers(), flush=False)
                self._strangers_dirty = False
            while self._dirty and (everything or time.monotonic() < end):
                name = next(iter(self._dirty))
                publish_text(self._directory / f"{name}{EVENTS_SUFFIX}", self._render(name), flush=False)
                del self._dirty[name]
            self._complained = False
        except OSError as error:  # tried again with the next flush
            if not self._complained:
                _LOG.error("timelines cannot be written: %s", error.strerror)
            self._complained = True

    def _of(self, machine: VmDefinition) -> _Machine:
        known = self._machines.get(machine.name)
        if known is None or known.uuid != machine.uuid:
            known = self._machines[machine.name] = _Machine(machine, self._load(machine))
        return known

    def _load(self, machine: VmDefinition) -> tuple[Event, ...]:
        """Return what an earlier process wrote; nothing, and a line in the log, if it cannot be read."""
        path = self._directory / f"{machine.name}{EVENTS_SUFFIX}"
        try:
            timeline = document.loads(Timeline, path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, document.DocumentError) as error:
            _LOG.warning("the timeline %s cannot be read: %s", path.name, error)
            return ()
        return timeline.events if timeline.uuid == machine.uuid else ()

    def _render(self, name: str) -> str:
        known = self._machines[name]
        return _dumps({"schema": 1, "name": name, "uuid": known.uuid, "events": list(map(_plain, known.events))})

    def _render_strangers(self) -> str:
        strangers = [
            {"mac": mac, "first": known.first, "last": known.last, "address": known.address,
             "events": list(map(_plain, known.events))}
            for mac, known in reversed(self._strangers.items())
        ]  # fmt: skip
        return _dumps({"schema": 1, "strangers": strangers})

    def load_strangers(self) -> None:
        """Take over what an earlier process wrote of strangers."""
        try:
            read = document.loads(Strangers, (self._directory / STRANGERS_FILE).read_bytes())
        except (OSError, document.DocumentError):
            return
        for stranger in reversed(read.strangers[:MAX_STRANGERS]):
            events = deque(stranger.events, maxlen=MAX_STRANGER_EVENTS)
            self._strangers[stranger.mac] = _Stranger(stranger.first, stranger.last, stranger.address, events)


def _append(events: deque[Event], event: Event) -> None:
    """Add *event*, or count it where the same stands already."""
    for back in range(1, min(COLLAPSE_SPAN, len(events)) + 1):
        known = events[-back]
        if event.time - known.latest > COLLAPSE_WITHIN:
            break
        if event.is_again(known):
            events[-back] = event.counted_on(known)
            return
    events.append(event)


def _plain(event: Event) -> dict[str, object]:
    """Return what :func:`contracts.document.encode` would: this is done thousands of times a second."""
    return {
        "time": event.time, "last": event.last, "kind": event.kind.value, "count": event.count, "text": event.text,
    }  # fmt: skip


def _dumps(data: object) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"
