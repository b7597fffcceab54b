"""Which shared libraries programs need: the closure over DT_NEEDED, found inside a tree, never on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PvmlabError

if TYPE_CHECKING:
    from elftools.elf.dynamic import DynamicTag

# Debian's multiarch directories and the ABI's own; /lib and /lib64 are links into usr.
_LIBRARY_FOLDERS = ("usr/lib/*-linux-gnu", "usr/lib64", "usr/lib")


class LibraryNotFoundError(PvmlabError):
    """A program in a tree needs a library that the tree does not hold."""

    def __init__(self, library: str, *, needed_by: Path) -> None:
        self.library = library
        self.needed_by = needed_by
        super().__init__(
            f"{needed_by.name} needs the shared library {library}, which is not in the tree",
            details=f"needed by: {needed_by}",
            resolution="add the package that holds the library to the list the tree is made from",
        )


@dataclasses.dataclass(frozen=True)
class Dynamic:
    """What the dynamic linker reads in a program. :ivar interpreter: path of the linker itself, None in a library."""

    interpreter: str | None
    needed: tuple[str, ...]


def read_dynamic(path: Path) -> Dynamic:
    """Return what *path* asks of the dynamic linker; nothing for a static program.

    :raises PvmlabError: if it is not an ELF file.
    """
    # Imported here: 45 ms that every run of doit would pay, to find that nothing is to be built.
    from elftools.common.exceptions import ELFError  # noqa: PLC0415
    from elftools.elf.dynamic import DynamicSection  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415
    from elftools.elf.segments import InterpSegment  # noqa: PLC0415

    try:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            interpreters = [s.get_interp_name() for s in elf.iter_segments() if isinstance(s, InterpSegment)]
            sections = [s for s in elf.iter_sections() if isinstance(s, DynamicSection)]
            needed = [_needed_name(tag) for section in sections for tag in section.iter_tags("DT_NEEDED")]
    except ELFError as error:
        raise PvmlabError(f"{path} is not an ELF file", details=str(error)) from None
    return Dynamic(interpreters[0] if interpreters else None, tuple(needed))


def _needed_name(tag: DynamicTag) -> str:
    return str(tag.needed)  # type: ignore[attr-defined]  # set by name at run time, for the tags that have a string


def find_libraries(tree: Path, programs: Iterable[Path]) -> dict[str, Path]:
    """Return all libraries that *programs* need, directly or not, and their dynamic linkers.

    :return: path in the tree (as ``usr/lib/x86_64-linux-gnu/libc.so.6``) to the file that has the content.
    :raises LibraryNotFoundError: if one is missing.
    """
    found: dict[str, Path] = {}
    queue = list(programs)
    while queue:
        program = queue.pop()
        dynamic = read_dynamic(program)
        names = [*dynamic.needed, *([Path(dynamic.interpreter).name] if dynamic.interpreter else [])]
        for name in names:
            library = _require_library(tree, name, needed_by=program)
            place = library.relative_to(tree).as_posix()
            if place not in found:
                found[place] = library
                queue.append(library)
    return found


def _require_library(tree: Path, name: str, *, needed_by: Path) -> Path:
    for pattern in _LIBRARY_FOLDERS:
        for folder in sorted(tree.glob(pattern)):
            if (folder / name).is_file():
                return folder / name
    raise LibraryNotFoundError(name, needed_by=needed_by)


def linker_links(programs: Iterable[Path], libraries: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Return the links that lead from where *programs* say their dynamic linker is (``/lib64/...``) to where it is.

    :param libraries: what :func:`find_libraries` found for them. :returns: pairs of the link's path and its target.
    """
    wanted = {interpreter for program in programs if (interpreter := read_dynamic(program).interpreter)}
    places = {place.rsplit("/", 1)[-1]: place for place in libraries}
    links = {f"usr{interpreter}": places[interpreter.rsplit("/", 1)[-1]] for interpreter in sorted(wanted)}
    return [(path, f"/{place}") for path, place in links.items() if path != place]
