"""Package databases of the three package managers are read; damaged ones are no fault."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Mapping

import pytest

from pipeline.media.installed_packages import DATABASES, InstalledPackage, PackageManager, read_packages

RPM = DATABASES["usr/lib/sysimage/rpm/rpmdb.sqlite"]


def rpm_header(tags: Mapping[int, str | int]) -> bytes:
    """Return a header of the rpm file format: strings and 32-bit numbers."""
    index, data = b"", b""
    for tag, value in tags.items():
        data += bytes(-len(data) % 4)
        index += struct.pack(">IIII", tag, 4 if isinstance(value, int) else 6, len(data), 1)
        data += struct.pack(">I", value) if isinstance(value, int) else value.encode() + b"\0"
    return struct.pack(">II", len(tags), len(data)) + index + data


def rpm_database(*headers: bytes, log_ahead: bool = True) -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers])
    database.commit()
    content = database.serialize()
    database.close()
    return content[:18] + b"\2\2" + content[20:] if log_ahead else content


BASH: dict[int, str | int] = {
    63: "x",
    1000: "bash",
    1001: "5.2.26",
    1002: "4.fc41",
    1022: "x86_64",
    1044: "bash-5.2.26-4.fc41.src.rpm",
}
PERL: dict[int, str | int] = {
    1000: "perl-libs",
    1001: "5.40.0",
    1002: "512",
    1003: 4,
    1022: "x86_64",
    1044: "perl-5.40.0-512.src.rpm",
}
KEY: dict[int, str | int] = {1000: "gpg-pubkey", 1001: "e99d6ad1", 1002: "64d2612c"}


@pytest.mark.parametrize("log_ahead", [False, True])
def test_rpm(*, log_ahead: bool) -> None:
    content = rpm_database(rpm_header(PERL), rpm_header(KEY), rpm_header(BASH), log_ahead=log_ahead)
    assert read_packages(RPM, content) == [
        InstalledPackage("bash", "5.2.26-4.fc41", "x86_64", "bash"),
        InstalledPackage("perl-libs", "4:5.40.0-512", "x86_64", "perl"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SQLite format 3\0" + bytes(2000),
        rpm_database(rpm_header(BASH)[:40]),
        rpm_database(b""),
        rpm_database(rpm_header({1000: "only a name"})),
        rpm_database(struct.pack(">II", 0xFFFF_FFFF, 0)),
        rpm_database(rpm_header(BASH))[:-600],
    ],
)
def test_a_damaged_rpm_database_is_not_read(content: bytes) -> None:
    assert read_packages(RPM, content) is None


@pytest.mark.parametrize(
    "query",
    [
        "WITH RECURSIVE n(hnum, blob) AS (SELECT 1, x'00' UNION ALL SELECT hnum + 1, blob FROM n) SELECT * FROM n",
        "SELECT 1 AS hnum, zeroblob(1000000000) AS blob",
        "SELECT 1 AS hnum, NULL AS blob",
        "SELECT 1 AS hnum, 'text' AS blob",
    ],
)
def test_a_query_in_place_of_the_table_ends(query: str) -> None:
    database = sqlite3.connect(":memory:")
    database.execute(f"CREATE VIEW Packages AS {query}")
    content = database.serialize()
    database.close()
    assert read_packages(RPM, content) is None


def test_dpkg() -> None:
    text = (
        "Package: b\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: all\nDescription: x\n Package: no\n\n"
        "Package: a\nStatus: hold ok installed\nVersion: 1\nArchitecture: amd64\nSource: s (2)\n\n"
        "Package: c\nStatus: install ok half-installed\nVersion: 1\n"
    )
    assert read_packages(DATABASES["var/lib/dpkg/status"], text.encode()) == [
        InstalledPackage("a", "1", "amd64", "s"),
        InstalledPackage("b", "1:2-3", "all", "b"),
    ]
    assert read_packages(DATABASES["var/lib/dpkg/status"], b"Package: a\nStatus: install ok installed\n") is None


@pytest.mark.parametrize("path", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_apk(path: str) -> None:
    text = "C:Q1abc=\nP:musl-utils\nV:1.2.5-r9\nA:x86_64\no:musl\nF:sbin\nR:ldconfig\n\nC:Q1\nP:apk-tools\nV:2\n\n"
    assert read_packages(DATABASES[path], text.encode()) == [
        InstalledPackage("apk-tools", "2", "", "apk-tools"),
        InstalledPackage("musl-utils", "1.2.5-r9", "x86_64", "musl"),
    ]


def test_a_format_that_is_not_read_is_known_by_its_manager() -> None:
    database = DATABASES["usr/lib/sysimage/rpm/Packages.db"]
    assert (database.manager, read_packages(database, b"RpmP")) == (PackageManager.RPM, None)
