"""Phase 1: bring up the card the machine booted from, by DHCP."""

from __future__ import annotations

import time
from pathlib import Path

from installer import command
from installer.errors import InstallError

_CARDS = Path("/sys/class/net")
_LEASE = Path("/run/lease")  # written by dhcp-script
_DHCP_SCRIPT = "/usr/lib/pvmlab/dhcp-script"
_CARD_WITHIN = 15.0  # seconds; drivers were loaded before we started
_LEASE_WITHIN = 60  # seconds
_POLL = 0.05


def configure(mac: str) -> str:
    """Give the card with the address *mac* a lease and return a sentence about it.

    :raises InstallError: if there is no such card, or nobody offers a lease.
    """
    card = wait_for_card(mac, cards=_CARDS, within=_CARD_WITHIN)
    command.run(["ip", "link", "set", "dev", "lo", "up"], timeout=10)
    command.run(["ip", "link", "set", "dev", card, "up"], timeout=10)
    lease = request_lease(card)
    return f"{card} ({mac}) has {lease}"


def wait_for_card(mac: str, *, cards: Path, within: float) -> str:
    """Return the name of the network card with the address *mac*.

    :param cards: the directory the kernel lists cards in. :param within: seconds.
    :raises InstallError: naming the cards there are.
    """
    deadline = time.monotonic() + within
    while True:
        seen = {path.name: _address(path) for path in sorted(cards.iterdir())}
        for name, address in seen.items():
            if address == mac:
                return name
        if time.monotonic() > deadline:
            there = ", ".join(f"{name} ({address})" for name, address in seen.items() if name != "lo") or "none"
            raise InstallError(f"no network card has the address {mac}; there are: {there}")
        time.sleep(_POLL)


def request_lease(card: str) -> str:
    """Get a lease for *card* and return the address with its prefix length.

    :raises InstallError: if nobody offers one in time.
    """
    try:
        command.run(
            [
                "udhcpc", "-i", card, "-s", _DHCP_SCRIPT,
                "-f", "-q", "-n",  # in the foreground; end with the lease, or without one
                "-t", str(_LEASE_WITHIN), "-T", "1",  # this many discoveries, a second apart
                "-A", "1",
            ],
            timeout=_LEASE_WITHIN + 30,
        )  # fmt: skip
    except command.CommandError as error:
        raise InstallError(f"no DHCP server gave {card} a lease within {_LEASE_WITHIN} s", lines=error.lines) from None
    return _LEASE.read_text().strip()


def _address(card: Path) -> str:
    try:
        return (card / "address").read_text().strip()
    except OSError:  # taken out while we looked
        return "gone"
