"""The provisioner's boot scripts, run by this host's shell on directories of the test."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from contracts.lan import Lan
from contracts.provisioner import render_provisioner_env
from pipeline.errors import CommandError
from pipeline.run import run
from pxeboot_stack import provisioner

SCRIPTS = provisioner.FILES / "usr/local/lib/pvmlab"
ENVIRONMENT = dict(line.split("=", 1) for line in render_provisioner_env(Lan(), "0123456789abcdef").splitlines())


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The scripts with every directory of the guest moved below the test's own, and a fake busybox on the PATH."""
    moved = {name: str(tmp_path / name.lstrip("/")) for name in ("/mnt/host", "/run", "/usr/local/lib/pvmlab")}
    here = Path(moved["/usr/local/lib/pvmlab"])
    for path in (here, tmp_path / "mnt/host/status", tmp_path / "mnt/host/config", tmp_path / "run", tmp_path / "bin"):
        path.mkdir(parents=True)
    for script in SCRIPTS.iterdir():
        text = script.read_text()
        for old, new in moved.items():
            text = text.replace(old, new)
        (here / script.name).write_text(text)
        (here / script.name).chmod(0o755)
    return here


def fake_busybox(tmp_path: Path, text: str) -> None:
    """Stand in for busybox wget, which this host may not have."""
    (tmp_path / "bin/busybox").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "bin/busybox").chmod(0o755)


def call(script: Path, *words: str, **more: str) -> None:
    tmp_path = script.parents[4]
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **more}
    run([script, *words], timeout=20, env=environment)


def announced(tmp_path: Path) -> dict[str, object]:
    assert [path.name for path in (tmp_path / "mnt/host/status").iterdir()] == ["provisioner.json"]
    data: dict[str, object] = json.loads((tmp_path / "mnt/host/status/provisioner.json").read_text())
    assert data.pop("boot_id") == "0123456789abcdef"
    assert isinstance(data.pop("time"), int)
    return data


@pytest.mark.parametrize(
    ("message", "kept"),
    [("it starts", "it starts"), ('a "quote" and a \\', "a quote and a "), ("two\nlines\t", "two lines "), ("", "")],
)
def test_what_is_announced_is_json(scripts: Path, tmp_path: Path, message: str, kept: str) -> None:
    call(scripts / "announce", "starting", message)
    assert announced(tmp_path) == {"state": "starting", "message": kept}


def test_ready_is_announced_when_the_services_answer(scripts: Path, tmp_path: Path) -> None:
    fake_busybox(tmp_path, f'[ -e {tmp_path}/asked ] && exit 0; echo "$*" > {tmp_path}/asked; exit 1')
    call(scripts / "announce-ready", MAINPID=str(os.getpid()))
    assert announced(tmp_path)["state"] == "ready"
    assert (tmp_path / "asked").read_text() == "wget -q -T 5 -O /dev/null http://192.168.100.1/readyz\n"


def test_services_that_never_answer_are_announced_with_what_was_last_seen(scripts: Path, tmp_path: Path) -> None:
    fake_busybox(tmp_path, 'echo "server returned error: 503" >&2; exit 1')
    with pytest.raises(CommandError):
        call(scripts / "announce-ready", MAINPID=str(os.getpid()), READY_WAIT="1")
    data = announced(tmp_path)
    assert data["state"] == "failed"
    assert "within 1 s, last: server returned error: 503" in str(data["message"])


def test_a_container_that_ended_is_not_waited_for(scripts: Path, tmp_path: Path) -> None:
    fake_busybox(tmp_path, "exit 1")
    with pytest.raises(CommandError, match="exit status 1") as caught:
        call(scripts / "announce-ready", MAINPID="999999999")
    assert "ended before its services answered" in caught.value.tail[-1]


def test_the_end_of_the_container_is_announced_unless_it_was_meant(scripts: Path, tmp_path: Path) -> None:
    call(scripts / "announce-stopped", SERVICE_RESULT="success")
    assert list((tmp_path / "mnt/host/status").iterdir()) == []
    call(scripts / "announce-stopped", SERVICE_RESULT="exit-code", EXIT_CODE="exited", EXIT_STATUS="125")
    assert announced(tmp_path) == {"state": "failed", "message": "the container ended: exit-code exited 125"}


def test_setup_takes_over_address_and_keys(scripts: Path, tmp_path: Path) -> None:
    config = tmp_path / "mnt/host/config"
    (config / "ssh_host_ed25519_key").write_text("private\n")
    (config / "authorized_keys").write_text("ssh-ed25519 AAAA lab\n")
    call(scripts / "setup")
    network = (tmp_path / "run/systemd/network/20-lan0.network").read_text()
    assert "Address=192.168.100.1/24\n" in network
    assert "ConfigureWithoutCarrier=yes\n" in network
    keys = tmp_path / "run/pvmlab-ssh"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in keys.iterdir()} == {
        "ssh_host_ed25519_key": 0o600,
        "authorized_keys": 0o600,
    }


@pytest.mark.parametrize(
    ("address", "addresses", "link_local"),
    [
        ("", ["192.168.100.1/24"], "no"),
        ("fd12:3456:789a::1/64", ["192.168.100.1/24", "fd12:3456:789a::1/64"], "ipv6"),
    ],
)
def test_setup_has_ipv6_where_the_lab_has_it(
    scripts: Path, tmp_path: Path, address: str, addresses: list[str], link_local: str
) -> None:
    for name in ("ssh_host_ed25519_key", "authorized_keys"):
        (tmp_path / "mnt/host/config" / name).write_text("x\n")
    call(scripts / "setup", LAN_ADDRESS_IPV6=address)
    lines = (tmp_path / "run/systemd/network/20-lan0.network").read_text().splitlines()
    assert [line.removeprefix("Address=") for line in lines if line.startswith("Address=")] == addresses
    assert f"LinkLocalAddressing={link_local}" in lines


def test_setup_without_keys_fails_rather_than_open_nothing_quietly(scripts: Path) -> None:
    with pytest.raises(CommandError):
        call(scripts / "setup")


def test_a_container_left_behind_is_removed_first(scripts: Path, tmp_path: Path) -> None:
    docker = tmp_path / "bin/docker"
    docker.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n')
    docker.chmod(0o755)
    left = tmp_path / "containers"
    left.mkdir()
    script = scripts / "remove-container"
    script.write_text(script.read_text().replace("/var/lib/docker/containers", str(left)))
    call(script)
    (left / "0123").mkdir()
    call(script)
    words = [line.split()[0:2] for line in (tmp_path / "calls").read_text().splitlines()]
    assert words == [["rm", "--force"]]
