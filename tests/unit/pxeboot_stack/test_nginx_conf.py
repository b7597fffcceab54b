"""The web server's configuration as text. That nginx accepts and obeys it: tests/integration/services_container."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxeboot_stack import services
from pxeboot_stack.paths import HostShares, RunFiles

GOLDEN = Path(__file__).parents[2] / "golden/pxeboot_stack"


def render(root: Path = Path("/mnt/host"), run: Path = Path("/run/pvmlab")) -> str:
    return services.render_nginx(HostShares(root), RunFiles(run), listen="192.168.100.1:80", handler="127.0.0.1:8080")


def test_another_place_address_and_account_are_the_golden_ones() -> None:
    text = services.render_nginx(
        HostShares(Path("/srv/a lab; {1}")), RunFiles(Path("/tmp/a run")),
        listen="10.9.0.1:8080", handler="127.0.0.1:8081", user="root", more_listens=["[fd00:9::1]:8080"],
    )  # fmt: skip
    assert text == (GOLDEN / "nginx-other.conf").read_text()


@pytest.mark.parametrize(
    "name", ['/a"b', "/a\\b", "/a$b", "/a${b}", "/a\nb", "/a\tb", "/a\x00b", "/a\x7fb", "/a\u2028b"]
)
def test_a_path_that_nginx_would_read_otherwise_is_refused(name: str) -> None:
    for place in ({"root": Path(name)}, {"run": Path(name)}):
        with pytest.raises(ValueError, match="cannot be written into"):
            render(**place)


def test_a_comma_ends_no_word_of_the_log_address() -> None:
    assert "/a,b/images/" in render(root=Path("/a,b"))
    with pytest.raises(ValueError, match="cannot be written into"):
        render(run=Path("/a,b"))


def shape(text: str) -> list[str]:
    """Return the configuration with every quoted word made equal: what is left is what nginx is told to do."""
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())
    return [re.sub(r'"[^"]*"', '""', line) for line in lines]


PLAIN = shape(render())


@settings(max_examples=1000, deadline=None)  # test_injection has thousands more
@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_no_path_adds_a_directive(root: str, run: str) -> None:
    try:
        text = render(Path("/") / root.replace("/", "_"), Path("/") / run.replace("/", "_"))
    except ValueError:
        return
    assert shape(text) == PLAIN
