from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from contracts import document
from contracts.arch import BIOS_BINARY, Arch
from contracts.lan import Lan
from pxeboot_stack import entrypoint, logs
from pxeboot_stack.boot_handler import scripts
from pxeboot_stack.paths import HostShares, RunFiles
from tests.fakes.lab_files import make_machine, write_definition


@pytest.fixture
def shares(tmp_path: Path) -> HostShares:
    made = HostShares(tmp_path / "host")
    for path in (made.images, made.initrds, made.vms, made.status, made.lab.parent):
        path.mkdir(parents=True, mode=0o755)
    made.lab.write_text(document.dumps(Lan()))
    made.boot_id.write_text("0123456789abcdef\n")
    return made


@pytest.fixture
def ipxe(tmp_path: Path) -> Path:
    (tmp_path / "ipxe").mkdir()
    (tmp_path / "ipxe/ipxe-x86_64.efi").write_bytes(b"iPXE")
    return tmp_path / "ipxe"


def test_all_that_the_services_read_is_there(tmp_path: Path, shares: HostShares, ipxe: Path) -> None:
    run = RunFiles(tmp_path / "run")
    write_definition(shares.vms, make_machine())
    for _ in range(2):  # the second time as after a restart
        entrypoint.prepare(shares.read_lan(), shares, run, ipxe=ipxe)
    assert "dhcp-range=192.168.100.128" in run.dnsmasq_conf.read_text()
    assert "client-arch,11" not in run.dnsmasq_conf.read_text()
    assert "listen 192.168.100.1:80" in run.nginx_conf.read_text()
    assert "192.168.100.11" in run.dhcp_hosts.read_text()
    assert (run.tftp / Arch.X86_64.ipxe_binary).read_bytes() == b"iPXE"
    assert "undionly" not in run.dnsmasq_conf.read_text()
    assert (run.tftp / "autoexec.ipxe").read_text() == scripts.render_chain("http://192.168.100.1")


def test_every_boot_program_that_is_there_is_offered(tmp_path: Path, shares: HostShares, ipxe: Path) -> None:
    run = RunFiles(tmp_path / "run")
    for name in (Arch.AARCH64.ipxe_binary, BIOS_BINARY):
        (ipxe / name).write_bytes(name.encode())
    entrypoint.prepare(shares.read_lan(), shares, run, ipxe=ipxe)
    assert {path.name for path in run.tftp.iterdir()} >= {"ipxe-x86_64.efi", "ipxe-aarch64.efi", "undionly.kpxe"}
    conf = run.dnsmasq_conf.read_text()
    assert "client-arch,11" in conf
    assert "undionly.kpxe" in conf
    (ipxe / BIOS_BINARY).unlink()
    entrypoint.prepare(shares.read_lan(), shares, run, ipxe=ipxe)  # as by a container without it
    assert not os.path.lexists(run.tftp / BIOS_BINARY)
    assert "undionly.kpxe" not in run.dnsmasq_conf.read_text()


@pytest.mark.parametrize(("mode", "worker"), [(0o755, "www-data"), (0o700, "root"), (0o750, "root"), (0o751, "root")])
def test_nginx_gives_up_root_where_others_may_read_artifacts(shares: HostShares, mode: int, worker: str) -> None:
    shares.initrds.chmod(mode)
    assert entrypoint.choose_worker(shares) == worker


@pytest.mark.parametrize("text", [None, "{", '{"subnet": "10.0.0.0/30", "domain": "x"}'])
def test_without_a_lab_it_says_why_and_ends(
    shares: HostShares, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    shares.lab.unlink()
    if text is not None:
        shares.lab.write_text(text)
    monkeypatch.setenv("PVMLAB_HOST_DIR", str(shares.root))
    monkeypatch.setenv("PVMLAB_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(logs, "configure", lambda _service: None)  # the log of this process is the tests'
    with pytest.raises(SystemExit) as caught:
        entrypoint.main()
    assert str(caught.value).startswith("pxeboot_stack cannot start: ")


def test_the_host_is_told_when_the_services_start(shares: HostShares) -> None:
    entrypoint.announce_start(shares)
    said = json.loads(shares.announcement.read_text())
    assert (said["boot_id"], said["state"]) == ("0123456789abcdef", "starting")
    assert abs(said["time"] - time.time()) < 60
