"""What is done with files of Debian packages (deb(5)) besides installing them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact import Making
from pipeline.errors import PvmlabError
from pipeline.run import run

_HEADER = re.compile(rb"!<arch>\ndebian-binary   (\d+) *")
_TIMEOUT = 600.0


def unpack_debs(debs: Sequence[Path], into: Path, *, making: Making) -> None:
    """Unpack the files of packages, nothing more, into the new directory *into*.

    :raises CommandError: if one is damaged.
    """
    into.mkdir()
    for number, deb in enumerate(debs):
        making.report("unpacking packages", number, len(debs), unit="packages")
        run(["dpkg-deb", "--extract", deb, into], timeout=_TIMEOUT, log=making.log)


def newest_time(debs: Sequence[Path]) -> int:
    """Return when the youngest of the packages was made, in seconds since 1970: the time of all that is made of them.

    It is in the header of their first member (deb(5)): the same wherever they come from.

    :raises PvmlabError: if one is no Debian package.
    """
    times = []
    for deb in debs:
        with deb.open("rb") as stream:
            match = _HEADER.match(stream.read(60))
        if match is None:
            raise PvmlabError(f"{deb.name} is no Debian package", details=str(deb))
        times.append(int(match[1]))
    return max(times)
