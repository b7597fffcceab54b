"""A distribution of one's own, from its live-server ISO: pulled from a mirror, verified, installed on a machine.

The disc is made of Debian packages (tests/fakes/live_iso.py); the mirror is a server of ours on the loopback.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.journey import DEFAULT_DISTRO
from pipeline.workspace import Cache
from tests.e2e.command_line import CommandLine
from tests.fakes.live_iso import ARCH, ISO_NAME, META_PACKAGE, LiveIso, ensure_live_iso
from tests.fakes.media_server import Manner, MediaServer

pytestmark = [pytest.mark.vm, pytest.mark.artifacts]

DISTRO, TARGET = "test-live-server", "live1"
PULL_TIMEOUT, INSTALL_TIMEOUT = 600.0, 1200.0
DEFINITION = """\
name: {name}
title: Live server of the tests
family: ubuntu
suite: bookworm
sources:
  x86_64:
    iso:
      mirrors: ["{mirror}"]
      file: debian-*-live-server-amd64.iso
      checksums:
        file: SHA256SUMS
        signature: SHA256SUMS.gpg
        keys: ["{key}"]
    rootfs: iso
"""


@pytest.fixture(scope="module")
def disc(artifacts: Cache) -> LiveIso:
    return ensure_live_iso(artifacts)


@pytest.fixture(scope="module")
def server(disc: LiveIso) -> Iterator[MediaServer]:
    files = {f"/{path.name}": path for path in (disc.iso, disc.checksums, disc.signature)}
    with MediaServer({name: Manner(data=path.read_bytes()) for name, path in files.items()}) as server:
        yield server


@pytest.fixture(scope="module")
def own(
    lab: CommandLine, disc: LiveIso, server: MediaServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CommandLine]:
    """The lab, with a folder of definitions of our own."""
    folder = tmp_path_factory.mktemp("distros")
    write_definition(folder, server, disc)
    command = dataclasses.replace(lab, variables={"PVMLAB_DISTROS": str(folder)})
    try:
        yield command
    finally:
        command("vm.clean", TARGET, "--yes", check=False)
        command("distro.remove", DISTRO, "--with-artifacts", "--yes", check=False)


def write_definition(folder: Path, server: MediaServer, disc: LiveIso) -> None:
    text = DEFINITION.format(name=DISTRO, mirror=server.url(), key=disc.fingerprint)
    (folder / f"{DISTRO}.yaml").write_text(text)
    (folder / "keys").mkdir()
    shutil.copyfile(disc.key, folder / f"keys/{disc.fingerprint}.asc")


def test_it_is_pulled_and_made_what_an_install_needs(own: CommandLine, server: MediaServer, artifacts: Cache) -> None:
    own("distro.pull", f"--distro={DISTRO}", f"--arch={ARCH}", timeout=PULL_TIMEOUT)
    assert server.count(f"/{ISO_NAME}") == 1
    wanted = ("rootfs.tar.zst", "vmlinuz", "initrd", "modules.cpio.gz")
    assert [name for name in wanted if not artifacts.image(DISTRO, ARCH, name).is_file()] == []
    facts = json.loads(artifacts.image(DISTRO, ARCH, "rootfs.tar.zst.json").read_text())["facts"]
    assert (facts["source"], facts["added"][0]) == ("ubuntu-server", META_PACKAGE)


def test_pulled_again_nothing_is_fetched_or_made(own: CommandLine, server: MediaServer) -> None:
    before = server.sent
    done = own("distro.pull", f"--distro={DISTRO}", f"--arch={ARCH}")
    assert "0 tasks done" in done.stdout + done.stderr
    assert server.sent == before


def test_a_machine_is_installed_from_it(own: CommandLine) -> None:
    own("vm.stop", "target1", check=False)  # of other tests; two emulated machines at a time are enough
    own("vm.create", TARGET, f"--distro={DISTRO}", f"--arch={ARCH}")
    own("vm.start", TARGET, "--wait", timeout=INSTALL_TIMEOUT)
    assert own.status_of(TARGET)["state"] == "installed"
    assert re.search(r'VERSION_CODENAME="?bookworm', own.on(TARGET, "cat", "/etc/os-release"))
    assert own.on(TARGET, "hostname") == TARGET
    assert own.on(TARGET, "dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", META_PACKAGE) == "ii"


def test_its_cloud_init_is_done_without_errors(own: CommandLine) -> None:
    own.on(TARGET, "cloud-init", "status", "--wait", check=False)
    result = json.loads(own.on(TARGET, "cat", "/run/cloud-init/result.json"))
    assert result["v1"]["errors"] == []
    assert result["v1"]["datasource"].startswith("DataSourceNoCloud")
    assert own.on(TARGET, "systemctl", "is-system-running", "--wait", check=False) == "running"


def test_it_boots_from_its_disk_by_the_signed_loader(own: CommandLine) -> None:
    assert own.on(TARGET, "findmnt", "--noheadings", "--output=FSTYPE", "/") == "ext4"
    assert own.on(TARGET, "sudo", "ls", "/boot/efi/EFI").split() == ["BOOT", "debian"]
    identities = own.on(TARGET, "sudo", "sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub").splitlines()
    assert identities
    assert not any("of all machines" in line for line in identities)


def test_it_leaves_nothing_when_it_is_removed(own: CommandLine, artifacts: Cache) -> None:
    own("vm.clean", TARGET, "--yes")
    own("distro.remove", DISTRO, "--with-artifacts", "--yes")
    assert not artifacts.image(DISTRO, ARCH, "rootfs.tar.zst").exists()
    assert DISTRO not in own("distro.ls", "--output=json").stdout
    assert DEFAULT_DISTRO in own("distro.ls", "--output=json").stdout
