"""The real programs accept what we render."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.lan import Lan
from pipeline.errors import CommandError
from pipeline.run import run
from pxeboot_stack import provisioner, services
from pxeboot_stack.paths import HostShares, RunFiles
from tests.fakes.dnsmasq_inputs import INPUTS


@pytest.mark.parametrize("name", INPUTS)
def test_dnsmasq_accepts_its_configuration(tmp_path: Path, name: str) -> None:
    conf = tmp_path / "dnsmasq.conf"
    conf.write_text(INPUTS[name](RunFiles(tmp_path)))
    assert "syntax check OK" in run(["dnsmasq", "--test", f"--conf-file={conf}"], timeout=20).stderr
    conf.write_text(conf.read_text() + "nonsense=1\n")
    with pytest.raises(CommandError):  # and it would have noticed
        run(["dnsmasq", "--test", f"--conf-file={conf}"], timeout=20)


@pytest.mark.parametrize("prefix", range(8, 29))
@pytest.mark.parametrize("ipv6_subnet", ["", "fdff:ffff:ffff:ffff::/64"])
def test_dnsmasq_accepts_every_prefix(tmp_path: Path, prefix: int, ipv6_subnet: str) -> None:
    lan, conf = Lan(subnet=f"10.0.0.0/{prefix}", ipv6_subnet=ipv6_subnet), tmp_path / "dnsmasq.conf"
    conf.write_text(services.render_dnsmasq(lan, RunFiles(tmp_path), arches=list(Arch), bios=True))
    assert "syntax check OK" in run(["dnsmasq", "--test", f"--conf-file={conf}"], timeout=20).stderr


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.nginx.mkdir()
    text = services.render_nginx(HostShares(tmp_path), files, listen="127.0.0.1:8099", handler="127.0.0.1:8080")
    files.nginx_conf.write_text(text)
    argv = ["nginx", "-t", "-e", "/dev/stderr", "-c", str(files.nginx_conf)]
    assert "test is successful" in run(argv, timeout=20).stderr
    files.nginx_conf.write_text(text.replace("sendfile on;", "sendfile perhaps;"))
    with pytest.raises(CommandError):
        run(argv, timeout=20)


@pytest.mark.parametrize(
    "script",
    [*sorted((provisioner.FILES / "usr/local/lib/pvmlab").iterdir()), provisioner.FILES.with_name("provisioner-init")],
    ids=lambda path: path.name,
)
def test_boot_scripts_are_good_shell(script: Path) -> None:
    run(["sh", "-n", script], timeout=20)
