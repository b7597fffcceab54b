"""What an archive or a disc that somebody else made may be at most, so that none can fill the disk or the memory."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The caps. What is over one is refused with an error, at most 1 MiB after it was passed.

    :ivar total: bytes of the archive when decompressed, and of the contents of all members together.
    :ivar member: bytes of one member's content.
    :ivar members: how many there may be.
    :ivar ratio: decompressed bytes for each compressed one, once *ratio_from* bytes are decompressed. A root file
        system has 3 to 6; a bomb of zeros has 1,000 in gzip and up to 30,000 in zstd.
    :ivar xattrs: bytes of the extended attributes of one member, names and values.
    """

    total: int = 64 << 30
    member: int = 32 << 30
    members: int = 500_000
    ratio: int = 250
    ratio_from: int = 64 << 20
    xattrs: int = 256 << 10


USUAL = Limits()
"""More than the root filesystem of any distribution needs."""
