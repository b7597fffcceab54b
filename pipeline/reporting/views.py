"""Which view a run gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO

from pipeline.errors import UsageError
from pipeline.reporting.events import View
from pipeline.reporting.json_view import JsonView
from pipeline.reporting.live_view import LiveView
from pipeline.reporting.outlet import Outlet
from pipeline.reporting.plain_view import PlainView

OUTPUTS = ("text", "plain", "json")
_CANNOT_DRAW = {"dumb", "unknown"}  # values of TERM


def open_view(stream: IO[str], *, output: str = "text", environment: Mapping[str, str] = os.environ) -> View:
    """Return the view that fits.

    :param output: ``json`` for programs, ``plain`` for lines, ``text`` for live progress if *stream* is a terminal that
        can move its cursor, else lines.
    :raises UsageError: for any other *output*.
    """
    if output not in OUTPUTS:
        raise UsageError(f"the output {output!r} is unknown", resolution=f"use one of: {', '.join(OUTPUTS)}")
    outlet = Outlet(stream)
    if output == "json":
        return JsonView(outlet)
    if output == "text" and outlet.terminal and environment.get("TERM") not in _CANNOT_DRAW:
        return LiveView(outlet)
    return PlainView(outlet)


def wanted_output(environment: Mapping[str, str] = os.environ) -> str:
    """Return the output that ``PVMLAB_OUTPUT`` asks for.

    :raises UsageError: if there is no such output.
    """
    output = environment.get("PVMLAB_OUTPUT") or "text"
    if output not in OUTPUTS:
        raise UsageError(f"PVMLAB_OUTPUT is {output!r}", resolution=f"use one of: {', '.join(OUTPUTS)}, or unset it")
    return output
