"""Names of machines and their network cards: one spelling, checked once."""

from __future__ import annotations

import re

_MACHINE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_MAC_SPELLING = re.compile(
    r"(?:[0-9a-f]{2}(?P<pair>[:.-])(?:[0-9a-f]{2}(?P=pair)){4}[0-9a-f]{2}"  # 52:54:00:aa:bb:cc, iPXE's hexhyp
    r"|[0-9a-f]{4}(?P<quad>[:.-])[0-9a-f]{4}(?P=quad)[0-9a-f]{4}"  # 5254.00aa.bbcc (Cisco)
    r"|[0-9a-f]{6}[:.-]?[0-9a-f]{6}"  # 525400-aabbcc (HP), iPXE's hexraw
    r"|01-[0-9a-f]{2}(?:-[0-9a-f]{2}){5})\Z"  # with the hardware type in front, as PXELINUX writes it
)

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

    They are two, four or six digits at a time, separated by colons, hyphens or dots, or twelve digits, in either
    case; PXELINUX's has the hardware type ``01-`` in front.

    :raises ValueError: if it is not the MAC address of a network card.
    """
    spelling = text.strip().lower()
    if not _MAC_SPELLING.match(spelling):
        raise ValueError(f"{text!r} is not a MAC address")
    digits = re.sub(r"[:.-]", "", spelling)[-12:]
    if int(digits[:2], 16) & 1:
        raise ValueError(f"{text!r} is a multicast MAC address, no network card has it")
    if not int(digits, 16):
        raise ValueError(f"{text!r} is no network card's MAC address")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))
