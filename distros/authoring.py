"""Writes and removes distribution files, for people who would rather not do it by hand.

A definition and its entry in the lock are two files. They are written and removed in such an order that a crash in
between leaves a release of which no digest is known, never a lock that does not fit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from contracts.arch import Arch
from distros import lock, registry
from distros.definition import parse_definition
from distros.family import Family
from distros.release import Locked, Medium, MediumKind, Release
from pipeline.commit import publish_text
from pipeline.errors import ConflictError, UsageError

_PATIENCE = 10.0  # seconds; whoever else writes here is done in a tenth of one


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewRelease:
    """A release with one medium for one architecture, to be defined. :ivar locked: what is known of the medium."""

    name: str
    title: str
    family: Family
    arch: Arch
    medium: Medium
    locked: Locked


def folder_for_new() -> Path:
    """Return where new definitions go: the first folder of ``PVMLAB_DISTROS``, else this project's.

    :raises UsageError: if it is not there.
    """
    return registry.folders()[:2][-1]


def render_definition(new: NewRelease) -> str:
    """Return the text of the definition."""
    mirrors = [f"        - {mirror}" for mirror in new.medium.mirrors]
    lines = [
        f"name: {new.name}", f"title: {_quoted(new.title)}", f"family: {new.family}", "sources:", f"  {new.arch}:",
        f"    {new.medium.kind}:", *(["      mirrors:", *mirrors] if mirrors else ["      mirrors: []"]),
        f"      file: {_quoted(new.medium.file)}",
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


def define(new: NewRelease, *, folder: Path) -> Path:
    """Write the definition and its lock entry in *folder*; return the definition.

    :raises ConflictError: if there is a release of that name, or somebody else writes there.
    :raises DefinitionError: if it would be refused when it is read.
    """
    path, text = folder / f"{new.name}.yaml", render_definition(new)
    parse_definition(text, file=path)
    with _writing(folder):
        registry.reload()
        if new.name in registry.releases() or path.exists():
            raise ConflictError(
                f"there is a distribution {new.name!r} already",
                details=str(path if path.exists() else registry.definition_file(new.name)),
                resolution=f"--name gives it another name, or ./pvmlab distro.remove {new.name} first",
            )
        publish_text(path, text)
        _write_entry(folder, new.name, new.arch, new.medium.kind, new.locked)
    registry.reload()
    return path


def lock_medium(release: Release, arch: Arch, kind: MediumKind, locked: Locked) -> Path:
    """Put what is known of a medium into the lock beside its definition; return the lock.

    :raises ConflictError: if it is in the lock already, or somebody else writes there.
    """
    folder = registry.definition_file(release.name).parent
    with _writing(folder):
        registry.reload()
        if (arch, kind) in registry.find_release(release.name).locked:
            raise ConflictError(f"the {kind} of {release.name}, {arch} is in the lock already")
        _write_entry(folder, release.name, arch, kind, locked)
    registry.reload()
    return folder / lock.FILE_NAME


def undefine(name: str) -> Path:
    """Remove the definition of the release *name* and what the lock says of it; return the file that was removed.

    :raises NotFoundError: if there is none. :raises ConflictError: if somebody else writes there.
    """
    path = registry.definition_file(name)
    with _writing(path.parent):
        entries = dict(registry.read_lock(path.parent))
        if entries.pop(name, None) is not None:
            publish_text(path.parent / lock.FILE_NAME, lock.render_lock(entries))
        path.unlink()
    registry.reload()
    return path


def _write_entry(folder: Path, name: str, arch: Arch, kind: MediumKind, locked: Locked) -> None:
    entries = {of: dict(known) for of, known in registry.read_lock(folder).items()}
    entries.setdefault(name, {})[arch, kind] = locked
    publish_text(folder / lock.FILE_NAME, lock.render_lock(entries))


def _quoted(text: str) -> str:
    """Return *text* as a YAML scalar that is a text whatever is in it (YAML 1.2, 7.3.2)."""
    if not text.isprintable():
        raise UsageError(f"{text!r} has characters that cannot be printed")
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Keep others from writing to *folder* meanwhile; the kernel ends it with this process, however that ends.

    :raises ConflictError: if somebody else does not come to an end.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise ConflictError(f"another pvmlab writes to {folder}", resolution="try again when it is done")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
