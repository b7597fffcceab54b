from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import pytest

from contracts.arch import Arch
from contracts.lan import Lan
from contracts.provisioner import render_provisioner_env
from pxeboot_stack import container, provisioner

SCRIPTS = provisioner.FILES / "usr/local/lib/pvmlab"
UNITS = provisioner.FILES / "etc/systemd/system"


@pytest.mark.parametrize(("subnet", "address"), [("", ""), ("fd12:3456:789a::/64", "fd12:3456:789a::1/64")])
def test_the_environment_of_the_boot_scripts(subnet: str, address: str) -> None:
    assert render_provisioner_env(Lan(ipv6_subnet=subnet), "0123456789abcdef") == (
        "LAN_ADDRESS=192.168.100.1/24\n"
        f"LAN_ADDRESS_IPV6={address}\n"
        "LAN_SUBNET=192.168.100.0/24\n"
        "PROVISIONER_IP=192.168.100.1\n"
        "BOOT_ID=0123456789abcdef\n"
    )


@pytest.mark.parametrize("boot_id", ["", "short", "0123456\n", "ABCDEF0123", '12345678";reboot'])
def test_a_boot_id_that_is_none_is_refused(boot_id: str) -> None:
    with pytest.raises(ValueError, match="boot id"):
        render_provisioner_env(Lan(), boot_id)


def test_scripts_use_only_variables_that_are_set() -> None:
    given = set(re.findall(r"^([A-Z0-9_]+)=", render_provisioner_env(Lan(), "0" * 16), re.MULTILINE))
    given |= {"CONTAINER_IMAGE", "CONTAINER_TAR"}  # lab.services_container's
    given |= {"MAINPID", "SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"}  # systemd's
    given |= {"READY_WAIT", "HEALTH_PAUSE"}  # for tests
    for path in SCRIPTS.iterdir():
        assert set(re.findall(r"\$\{?([A-Z][A-Z0-9_]+)", path.read_text())) <= given, path


def test_the_container_is_run_as_the_container_module_says() -> None:
    text = (SCRIPTS / "run-container").read_text()
    words = text.split("exec docker", 1)[1].replace("\\\n", " ").split()
    assert words == container.docker_run_arguments('"$image"')
    assert f"image=${{CONTAINER_IMAGE:-{container.TAG}}}\n" in text


def test_the_old_container_is_gone_before_the_new_one_is_asked() -> None:
    """``announce-ready`` would take its answers for the new one's: systemd runs it once ``ExecStart=`` has begun."""
    lines = (UNITS / "pxeboot_stack.service").read_text().splitlines()
    assert "ExecStartPre=/usr/local/lib/pvmlab/remove-container" in lines
    assert "docker rm --force" in (SCRIPTS / "remove-container").read_text()


def test_every_script_that_a_unit_runs_is_there_and_executable() -> None:
    used = {
        name
        for unit in UNITS.rglob("*.service")
        for name in re.findall(r"=/usr/local/lib/pvmlab/(\S+)", unit.read_text())
    }
    assert used == {path.name for path in SCRIPTS.iterdir()}
    assert all(os.access(SCRIPTS / name, os.X_OK) for name in used)
    assert os.access(provisioner.FILES.with_name("provisioner-init"), os.X_OK)


def test_enabled_units_are_ours_or_debians_and_none_is_masked() -> None:
    assert provisioner.unit_path("docker.service") == "/etc/systemd/system/docker.service"
    assert provisioner.unit_path("ssh.service") == "/usr/lib/systemd/system/ssh.service"
    assert not set(provisioner.ENABLED_UNITS) & set(provisioner.MASKED_UNITS)
    assert list(provisioner.MASKED_UNITS) == sorted(set(provisioner.MASKED_UNITS))


def test_no_unit_of_ours_is_forgotten() -> None:
    ours = {path.name for path in UNITS.glob("*.service")}
    assert ours - set(provisioner.ENABLED_UNITS) == {"pvmlab-failed.service"}  # started by OnFailure=


def test_the_container_sees_what_the_provisioner_mounts() -> None:
    mounted = {
        fields[1].removeprefix("/mnt/host/"): "rw" in fields[3].split(",")
        for line in (provisioner.FILES / "etc/fstab").read_text().splitlines()
        if (fields := line.split()) and not line.startswith("#")
    }
    assert mounted == container.SHARES


def test_what_may_change_under_us_is_not_cached() -> None:
    for line in (provisioner.FILES / "etc/fstab").read_text().splitlines():
        if line.startswith(("vms", "status", "config")):
            assert "cache=none" in line
        assert "cache=loose" not in line  # would hide artifacts that were made again


def test_nobody_logs_in_with_a_password() -> None:
    text = (provisioner.FILES / "etc/ssh/sshd_config.d/10-pvmlab.conf").read_text()
    for line in ("PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password"):
        assert line in text.splitlines()


def test_every_rule_ends_before_its_brace() -> None:
    """Nft wants a newline or a semicolon before each closing brace; without it NAT is silently missing."""
    text = (provisioner.FILES / "etc/nftables.conf").read_text()
    assert "masquerade" in text
    assert not re.search(r"[^\s;][ \t]*}", text)


def test_docker_leaves_the_network_alone() -> None:
    daemon = json.loads((provisioner.FILES / "etc/docker/daemon.json").read_text())
    assert (daemon["iptables"], daemon["ip6tables"], daemon["bridge"]) == (False, False, "none")


def test_the_container_may_do_only_what_it_must() -> None:
    words = container.docker_run_arguments()
    assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host"} <= set(words)
    assert "--privileged" not in words
    writable = [word for word in words if word.startswith("--volume") and not word.endswith(":ro")]
    assert writable == ["--volume=/mnt/host/status:/mnt/host/status"]


def test_what_runs_in_the_container_is_copied_into_it() -> None:
    """No module that is left out of the container is imported by one that is in it."""
    folder = Path(container.__file__).parent
    left_out = {f"pxeboot_stack.{name.removesuffix('.py')}" for name in container.NOT_COPIED}
    for path in folder.rglob("*.py"):
        if path.relative_to(folder).parts[0] in container.NOT_COPIED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not left_out & set(names), path


def test_the_lock_has_hashes_and_no_places() -> None:
    text = (provisioner.FILES.with_name("requirements.lock")).read_text()
    packages = re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE)
    assert {"starlette==", "uvicorn=="} <= set(packages)
    assert len(re.findall(r"^[a-z0-9-]+==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)) == len(packages)
    assert "://" not in text


def test_the_initrd_loads_what_it_carries() -> None:
    text = provisioner.FILES.with_name("provisioner-init").read_text()
    assert f"for module in {' '.join(provisioner.INITRD_MODULES)};" in text
    assert Arch.X86_64.debian in next(name for name in provisioner.PACKAGES if name.startswith("linux-image"))


def test_the_container_ends_before_what_runs_it() -> None:
    """Systemd stops in the reverse order: without containerd, Docker waits for the container until it is killed."""
    lines = (UNITS / "pxeboot_stack.service").read_text().splitlines()
    (after,) = (line.removeprefix("After=").split() for line in lines if line.startswith("After="))
    assert {"containerd.service", "docker.service"} <= set(after)
