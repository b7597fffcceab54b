from __future__ import annotations

from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.lan import Lan
from pxeboot_stack import services
from pxeboot_stack.paths import HostShares, RunFiles

GOLDEN = Path(__file__).parents[2] / "golden/pxeboot_stack"


def test_dnsmasq_conf_is_the_golden_one() -> None:
    text = services.render_dnsmasq(Lan(), RunFiles(), arches=list(Arch))
    assert text == (GOLDEN / "dnsmasq.conf").read_text()


def test_nginx_conf_is_the_golden_one() -> None:
    text = services.render_nginx(HostShares(), RunFiles(), listen="192.168.100.1:80", handler="127.0.0.1:8080")
    assert text == (GOLDEN / "nginx.conf").read_text()


def test_another_network_is_all_that_dnsmasq_knows_of() -> None:
    text = services.render_dnsmasq(Lan(subnet="10.9.0.0/20", domain="lab.test"), RunFiles(), arches=[Arch.X86_64])
    assert "dhcp-range=10.9.8.0,10.9.15.254,255.255.240.0,1h" in text
    assert "local=/lab.test/" in text
    assert "192.168.100" not in text


def test_firmware_gets_a_boot_file_only_where_there_is_one() -> None:
    text = services.render_dnsmasq(Lan(), RunFiles(), arches=[Arch.X86_64])
    assert "client-arch,7" in text
    assert "client-arch,9" in text
    assert "client-arch,11" not in text
    assert "aarch64" not in text


def test_commands_name_the_rendered_files() -> None:
    run = RunFiles()
    assert services.dnsmasq_command(run) == ["dnsmasq", "--keep-in-foreground", "--conf-file=/run/pvmlab/dnsmasq.conf"]
    assert services.nginx_command(run) == ["nginx", "-e", "/dev/stderr", "-c", "/run/pvmlab/nginx.conf"]


@pytest.mark.parametrize("name", ["dnsmasq.conf", "nginx.conf"])
def test_no_placeholder_is_left(name: str) -> None:
    assert "%{" not in (GOLDEN / name).read_text()
