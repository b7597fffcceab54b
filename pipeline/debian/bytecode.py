"""Python's compiled files in a root filesystem tar: bound to the times of their sources.

With ``SOURCE_DATE_EPOCH`` set, as it must be for a reproducible installation, Python's compiler makes files that are
valid for a *hash* of the source (PEP 552): every start of Python then reads and hashes all it imports, which under
emulation takes seconds. In a tar the times are fixed as well, so the files are turned into what they would have been.
The code in them is the same for both; the difference is in the 16 bytes before it.
"""

from __future__ import annotations

import posixpath
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

_FOLDER = "__pycache__"
_HEADER = struct.Struct("<4sIII")  # magic, flags, and then the source's time and size, or its 64-bit hash
_BY_TIME, _BY_CHECKED_HASH = 0b00, 0b11


def bind_to_times(archive: Path) -> int:
    """Turn the compiled files in the uncompressed tar *archive* that are bound to hashes; return how many there were.

    One whose source is not in the archive as a file of its own stays as it is: slower, but valid.
    """
    with tarfile.open(archive, "r:") as stored:
        members = {str(PurePosixPath(member.name)): member for member in stored if member.isreg() or member.issym()}
    turned = 0
    with archive.open("r+b") as stream:
        for name, member in members.items():
            source = _find_source(name, members)
            if source is None or not member.isreg():
                continue
            stream.seek(member.offset_data)
            magic, flags, *_ = _HEADER.unpack(stream.read(_HEADER.size))
            if flags == _BY_CHECKED_HASH:
                stream.seek(member.offset_data)
                stream.write(_HEADER.pack(magic, _BY_TIME, int(source.mtime) & 0xFFFFFFFF, source.size & 0xFFFFFFFF))
                turned += 1
    return turned


def _find_source(compiled: str, members: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """Return the source of ``a/__pycache__/b.cpython-313.pyc`` (PEP 3147), the file itself if it is a link."""
    path = PurePosixPath(compiled)
    if path.suffix != ".pyc" or path.parent.name != _FOLDER:
        return None
    folder = path.parent.parent
    source = members.get(str(folder / f"{path.name.split('.')[0]}.py"))
    if source is not None and source.issym():
        source = members.get(posixpath.normpath(folder / source.linkname).lstrip("/"))
    return source if source is not None and source.isreg() else None
