"""Names of machines and their network cards: one spelling, checked once."""

from __future__ import annotations

import re

_MACHINE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_MAC_DIGITS = re.compile(r"[0-9a-f]{12}\Z")

PROVISIONER_NAME = "provisioner"


def validate_machine_name(name: str) -> str:
    """Return *name* if it is a DNS label in lower case (RFC 1123: letters, digits, inner hyphens, at most 63).

    Such a name is also safe as a file name, a QEMU option value, a host name and a URL segment.

    :raises ValueError: if it is anything else.
    """
    if not _MACHINE_NAME.match(name):
        raise ValueError(f"{name!r} is not a machine name: use 1 to 63 of a-z, 0-9 and inner hyphens")
    return name


def normalize_mac(text: str) -> str:
    """Return the MAC address *text* as ``52:54:00:aa:bb:cc``, from any of the usual spellings.

    Accepts colons, hyphens, dots (Cisco) or no separator, in either case.

    :raises ValueError: if it is not a unicast MAC address.
    """
    digits = re.sub(r"[:.-]", "", text.strip().lower())
    if not _MAC_DIGITS.match(digits):
        raise ValueError(f"{text!r} is not a MAC address")
    if int(digits[:2], 16) & 1:
        raise ValueError(f"{text!r} is a multicast MAC address, no network card has it")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))
