"""A snapshot of a Debian suite: the archive's signed indices of one moment, as one file.

Which packages a set consists of is found out from it, without the network. It stays what it is until it is removed:
then the next build takes the archive as it is that day. It is a compressed tar: for the suite, its updates and
its security updates ``<name>/InRelease`` and ``<name>/Packages``. The mirror leaves no trace in it.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zstandard

from contracts.arch import Arch
from pipeline.artifact import Making
from pipeline.debian.apt_root import AptRoot, make_apt_root
from pipeline.debian.apt_sources import Mirror
from pipeline.debian.mmdebstrap import open_tar_zst
from pipeline.errors import PvmlabError
from pipeline.tree_tar import TreeTar

_ZSTD_LEVEL = 3
_TIMEOUT = 1800.0  # seconds; a slow mirror is slow, but not for ever
_DATE = re.compile(r"^Date: (.+)$", re.MULTILINE)


def make_snapshot(suite: str, arch: Arch, mirror: Mirror, *, making: Making) -> Mapping[str, Any]:
    """Write the indices of *suite* to the making's output; apt has verified their signatures and digests.

    :returns: facts for the sidecar: the archives in it, and the date of the newest.
    :raises CommandError: if apt cannot fetch or does not trust them.
    """
    making.report("fetching package lists")
    sources = mirror.source_lines(suite)
    root = make_apt_root(making.scratch / "apt", arch=arch, sources=sources, options=mirror.options)
    root.run(["apt-get", "update", "--error-on=any"], timeout=_TIMEOUT, network=True, log=making.log)
    archives = [name for name in (suite, f"{suite}-updates", f"{suite}-security") if _find(root, name, "InRelease")]
    plain = making.scratch / "snapshot.tar"
    with TreeTar(plain) as tree:
        for name in archives:
            for index, found in (("InRelease", "InRelease"), ("Packages", f"main_binary-{arch.debian}_Packages")):
                tree.file(f"{name}/{index}", _require(root, name, found).read_bytes())
    with plain.open("rb") as source, making.output.open("wb") as sink:
        zstandard.ZstdCompressor(level=_ZSTD_LEVEL).copy_stream(source, sink, size=plain.stat().st_size)
    releases = [_require(root, name, "InRelease").read_text() for name in archives]
    return {"archives": archives, "date": newest_date(releases).isoformat()}


def read_snapshot(path: Path) -> dict[str, bytes]:
    """Return the indices in a snapshot: ``trixie/InRelease``, ``trixie/Packages`` and so on.

    :raises PvmlabError: if it holds none.
    """
    found = {}
    with open_tar_zst(path) as archive:
        for member in archive:
            if member.isfile() and (stream := archive.extractfile(member)) is not None:
                found[member.name] = stream.read()
    if not found:
        raise PvmlabError(f"{path.name} holds no package lists", details=str(path), resolution="doit clean snapshot")
    return found


def newest_date(releases: Iterable[str]) -> dt.datetime:
    """Return the newest date of the archives' InRelease files, given as their texts.

    :raises PvmlabError: if one has no date.
    """
    dates = []
    for text in releases:
        match = _DATE.search(text)
        if match is None:
            raise PvmlabError("an InRelease file of the archive has no date")
        dates.append(email.utils.parsedate_to_datetime(match[1]).astimezone(dt.UTC))
    return max(dates)


def _find(root: AptRoot, archive: str, index: str) -> Path | None:
    """Return apt's file of an index; apt makes its name from the URI."""
    found = sorted(root.lists.glob(f"*_dists_{archive}_{index}"))
    return found[0] if found else None


def _require(root: AptRoot, archive: str, index: str) -> Path:
    path = _find(root, archive, index)
    if path is None:
        raise PvmlabError(f"the mirror has no {index} of {archive}")
    return path
