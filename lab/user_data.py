"""A person's own user-data for one machine: read, and looked at as far as one can without cloud-init's schema."""

from __future__ import annotations

from pathlib import Path

from contracts.nocloud import MAX_OWN_USER_DATA
from pipeline.errors import NotFoundError, UsageError


def read_user_data(path: Path) -> str:
    """Return the user-data in the file *path*.

    :raises NotFoundError: if it cannot be read. :raises UsageError: if it cannot be user-data.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_OWN_USER_DATA + 1)
    except OSError as error:
        raise NotFoundError(
            f"the user-data {path} cannot be read",
            details=error.strerror or str(error),
            resolution="name a file that you may read",
        ) from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the user-data {path.name} is not UTF-8: {error.reason} at byte {error.start}") from None
    if fault := find_fault(text):
        raise UsageError(f"the user-data {path.name} {fault}")
    return text


def find_fault(text: str) -> str:
    """Return why *text* cannot be user-data, as the end of a sentence about it; nothing if it may be."""
    if len(text.encode()) > MAX_OWN_USER_DATA:
        return f"is longer than {MAX_OWN_USER_DATA // 1024} KiB"
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "is no text"
    return ""
