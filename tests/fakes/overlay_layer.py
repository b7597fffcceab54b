"""A layer as overlayfs leaves it in its upper directory: what one tree has differently from another, as a tar."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_OPAQUE = "SCHILY.xattr.trusted.overlay.opaque"
_Look = tuple[object, ...]


def write_layer(lower: Path, upper: Path, output: Path) -> dict[str, int]:
    """Write the difference between two uncompressed tars of whole trees; return how many members of each sort.

    A directory none of whose entries is left is opaque; whiteouts are one inode with many names, as the kernel makes
    them (since Linux 5.8).
    """
    with tarfile.open(lower, "r:") as below, tarfile.open(upper, "r:") as above:
        hidden, shown = _looks(below), _looks(above)
        changed = {path for path, look in shown.items() if hidden.get(path) != look}
        opaque = {path for path in shown if _is_emptied(path, hidden, shown)}
        for path in [*changed]:  # the directories above come along, as overlayfs copies them up
            changed.update(str(parent) for parent in PurePosixPath(path).parents)
        gone = sorted(path for path in hidden.keys() - shown.keys() if _is_first_gone(path, shown, opaque))
        changed |= {str(parent) for path in (*gone, *opaque) for parent in (*PurePosixPath(path).parents,)} | opaque
        count = {"changed": 0, "opaque": len(opaque), "whiteouts": len(gone)}
        with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as layer:
            for member in above:
                path = _path(member)
                if path in changed:
                    _add(layer, above, member, is_opaque=path in opaque, written=changed)
                    count["changed"] += 1
            for number, path in enumerate(gone):
                whiteout = tarfile.TarInfo(path)
                whiteout.type, whiteout.mode = tarfile.CHRTYPE, 0
                if number:
                    whiteout.type, whiteout.linkname = tarfile.LNKTYPE, gone[0]
                layer.addfile(whiteout)
    return count


def _looks(archive: tarfile.TarFile) -> dict[str, _Look]:
    """Return what each member looks like; the time counts for files only."""
    found: dict[str, _Look] = {}
    for member in archive:
        xattrs = tuple(sorted((name, value) for name, value in member.pax_headers.items() if name.startswith("SCHILY")))
        look: _Look = (member.type, member.mode, member.uid, member.gid, member.linkname, xattrs)
        if member.isreg():
            stream = archive.extractfile(member)
            assert stream is not None
            look += (int(member.mtime), hashlib.sha256(stream.read()).hexdigest())
        found[_path(member)] = look
    return found


def _is_emptied(path: str, hidden: dict[str, _Look], shown: dict[str, _Look]) -> bool:
    if hidden.get(path, ("",))[0] != tarfile.DIRTYPE or shown[path][0] != tarfile.DIRTYPE:
        return False
    before = set(_children(path, hidden))
    return len(before) > 1 and not before & shown.keys()


def _children(path: str, tree: dict[str, _Look]) -> Iterator[str]:
    return (each for each in tree if str(PurePosixPath(each).parent) == path and each != path)


def _is_first_gone(path: str, shown: dict[str, _Look], opaque: set[str]) -> bool:
    """Return whether *path* needs a whiteout: what lies in a directory that is gone, or opaque, needs none."""
    parent = str(PurePosixPath(path).parent)
    return parent in shown and shown[parent][0] == tarfile.DIRTYPE and parent not in opaque


def _add(
    layer: tarfile.TarFile, source: tarfile.TarFile, member: tarfile.TarInfo, *, is_opaque: bool, written: set[str]
) -> None:
    if is_opaque:
        member.pax_headers = {**member.pax_headers, _OPAQUE: "y"}
    content = source.extractfile(member) if member.isreg() or member.islnk() else None
    if member.islnk() and str(PurePosixPath(member.linkname)) not in written:
        target = source.getmember(member.linkname)  # copied up, it is a file of its own
        member.type, member.size, member.linkname = tarfile.REGTYPE, target.size, ""
    layer.addfile(member, content if member.isreg() else None)


def _path(member: tarfile.TarInfo) -> str:
    return str(PurePosixPath(member.name))
