"""Archives made byte by byte, so that they may hold what no honest tool would write."""

from __future__ import annotations

import dataclasses
import io
import stat
import tarfile
from collections.abc import Iterable, Mapping

TAR_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Item:
    """A member as it is to be written, right or wrong.

    :ivar kind: file type bits of ``st_mode``. :ivar hardlink: the member it is the same as, in a tar.
    """

    name: str
    content: bytes = b""
    kind: int = stat.S_IFREG
    mode: int = 0o644
    target: str = ""
    hardlink: str = ""
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = dataclasses.field(default_factory=dict)
    links: int = 1
    inode: int = 0


def directory(name: str) -> Item:
    """Return a directory."""
    return Item(name, kind=stat.S_IFDIR, mode=0o755)


def symlink(name: str, target: str) -> Item:
    """Return a symbolic link."""
    return Item(name, kind=stat.S_IFLNK, mode=0o777, target=target)


def tar(items: Iterable[Item], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of *items*; names may hold bytes as surrogates."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for item in items:
            member = tarfile.TarInfo(item.name)
            member.type = tarfile.LNKTYPE if item.hardlink else TAR_TYPES[item.kind]
            member.linkname = item.hardlink or item.target
            member.mode, member.size = item.mode, len(item.content)
            member.devmajor, member.devminor = item.device
            member.pax_headers = dict(item.pax)
            archive.addfile(member, io.BytesIO(item.content))
    return stream.getvalue()


def cpio(items: Iterable[Item]) -> bytes:
    """Return a newc archive of *items* with its trailer."""
    return b"".join(map(_newc, [*items, Item("TRAILER!!!", kind=0, mode=0)]))


def _newc(item: Item) -> bytes:
    name = item.name.encode(errors="surrogateescape") + b"\0"
    content = item.target.encode() if item.kind == stat.S_IFLNK else item.content
    fields = [item.inode, item.kind | item.mode, 0, 0, item.links, 0, len(content), 0, 0, *item.device, len(name), 0]
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
