"""Layers of a file system merged as overlayfs shows them (Documentation/filesystems/overlayfs.rst), as a stream.

The layers are read from the top down, each once: what a layer has at a path hides what those below have there, so a
member can be passed on as it comes. Only names are kept in memory. Of directories in several layers the topmost's
owner, mode and time count, and their contents come together, unless one is *opaque*. A *whiteout* (a character device
0:0) hides what is below and is not there itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

from pipeline.errors import PvmlabError
from pipeline.media.member import Member, MemberKind

_PREFIXES = ("trusted.overlay.", "user.overlay.")
# What else overlayfs notes is of use only while it is mounted (origin, impure, nlink, ...), or changes what is to be
# seen in ways that layers made to be published do not use: then the result would be wrong.
_REFUSED = frozenset({"metacopy", "redirect", "whiteout"})


class LayerError(PvmlabError):
    """Layers cannot be merged: one uses something of overlayfs that is not known here, or contradicts itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer.

    :ivar name: what people know it by.
    :ivar read: yields its members, each directory before what is in it, a hard link after the file it is the same as.
        It is called a second time if a layer above hides a file that has another name which is still to be seen.
    """

    name: str
    read: Callable[[], Generator[Member, None, None]]


def merge(layers: Sequence[Layer]) -> Generator[Member, None, None]:
    """Yield what is to be seen of *layers*, the lowest first: each directory before what is in it, no name twice.

    The content of a file is to be read before the next member is asked for.

    :raises LayerError: if a layer uses what is not known here. Whatever reading a layer raises comes out as it is.
    """
    view = _View()
    for layer in reversed(layers):
        yield from view.below(layer)


class _View:
    """What the layers so far show.

    :ivar _directories: those that may get more from the layers below. :ivar _ends: paths at which the layers below
        show nothing any more: there is something that is no directory, or an opaque one, or a whiteout.
    """

    def __init__(self) -> None:
        self._directories: set[str] = set()
        self._ends: set[str] = set()

    def below(self, layer: Layer) -> Iterator[Member]:
        """Yield what the next layer down adds."""
        ends: set[str] = set()  # they hold for the layers further down, not for what else is in this one
        links = _Links()
        with contextlib.closing(layer.read()) as members:
            for member in members:
                if self._is_hidden(member.path):
                    continue
                is_opaque = _is_opaque(member, layer)
                if member.kind is not MemberKind.DIRECTORY or is_opaque:
                    ends.add(member.path)
                if member.path in self._directories or _is_whiteout(member):
                    continue  # the directory of a layer above is what is seen here
                if member.kind is MemberKind.DIRECTORY:
                    self._directories.add(member.path)
                if links.can_show(member):
                    yield _without_notes(member)
        yield from _found_again(layer, links.lost)
        self._ends |= ends

    def _is_hidden(self, path: str) -> bool:
        end = len(path)
        while end != -1:
            if path[:end] in self._ends:
                return True
            end = path.rfind("/", 0, end)
        return False


class _Links:
    """The hard links of one layer. :ivar lost: files that are hidden, to their other names that are not."""

    def __init__(self) -> None:
        self._shown: set[str] = set()
        self.lost: dict[str, list[Member]] = {}

    def can_show(self, member: Member) -> bool:
        """Return whether *member* can be shown now: not if it is another name of a file that is hidden."""
        if member.kind is MemberKind.FILE:
            self._shown.add(member.path)
        if member.kind is MemberKind.HARDLINK and member.target not in self._shown:
            self.lost.setdefault(member.target, []).append(member)
            return False
        return True


def _found_again(layer: Layer, lost: Mapping[str, Sequence[Member]]) -> Iterator[Member]:
    """Yield the files *lost* under their other names; their contents have passed by already, so read *layer* again."""
    missing = set(lost)
    if not missing:
        return
    with contextlib.closing(layer.read()) as members:
        for member in members:
            if member.kind is MemberKind.FILE and member.path in missing:
                first, *others = lost[member.path]
                yield _without_notes(dataclasses.replace(member, path=first.path))
                yield from (dataclasses.replace(other, target=first.path) for other in others)
                missing.discard(member.path)
                if not missing:
                    return
    path = min(missing)
    raise LayerError(
        f"the layer {layer.name} contradicts itself",
        details=f"{lost[path][0].path} is a hard link to {path}, which is no file in it",
        resolution="fetch the medium again",
    )


def _is_whiteout(member: Member) -> bool:
    return member.kind is MemberKind.CHARACTER_DEVICE and member.device == (0, 0)


def _is_opaque(member: Member, layer: Layer) -> bool:
    """Return whether *member* hides what the layers below have in it, by the notes that overlayfs left.

    :raises LayerError: if there is a note that would change what is to be seen in another way.
    """
    notes = {name.removeprefix(prefix): value for prefix in _PREFIXES for name, value in member.xattrs.items()
             if name.startswith(prefix)}  # fmt: skip
    opaque = notes.get("opaque", b"")
    unknown = sorted(_REFUSED & notes.keys()) or (["opaque"] if opaque not in {b"", b"y"} else [])
    if unknown:
        raise LayerError(
            f"the layer {layer.name} cannot be merged",
            details=f"{member.path} has overlayfs's attribute {unknown[0]!r}, which only the kernel can follow",
            resolution="merge the layers by mounting them, and use the result as a root filesystem tarball",
        )
    return opaque == b"y"


def _without_notes(member: Member) -> Member:
    if not any(name.startswith(_PREFIXES) for name in member.xattrs):
        return member
    kept = {name: value for name, value in member.xattrs.items() if not name.startswith(_PREFIXES)}
    return dataclasses.replace(member, xattrs=kept)
