"""What apt says it would fetch."""

import pytest

from pipeline.debian.package_solver import parse_planned
from pipeline.errors import PvmlabError

OUTPUT = """\
'http://archive.invalid/main/pool/main/i/ipxe/ipxe_1.21.1%2bgit~1_all.deb' ipxe_1.21.1+git~1_all.deb 2480284 SHA256:ee
'http://archive.invalid/security/pool/main/z/zlib_1_amd64.deb' zlib_1%3a1_amd64.deb 10 SHA256:aa
"""


def test_the_addresses_are_as_in_the_index() -> None:
    assert parse_planned(OUTPUT) == [
        "http://archive.invalid/main/pool/main/i/ipxe/ipxe_1.21.1+git~1_all.deb",
        "http://archive.invalid/security/pool/main/z/zlib_1_amd64.deb",
    ]


def test_to_plan_nothing_is_an_error() -> None:
    with pytest.raises(PvmlabError, match="apt plans to install nothing") as caught:
        parse_planned("Reading package lists...\n")
    assert caught.value.details == "Reading package lists..."
