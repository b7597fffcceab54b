"""Sizes as people write them: ``2G``, ``512MiB``, ``1024``."""

from __future__ import annotations

import re

from pipeline.errors import UsageError

_SIZE = re.compile(r"([0-9]{1,18})\s*([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_FACTORS = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str, *, unit: str, option: str) -> int:
    """Return the size *text* in whole *unit* s. All units are binary; a number alone counts *unit* s.

    :param unit: ``m`` for MiB or ``g`` for GiB. :param option: whose value it is, for the message.
    :raises UsageError: if it is no size, or not a whole number of them.
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise UsageError(f"{option} {text!r:.60} is not a size", resolution="write it like 512M, 2G or 2GiB")
    number, letter = int(match[1]), match[2].lower() or unit
    size, rest = divmod(number << 10 * _FACTORS[letter], 1 << 10 * _FACTORS[unit])
    if rest:
        raise UsageError(f"{option} {text!r} is not a whole number of {unit.upper()}iB", resolution="round it up")
    return size
