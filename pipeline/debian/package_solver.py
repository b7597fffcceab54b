"""Which packages a set consists of: apt's solver asked offline, on the indices of a snapshot."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path

from contracts.arch import Arch
from pipeline.artifact import Making
from pipeline.debian.apt_root import AptRoot, make_apt_root
from pipeline.debian.apt_snapshot import read_snapshot
from pipeline.debian.package_set import Package, PackageSet, parse_package
from pipeline.errors import PvmlabError

_TIMEOUT = 300.0
# Stands in for the mirror's address: apt makes the names of its lists from it, nothing is fetched.
_STAND_IN = "http://archive.invalid"
_FILE_NAME = "\nFilename: "
_PLANNED = re.compile(r"'([^']+)' \S+ \d+ ")


def resolve(wanted: PackageSet, snapshot: Path, *, making: Making) -> list[Package]:
    """Return the packages of the set, found by apt's solver from the snapshot's indices alone.

    :raises CommandError: if apt finds no solution; the log has its words.
    """
    making.report("resolving packages")
    indices = read_snapshot(snapshot)
    root = _offline_root(indices, wanted.arch, making.scratch / "apt")
    done = root.run(["apt-get", "install", "--quiet=2", "--yes", "--print-uris", *wanted.wanted()], timeout=_TIMEOUT)
    planned = parse_planned(done.stdout)
    found: dict[str, Package] = {}
    for index, text in indices.items():
        name, _, kind = index.partition("/")
        if kind == "Packages":
            base = _base(name) + "/"
            paths = [uri.removeprefix(base) for uri in planned if uri.startswith(base)]
            paragraphs = _paragraphs_of(paths, text.decode())
            found |= {base + path: parse_package(paragraphs[path], archive=_archive_of(name)) for path in paragraphs}
    if missing := set(planned) - found.keys():
        raise PvmlabError(f"the snapshot {snapshot.name} has no {min(missing)}, which apt found in it")
    return sorted(found.values(), key=lambda package: package.name)


def parse_planned(text: str) -> list[str]:
    """Return the URIs in the output of ``apt-get --print-uris``.

    :raises PvmlabError: if there is none.
    """
    uris = [urllib.parse.unquote(match[1]) for line in text.splitlines() if (match := _PLANNED.match(line))]
    if not uris:
        raise PvmlabError("apt plans to install nothing", details=text.strip())
    return uris


def _offline_root(indices: Mapping[str, bytes], arch: Arch, folder: Path) -> AptRoot:
    archives = sorted({index.split("/")[0] for index in indices})
    root = make_apt_root(folder, arch=arch, sources=(f"deb {_base(name)} {name} main" for name in archives))
    for index, content in indices.items():
        name, _, kind = index.partition("/")
        place = _base(name).removeprefix("http://").replace("/", "_") + f"_dists_{name}_"
        place += "InRelease" if kind == "InRelease" else f"main_binary-{arch.debian}_Packages"
        (root.lists / place).write_bytes(content)
    return root


def _paragraphs_of(paths: Iterable[str], index: str) -> dict[str, str]:
    """Return the paragraphs of the files *paths* in an index. It has tens of thousands that need no parsing."""
    wanted, paragraphs = frozenset(paths), {}
    for paragraph in index.split("\n\n"):
        start = paragraph.find(_FILE_NAME) + len(_FILE_NAME)
        if (path := paragraph[start : paragraph.find("\n", start)]) in wanted:
            paragraphs[path] = paragraph
    return paragraphs


def _archive_of(name: str) -> str:
    """Return which of the two archives has the suite *name*."""
    return "security" if name.endswith("-security") else "main"


def _base(name: str) -> str:
    return f"{_STAND_IN}/{_archive_of(name)}"
