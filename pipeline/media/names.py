"""Names out of foreign media, as paths that are safe to use and to print; or the reason why one is not."""

from __future__ import annotations

import unicodedata

_LONGEST_PATH = 4095  # bytes; PATH_MAX of Linux has room for a zero byte too
_LONGEST_PART = 255  # bytes; NAME_MAX


class UnsafeNameError(ValueError):
    """A name that is refused; the text says why."""


def safe_path(raw: bytes) -> str:
    """Return the path that the name *raw* means, relative and in its shortest form; empty for the root itself.

    :raises UnsafeNameError: if it is absolute, leaves the root (``..``), is empty, too long, not UTF-8, or has a zero
        byte, a line end or another control character in it.
    """
    if not raw:
        raise UnsafeNameError("it is empty")
    text = _printable(raw)
    if text.startswith("/"):
        raise UnsafeNameError("it is absolute")
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UnsafeNameError('there is a ".." in it')
    if any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise UnsafeNameError(f"a part of it is longer than {_LONGEST_PART} bytes")
    return "/".join(parts)


def safe_target(raw: bytes) -> str:
    """Return what a symbolic link points at, as written: any path, but one that can be printed.

    :raises UnsafeNameError: if it is empty, too long, not UTF-8 or has control characters in it.
    """
    if not raw:
        raise UnsafeNameError("it is empty")
    return _printable(raw)


def shown(raw: bytes) -> str:
    """Return *raw* for a message: quoted, on one line, at most 80 characters of it."""
    text = ascii(raw.decode(errors="backslashreplace"))
    return text if len(text) <= 80 else f"{text[:76]}...{text[0]}"


def _printable(raw: bytes) -> str:
    if len(raw) > _LONGEST_PATH:
        raise UnsafeNameError(f"it is longer than {_LONGEST_PATH} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UnsafeNameError("it is not UTF-8") from None
    if "\0" in text:
        raise UnsafeNameError("there is a zero byte in it")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise UnsafeNameError("there is a line end or another control character in it")
    return text
