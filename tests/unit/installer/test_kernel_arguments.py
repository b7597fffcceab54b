"""Reading the kernel command line."""

from __future__ import annotations

import pytest

from contracts.tokens import report_path
from installer.errors import InstallError
from installer.kernel_arguments import KernelArguments, parse

TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
_GOOD = (
    "initrd=a initrd=b console=ttyS0,115200 quiet pvmlab.mac=52-54-00-AA-BB-CC "
    f"pvmlab.config=http://10.0.0.1/m/{TOKEN}/config"
)


def test_the_card_and_the_configuration_are_found() -> None:
    assert parse(_GOOD + "\n") == KernelArguments("52:54:00:aa:bb:cc", f"http://10.0.0.1/m/{TOKEN}/config")


def test_until_the_configuration_is_there_reports_go_to_its_server() -> None:
    assert parse(_GOOD).report_url == f"http://10.0.0.1{report_path(TOKEN)}"


@pytest.mark.parametrize(
    ("cmdline", "message"),
    [
        ("quiet pvmlab.config=http://10.0.0.1/c", "the kernel command line has no pvmlab.mac="),
        ("pvmlab.mac=52:54:00:aa:bb:cc pvmlab.config=", "the kernel command line has no pvmlab.config="),
        ("pvmlab.mac=52:54 pvmlab.config=http://10.0.0.1/c", "pvmlab.mac: '52:54' is not a MAC address"),
        ("pvmlab.mac=52:54:00:aa:bb:cc pvmlab.config=file:///c", "pvmlab.config: 'file:///c' is not an http URL"),
    ],
)
def test_what_is_missing_or_wrong_is_named(cmdline: str, message: str) -> None:
    with pytest.raises(InstallError) as caught:
        parse(cmdline)
    assert caught.value.cause == message


def test_an_error_does_not_tell_the_token() -> None:
    with pytest.raises(InstallError) as caught:
        parse(f"pvmlab.mac=52:54:00:aa:bb:cc pvmlab.config=ftp://10.0.0.1/m/{TOKEN}/config")
    assert TOKEN not in caught.value.cause
