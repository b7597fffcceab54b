"""What a wait that ended in vain says: the last lines of the console, the last events, a diagnosis. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Sequence

from contracts.timeline import Event, EventKind

CONSOLE_LINES = 15
_EVENTS = 8
# What a console says of a system that will not come up by itself, and what that means. The last line that fits counts.
_SIGNS = (
    ("Kernel panic", "its kernel panicked"),
    ("emergency mode", "its system stopped in emergency mode, as one of its file systems cannot be mounted, say"),
    ("Give root password for maintenance", "its system waits for a person in maintenance mode"),
    ("grub rescue>", "its bootloader does not find its own files"),
    ("No bootable option or device was found", "its firmware found nothing to boot"),
    ("Shell>", "its firmware found nothing to boot, and shows its own shell"),
    ("(initramfs)", "its initrd does not find the root filesystem"),
    ("No space left on device", "its disk is full"),
    ("Out of memory", "it has too little memory"),
)
_DHCP = (EventKind.DISCOVER, EventKind.OFFER, EventKind.REQUEST, EventKind.ACK, EventKind.NAK)


def describe(console: Sequence[str], events: Sequence[Event]) -> str:
    """Return the last lines of *console*, then the last of *events*, for people."""
    lines = console[-CONSOLE_LINES:]
    said = ["its console, the last lines:", *(f"  | {line}" for line in lines)] if lines else ["its console is empty"]
    last = sorted(events, key=lambda event: event.latest)[-_EVENTS:]
    seen = ["what the services saw of it, the last:", *map(_line, last)] if last else ["the services saw nothing of it"]
    return "\n".join([*said, *seen])


def explain_silence(name: str, console: Sequence[str], events: Sequence[Event], *, since: float, now: float) -> str:
    """Return a sentence on why nobody can log in to *name*, whose system was to boot from its disk.

    :param since: when that began, in seconds since the epoch: *events* before it do not count. :param now: likewise.
    """
    for line in reversed(console):
        for sign, meaning in _SIGNS:
            if sign in line:
                return f"{meaning}: {line.strip():.160}"
    prompt = any(line.rstrip().endswith("login:") for line in console[-5:])
    recent = sorted((event for event in events if event.latest >= since), key=lambda event: event.latest)
    if recent and recent[-1].kind is EventKind.DISK_SCRIPT:
        return (
            f"{name} asked the network what to boot, was sent to its disk {_ago(recent[-1], now)} s ago, and has asked "
            "for nothing since: there is nothing on the disk that boots, or its system is not that far"
        )
    asked = [event for event in recent if event.kind in _DHCP]
    last = max(asked, key=lambda event: event.latest, default=None)
    if last is None:
        up = "its console asks for a login, so its system is up; " if prompt else ""
        return (
            f"{up}it has not asked for an address: its network card has no driver or is not configured, or its system "
            "is not that far"
        )
    ago = _ago(last, now)
    if last.kind is EventKind.ACK:
        up = ", and its console asks for a login" if prompt else ""
        return f"{name} got its address {ago} s ago{up}: its SSH server does not run, or a firewall is before it"
    return f"{name} asked for an address {ago} s ago and has none: {last.text}"


def _ago(event: Event, now: float) -> int:
    return max(0, round(now - event.latest))


def _line(event: Event) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(event.latest))
    repeats = f" ({event.count} times)" if event.count > 1 else ""
    return f"  | {when} {event.kind.source.value}: {event.text}{repeats}"
