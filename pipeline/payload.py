"""The tree digest of an archive's entries, as :mod:`contracts.payload` has it, for the archive's sidecar."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable

from contracts import payload
from pipeline import cpio

FACT = "tree"
"""What the digest is called among the sidecar's facts."""


def tree_digest(entries: Iterable[cpio.Entry], *, modules: bool) -> str:
    """Return the digest of what *entries* unpack to.

    :param modules: whether they are a kernel's modules, or the installer's initrd.
    :raises ValueError: if an entry belongs to the other archive, or see :func:`pipeline.cpio.arrange`.
    """
    lines = []
    for entry in cpio.arrange(entries):
        above = entry.path == payload.MODULES or payload.MODULES.startswith(f"{entry.path}/")
        if not payload.counts(entry.path) or (modules and above):
            continue
        if payload.is_of_modules(entry.path) is not modules:
            raise ValueError(f"{entry.path} is {'no module' if modules else 'in the place of the modules'}")
        lines.append(payload.line_of(entry.path, entry.mode, _content(entry)))
    return payload.digest_lines(lines)


def _content(entry: cpio.Entry) -> str:
    if stat.S_ISLNK(entry.mode):
        return entry.data.decode()
    return hashlib.sha256(entry.data).hexdigest() if stat.S_ISREG(entry.mode) else ""
