from __future__ import annotations

import pytest

from contracts.timeline import Event, EventKind
from lab.explain import describe, explain_silence

NOW = 1000.0


def event(kind: EventKind, text: str, *, time: float = 990.0, count: int = 1) -> Event:
    return Event(time=time, text=text, kind=kind, count=count)


@pytest.mark.parametrize(
    ("console", "events", "said"),
    [
        ([], [], "it has not asked for an address"),
        (["web1 login:"], [], "its console asks for a login, so its system is up; it has not asked for an address"),
        ([], [event(EventKind.ACK, "has it", time=900.0)], "it has not asked for an address"),  # before it was started
        ([], [event(EventKind.ACK, "has it")], "got its address 10 s ago: its SSH server does not run"),
        (["x login: "], [event(EventKind.ACK, "has it")], "and its console asks for a login: its SSH server"),
        ([], [event(EventKind.DISCOVER, "asked: no address left")], "has none: asked: no address left"),
        (["[1.0] Kernel panic - not syncing: VFS"], [event(EventKind.ACK, "")], "its kernel panicked: [1.0] Ker"),
        (["You are in emergency mode. After"], [], "its system stopped in emergency mode"),
        (["grub rescue> "], [], "its bootloader does not find its own files"),
        (["BdsDxe: No bootable option or device was found."], [], "its firmware found nothing to boot"),
        (["Shell> "], [event(EventKind.ACK, "has it")], "its firmware found nothing to boot, and shows its own shell"),
        ([], [event(EventKind.ACK, "has it"), event(EventKind.DISK_SCRIPT, "disk", time=995.0)],
         "was sent to its disk 5 s ago, and has asked for nothing since"),
        (["(initramfs) "], [], "its initrd does not find the root filesystem"),
    ],
)  # fmt: skip
def test_the_last_sign_is_the_reason(console: list[str], events: list[Event], said: str) -> None:
    assert said in explain_silence("web1", console, events, since=950.0, now=NOW)


def test_console_and_events_are_both_shown_the_last_of_each() -> None:
    console = [f"line {number}" for number in range(40)]
    events = [event(EventKind.ACK, f"event {number}", time=float(number), count=number) for number in range(1, 20)]
    text = describe(console, events)
    assert "line 24\n" not in text
    assert "  | line 25\n" in text
    assert "event 11 " not in text
    assert text.endswith("dhcp: event 19 (19 times)")


def test_that_there_is_nothing_is_said_too() -> None:
    assert describe([], []) == "its console is empty\nthe services saw nothing of it"
