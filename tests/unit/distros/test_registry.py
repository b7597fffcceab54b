"""The distribution files, and what is refused in them."""

import pytest

from contracts.arch import Arch
from distros.registry import parse_release, releases, require_release
from pipeline.errors import ExitCode, NotFoundError, PvmlabError, UsageError

GOOD = "name: d\ntitle: D\nfamily: debian\nsuite: s\nkernel_package: {x86_64: linux-image}\n"


def test_the_releases_of_this_project() -> None:
    assert sorted(releases()) == ["debian-12", "debian-13"]
    packages = require_release("debian-12", Arch.X86_64).packages(Arch.X86_64)
    for needed in ("linux-image-cloud-amd64", "cloud-init", "openssh-server", "shim-signed", "grub-efi-amd64-signed"):
        assert needed in packages


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD + "suite: t\n", "key 'suite' is repeated"),
        (GOOD + "colour: red\n", "its keys must be"),
        (GOOD.replace("suite: s\n", ""), "its keys must be"),
        (GOOD.replace("debian", "beos"), "family 'beos' is unknown"),
        (GOOD.replace("x86_64", "vax"), "'vax' is not a valid Arch"),
        (GOOD.replace("{x86_64: linux-image}", "7"), "has no attribute 'items'"),
        ("- a\n", "it is not a mapping"),
        ("a: [\n", "while parsing"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_the_fault(text: str, complaint: str) -> None:
    with pytest.raises(PvmlabError, match=r"the distribution file x\.yaml is broken") as caught:
        parse_release(text, file="x.yaml")
    assert complaint in caught.value.details


def test_an_unknown_release_lists_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match="there is no distribution 'slackware'") as caught:
        require_release("slackware", Arch.X86_64)
    assert caught.value.exit_code is ExitCode.NOT_FOUND
    assert "debian-12" in caught.value.resolution


def test_an_architecture_that_is_not_built_is_refused() -> None:
    with pytest.raises(UsageError, match="debian-12 cannot be built for aarch64"):
        require_release("debian-12", Arch.AARCH64)
