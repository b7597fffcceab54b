from __future__ import annotations

import re
from pathlib import Path

import pytest

from contracts.lan import Lan
from pxeboot_stack import services
from pxeboot_stack.paths import HostShares, RunFiles
from tests.fakes.dnsmasq_inputs import INPUTS

GOLDEN = Path(__file__).parents[2] / "golden/pxeboot_stack"


@pytest.mark.parametrize("name", INPUTS)
def test_dnsmasq_conf_is_the_golden_one(name: str) -> None:
    assert INPUTS[name](RunFiles()) == (GOLDEN / f"dnsmasq/{name}.conf").read_text()


@pytest.mark.parametrize("name", ["a\nuser=root", 'a"b', "a\\b", "a,b", "a #b", "a\x1b"])
def test_a_path_that_dnsmasq_would_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be written into dnsmasq\.conf"):
        services.render_dnsmasq(Lan(), RunFiles(Path("/run") / name), arches=[])


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in (GOLDEN / "dnsmasq").iterdir()} == set(INPUTS)


@pytest.mark.parametrize("prefix", range(8, 29))
def test_the_pool_is_derived_from_the_subnet(prefix: int) -> None:
    lan = Lan(subnet=f"10.0.0.0/{prefix}")
    ranges = re.findall(r"^dhcp-range=(.*)", services.render_dnsmasq(lan, RunFiles(), arches=[]), re.MULTILINE)
    assert ranges == [f"{lan.pool[0]},{lan.pool[1]},{lan.network.netmask},2m"]


def test_nginx_conf_is_the_golden_one() -> None:
    text = services.render_nginx(HostShares(), RunFiles(), listen="192.168.100.1:80", handler="127.0.0.1:8080")
    assert text == (GOLDEN / "nginx.conf").read_text()


def test_commands_name_the_rendered_files() -> None:
    run = RunFiles()
    assert services.dnsmasq_command(run) == ["dnsmasq", "--keep-in-foreground", "--conf-file=/run/pvmlab/dnsmasq.conf"]
    assert services.nginx_command(run) == ["nginx", "-e", "/dev/stderr", "-c", "/run/pvmlab/nginx.conf"]


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.conf")), ids=lambda path: path.name)
def test_no_placeholder_is_left(path: Path) -> None:
    assert "%{" not in path.read_text()
