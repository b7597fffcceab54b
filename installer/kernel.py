"""Whether the kernel is the one that was built, as far as that can be told: Linux keeps no copy of its own file.

So the file is fetched again, and its digest compared: it is damaged on the server, or changed there, or what is between
hands out another. Then what the running kernel calls itself is compared with what that file says: an older kernel, or
another one, was booted. A bit that changed when the firmware or iPXE read the file, and only then, is not found.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from contracts.install import PayloadSource
from installer.download import OnProgress, download
from installer.errors import InstallError

_MAGIC, _MAGIC_PLACE, _POINTER_PLACE = b"HdrS", 0x202, 0x20E  # Documentation/arch/x86/boot.rst, "kernel header"
_HEADER = 0x200  # the pointer counts from here
_LONGEST_NAME = 512  # bytes
_HEAD = _HEADER + (1 << 16) + _LONGEST_NAME  # bytes: a pointer of 16 bits cannot lead beyond


def verify(source: PayloadSource, *, running: str, on_progress: OnProgress) -> str:
    """Compare the kernel at *source* with its digest, and *running* with what it says; return a sentence about it.

    :param running: what :func:`running_name` returns. :param on_progress: called with the bytes taken so far.
    :raises InstallError: if the file cannot be had, is not the one promised, or another one runs.
    """
    head = bytearray()
    download(source, what="the kernel on the server", write=_collect(head), on_progress=on_progress)
    name = read_name(bytes(head))
    if name is None:
        return f"the kernel on the server is the one promised; whether it is the one that runs, {running}, is not told"
    if name != running:
        raise InstallError(
            "the kernel that runs is not the one promised: something on its way kept another, "
            "or it was built again meanwhile",
            lines=(f"promised {name}", f"runs {running}", f"url {source.url}"),
        )
    return f"the kernel is the one promised: {name}"


def running_name() -> str:
    """Return what the running kernel calls itself: its release, and which build of it (uname(2))."""
    about = os.uname()
    return f"{about.release} {about.version}"


def read_name(head: bytes) -> str | None:
    """Return what a kernel calls itself when it runs, by the beginning of its file; None if that does not say.

    x86 kernels say it in their header, as ``release (user@host) #build``; those of arm64 are packed as a whole.
    """
    if head[_MAGIC_PLACE : _MAGIC_PLACE + len(_MAGIC)] != _MAGIC:
        return None
    (pointer,) = struct.unpack_from("<H", head, _POINTER_PLACE)
    text = head[_HEADER + pointer :][:_LONGEST_NAME].partition(b"\0")[0].decode(errors="replace")
    release, build = text.partition(" ")[0], text.partition(" #")[2]
    return f"{release} #{build}" if pointer and release and build else None


def _collect(head: bytearray) -> Callable[[bytes], object]:
    def write(piece: bytes) -> None:
        head.extend(piece[: _HEAD - len(head)])

    return write
