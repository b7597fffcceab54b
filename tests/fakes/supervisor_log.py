"""What the supervisor's log tells."""

from __future__ import annotations

import re


def find_last_pid(log: str, service: str) -> int:
    """Return the process id of *service*'s last start."""
    return int(re.findall(rf'"{service} started as process (\d+)"', log)[-1])
