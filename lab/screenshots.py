"""Pictures of what a machine's screen shows, by QMP's ``screendump`` (PNG since QEMU 7.1)."""

from __future__ import annotations

import struct
from pathlib import Path

from lab import qmp
from lab.machine import Machine
from pipeline import commit
from pipeline.errors import ConflictError, HostError, PvmlabError

_TIMEOUT = 10.0  # seconds; it takes milliseconds
_PNG = b"\x89PNG\r\n\x1a\n"


def take_screenshot(machine: Machine, path: Path) -> tuple[int, int]:
    """Publish a PNG of the machine's screen at *path*; return its width and height in pixels.

    :raises ConflictError: if the machine is off, or has no graphics card.
    :raises QmpTimeoutError: if its QEMU does not answer. :raises PvmlabError: if nothing can be written there.
    """
    if machine.process() is None:
        raise ConflictError(f"{machine.name} is off: it shows nothing", resolution=f"./pvmlab vm.start {machine.name}")
    try:
        with commit.publish(path.absolute()) as temporary:
            _dump_screen(machine, temporary)
            return _size(temporary.read_bytes()[:24])
    except OSError as error:
        if HostError.knows(error):
            raise
        raise PvmlabError(
            f"the picture cannot be written to {path}", details=str(error), resolution="choose another --file"
        ) from None


def _dump_screen(machine: Machine, path: Path) -> None:
    try:
        with qmp.connect(machine.qmp_socket) as client:
            client.execute("screendump", {"filename": str(path), "format": "png"}, timeout=_TIMEOUT)
    except qmp.QmpError as error:
        raise ConflictError(
            f"there is no picture of {machine.name}: {error.brief}",
            details=error.details,
            resolution="a machine that was started without a graphics card has none: "
            f"./pvmlab vm.logs {machine.name} shows its serial console",
        ) from None


def _size(head: bytes) -> tuple[int, int]:
    """Return width and height of a PNG (its IHDR chunk comes first)."""
    if not head.startswith(_PNG) or len(head) < 24:
        raise PvmlabError("QEMU wrote no PNG", resolution="QEMU 7.1 or newer is needed for screenshots")
    width, height = struct.unpack_from(">II", head, 16)
    return width, height
