"""One file of an archive or a file system that somebody else made, as it passes by."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping


class MemberKind(enum.StrEnum):
    """What a member is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hard link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "named pipe"
    SOCKET = "socket"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One file.

    :ivar path: relative, with forward slashes, in its shortest form (no ``.``, ``..``, empty parts).
    :ivar mode: permission bits with setuid, setgid and sticky, no file type.
    :ivar mtime: whole seconds since 1970.
    :ivar size: bytes of content, of a file only.
    :ivar target: where a symbolic link points, as written; for a hard link the path of the member it is the same as.
    :ivar device: major and minor number of a device.
    :ivar xattrs: extended attributes, full name (``security.capability``) to value.
    :ivar content: the bytes of a file in pieces; to be read before the next member is asked for.
    """

    path: str
    kind: MemberKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    content: Iterable[bytes] = ()
