"""Which packages a root filesystem has, by the database that its package manager keeps in it.

============  ==========================================  =====================================================
dpkg          ``var/lib/dpkg/status``                     paragraphs, deb-control(5)
apk           ``lib/apk/db/installed``, also below usr    paragraphs of one-letter fields, ``P:`` ``V:`` ``A:``
rpm           ``rpmdb.sqlite`` in one of two folders      SQLite; a header of the rpm file format for each package
============  ==========================================  =====================================================

rpm's older databases (Berkeley DB, SUSE's ``Packages.db``) are recognized, not read.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import re
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping

_TAGS = {1000: "name", 1001: "version", 1002: "release", 1003: "epoch", 1022: "arch", 1044: "source"}
_STRING, _INT32, _I18N = 6, 4, 9
_SOURCE_RPM = re.compile(r"(.+)-[^-]+-[^-]+\.(?:no)?src\.rpm")
_MAX_DATABASE = 512 << 20  # bytes
_STEP, _MOST_STEPS = 100_000, 200  # instructions of SQLite's machine; a few for each package are enough
_MAX_HEADER = 64 << 20  # bytes; rpm's own limit is 256 MiB, a kernel's header has 1

_DAMAGE = (KeyError, ValueError, IndexError, TypeError, OverflowError, struct.error, sqlite3.Error)


class PackageManager(enum.StrEnum):
    """What installs packages."""

    DPKG = "dpkg"
    APK = "apk"
    RPM = "rpm"


@dataclasses.dataclass(frozen=True, order=True)
class InstalledPackage:
    """A package. :ivar version: with epoch and revision, as its package manager writes it.

    :ivar source: name of the source package, empty if the database does not say.
    """

    name: str
    version: str
    arch: str
    source: str

    def fact(self, manager: PackageManager | None, vendor: str) -> dict[str, str]:
        """Return it as the fact ``packages`` of a sidecar holds it. :param vendor: the ID of os-release(5)."""
        kind = {PackageManager.DPKG: "deb", PackageManager.RPM: "rpm", PackageManager.APK: "apk"}[
            manager or PackageManager.DPKG
        ]
        return {"type": kind, **dataclasses.asdict(self), "vendor": vendor}


@dataclasses.dataclass(frozen=True)
class Database:
    """A package database. :ivar parse: None if its format is not read here."""

    manager: PackageManager
    parse: Callable[[bytes], Iterator[InstalledPackage]] | None


def _dpkg(content: bytes) -> Iterator[InstalledPackage]:
    for fields in _paragraphs(content, ": "):
        if fields.get("Status", "").endswith(" installed"):
            name = fields["Package"]
            source = fields.get("Source", name).split(" ")[0]  # the version follows, if it is another
            yield InstalledPackage(name, fields["Version"], fields.get("Architecture", ""), source)


def _apk(content: bytes) -> Iterator[InstalledPackage]:
    for fields in _paragraphs(content, ":"):
        yield InstalledPackage(fields["P"], fields["V"], fields.get("A", ""), fields.get("o", fields["P"]))


def _paragraphs(content: bytes, colon: str) -> Iterator[dict[str, str]]:
    for paragraph in content.decode(errors="replace").split("\n\n"):
        lines = (line.partition(colon) for line in paragraph.splitlines() if line[:1].strip())
        if fields := {name: value for name, found, value in lines if found}:
            yield fields


def _rpm(content: bytes) -> Iterator[InstalledPackage]:
    database = sqlite3.connect(":memory:")
    steps = itertools.count()
    try:
        # What is called a table may be any query, so it gets no more time and memory than a table needs.
        database.set_progress_handler(lambda: next(steps) >= _MOST_STEPS, _STEP)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_DATABASE)
        # Bytes 18 and 19 say that changes are in a second file (write-ahead log), which a copy in memory has not.
        database.deserialize(content[:18] + b"\1\1" + content[20:])
        for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY hnum"):
            package = _parse_rpm_header(blob)
            if package.name != "gpg-pubkey":  # keys the user trusts are kept as packages
                yield package
    finally:
        database.close()


def _parse_rpm_header(blob: bytes) -> InstalledPackage:
    """Return the package of a header: counts, an index (tag, type, offset, count of each), data (rpm file format)."""
    entries, size = struct.unpack_from(">II", blob)
    start = 8 + 16 * entries
    if len(blob) > _MAX_HEADER or start + size > len(blob):
        raise ValueError("a package's header is cut off")
    found: dict[str, str] = {}
    for number in range(entries):
        tag, kind, offset, _ = struct.unpack_from(">IIII", blob, 8 + 16 * number)
        if tag not in _TAGS:
            continue
        if kind in {_STRING, _I18N}:
            found[_TAGS[tag]] = blob[start + offset : blob.index(b"\0", start + offset)].decode(errors="replace")
        elif kind == _INT32:
            found[_TAGS[tag]] = str(struct.unpack_from(">I", blob, start + offset)[0])
    epoch = f"{found['epoch']}:" if found.get("epoch", "0") != "0" else ""
    source = _SOURCE_RPM.fullmatch(found.get("source", ""))
    version = f"{epoch}{found['version']}-{found['release']}"
    return InstalledPackage(found["name"], version, found.get("arch", ""), source[1] if source else "")


# usr/lib/apk: since apk-tools 3 on a merged /usr
DATABASES: Mapping[str, Database] = {
    "var/lib/dpkg/status": Database(PackageManager.DPKG, _dpkg),
    "lib/apk/db/installed": Database(PackageManager.APK, _apk),
    "usr/lib/apk/db/installed": Database(PackageManager.APK, _apk),
    **{
        f"{folder}/{name}": Database(PackageManager.RPM, parse)
        for folder in ("var/lib/rpm", "usr/lib/sysimage/rpm")
        for name, parse in {"rpmdb.sqlite": _rpm, "Packages.db": None, "Packages": None}.items()
    },
}
"""Where databases are: path in the root filesystem to what is there."""


def read_packages(database: Database, content: bytes) -> list[InstalledPackage] | None:
    """Return the packages of a database, sorted; None if its format is not read here, or it is damaged.

    What a root filesystem says of itself is information, not a reason to refuse it.
    """
    try:
        return sorted(database.parse(content)) if database.parse is not None else None
    except _DAMAGE:
        return None
