from __future__ import annotations

import pytest

from contracts.mirror import InstallerMirror, find_mirror

RELEASE, UPDATES = (
    "deb http://mirror.example/debian trixie main",
    "deb http://mirror.example/debian trixie-updates main",
)
SECURITY = "deb http://sec.example/debian-security trixie-security main"


def test_a_mirror_is_taken_apart() -> None:
    assert find_mirror([RELEASE, UPDATES, SECURITY]) == InstallerMirror(
        protocol="http", host="mirror.example", directory="/debian", suite="trixie", security_host="sec.example"
    )


def test_order_ports_and_slashes_do_not_matter() -> None:
    found = find_mirror([SECURITY, UPDATES, "deb https://mirror.example:8443/a/b/ trixie main contrib"])
    assert found is not None
    assert (found.protocol, found.host, found.directory) == ("https", "mirror.example:8443", "/a/b")
    assert find_mirror(["deb http://mirror.example trixie main"]).directory == "/"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "line",
    [
        "deb http://sec.example/other trixie-security main",  # debian-installer knows one directory only
        "deb https://sec.example/debian-security trixie-security main",
        "deb file:/srv/debian-security trixie-security main",
    ],
)
def test_a_security_archive_that_the_installer_cannot_take_is_left_out(line: str) -> None:
    found = find_mirror([RELEASE, line])
    assert found is not None
    assert (found.security_host, found.services) == ("", "updates")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [UPDATES],
        ["deb file:/srv/debian trixie main"],
        ["deb http://user:secret@mirror.example/debian trixie main"],
        ["deb http:///debian trixie main"],
        ["deb mirror.example trixie main"],
        ["deb"],
    ],
)
def test_what_the_installer_cannot_reach_is_no_mirror(lines: list[str]) -> None:
    assert find_mirror(lines) is None
