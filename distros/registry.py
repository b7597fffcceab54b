"""Finds the distribution files: those of this project, and those in the folders that ``PVMLAB_DISTROS`` names.

A folder holds ``<name>.yaml`` for each release, ``lock.yaml`` and ``keys/<fingerprint>.asc``.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path

from contracts.arch import Arch
from distros import lock
from distros.definition import parse_definition
from distros.lock import Lock
from distros.release import Locked, MediumKind, Release
from distros.strict_yaml import DefinitionError, Fault
from pipeline.errors import ConflictError, NotFoundError, PvmlabError, UsageError

SHIPPED = Path(__file__).parent
VARIABLE = "PVMLAB_DISTROS"


def folders() -> tuple[Path, ...]:
    """Return the folders with definitions: this project's, then those of ``PVMLAB_DISTROS`` (colons between them).

    :raises UsageError: if one of them is not there.
    """
    found = [SHIPPED]
    for word in filter(None, os.environ.get(VARIABLE, "").split(":")):
        folder = Path(word).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(
                f"{VARIABLE} names {word}, which is no folder", resolution=f"make it, or change {VARIABLE}"
            )
        found.append(folder)
    return tuple(dict.fromkeys(found))


def releases() -> Mapping[str, Release]:
    """Return all known releases by name, sorted.

    :raises PvmlabError: if a file is broken, or two are of the same name.
    """
    return _load(folders())


def reload() -> None:
    """Have the files read again."""
    _load.cache_clear()


def require_release(name: str, arch: Arch) -> Release:
    """Return the release called *name*, which is there for *arch*.

    :raises NotFoundError: if there is no such release. :raises UsageError: if it has no such architecture.
    """
    release = find_release(name)
    if arch not in release.arches:
        raise UsageError(f"{name} cannot be built for {arch}", resolution=f"it can for: {', '.join(release.arches)}")
    return release


def find_release(name: str) -> Release:
    """Return the release called *name*. :raises NotFoundError: if there is none."""
    if name not in releases():
        raise NotFoundError(f"there is no distribution {name!r}", resolution=f"known are: {', '.join(releases())}")
    return releases()[name]


def definition_file(name: str) -> Path:
    """Return the file that defines the release *name*. :raises NotFoundError: if there is none."""
    find_release(name)
    return next(path for folder in folders() if (path := folder / f"{name}.yaml").is_file())


def key_file(fingerprint: str) -> Path:
    """Return the file of the OpenPGP key that definitions pin by *fingerprint* (40 hex digits, upper case).

    :raises NotFoundError: if there is none in any folder.
    """
    for folder in folders():
        if (path := folder / "keys" / f"{fingerprint}.asc").is_file():
            return path
    raise NotFoundError(
        f"the key {fingerprint} is not there",
        details="looked in: " + ", ".join(str(folder / "keys") for folder in folders()),
        resolution="get it from the distribution, compare the fingerprint with what it publishes elsewhere, then "
        f"gpg --armor --export-options export-minimal --export {fingerprint} >keys/{fingerprint}.asc "
        "in the folder of its definition",
    )


def read_lock(folder: Path) -> Lock:
    """Return the lock of a *folder* of definitions; an empty one if there is none.

    :raises DefinitionError: if it is broken.
    """
    path = folder / lock.FILE_NAME
    return lock.parse_lock(_read(path), file=path) if path.exists() else {}


def load_folder(folder: Path) -> dict[str, Release]:
    """Return the releases that a *folder* defines, with what its lock says of them.

    :raises DefinitionError: if a file is broken.
    """
    locked, found = dict(read_lock(folder)), {}
    for file in sorted(folder.glob("*.yaml")):
        if file.name != lock.FILE_NAME:
            release = parse_definition(_read(file), file=file)
            found[release.name] = _with_lock(release, locked.pop(release.name, {}), folder / lock.FILE_NAME)
    if locked:
        raise _no_such(folder / lock.FILE_NAME, [f"{name}: no file here defines it" for name in locked])
    return found


@functools.lru_cache(maxsize=8)
def _load(places: tuple[Path, ...]) -> Mapping[str, Release]:
    found: dict[str, tuple[Release, Path]] = {}
    for folder in places:
        for name, release in load_folder(folder).items():
            if name in found:
                raise ConflictError(
                    f"two files define the distribution {name!r}",
                    details=f"{found[name][1] / name}.yaml\n{folder / name}.yaml",
                    resolution="give one of them another name",
                )
            found[name] = release, folder
    return {name: found[name][0] for name in sorted(found, key=_by_number)}


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort rocky-9 before rocky-10."""
    words = name.replace(".", "-").split("-")
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]


def _with_lock(release: Release, entries: Mapping[tuple[Arch, MediumKind], Locked], file: Path) -> Release:
    strays = []
    for arch, kind in entries:
        sources = release.sources.get(arch)
        medium = sources.media.get(kind) if sources is not None else None
        if medium is None:
            strays.append(f"{release.name}.{arch}.{kind}: its definition has no such medium")
        elif medium.checksums is not None:
            strays.append(f"{release.name}.{arch}.{kind}: its definition has signed checksums, which decide")
    if strays:
        raise _no_such(file, strays)
    return dataclasses.replace(release, locked=dict(entries))


def _no_such(file: Path, what: list[str]) -> DefinitionError:
    return DefinitionError(file, [Fault(1, 1, "", each) for each in what])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DefinitionError(file, [Fault(1, 1, "", f"it is no UTF-8 text: {error.reason}")]) from None
    except OSError as error:
        raise PvmlabError(f"{file} cannot be read: {error.strerror}") from None
