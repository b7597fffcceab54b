"""The services container, run as the provisioner runs it: every argument is the one of its unit."""

from __future__ import annotations

import datetime as dt
import functools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.oci import read_image
from pipeline.sidecar import SBOM_SUFFIX
from pipeline.workspace import Cache
from pxeboot_stack import container
from tests.fakes import wire
from tests.fakes.namespaces import CLIENT
from tests.integration.services_container.conftest import MACHINE, Host

pytestmark = pytest.mark.artifacts


@pytest.fixture(scope="module")
def running(host: Host) -> Iterator[Host]:
    """The container, its services answering."""
    host.run(container.docker_run_arguments())
    host.wait("the services answer", host.answers)
    yield host
    host.remove()


def test_a_machine_boots_from_it(running: Host) -> None:
    boots(running)


def boots(host: Host) -> None:
    """Go a machine's way: address, program, script, kernel."""
    lease = host.client.call(wire.dhcp, CLIENT, MACHINE.mac, arch=7)
    assert lease is not None
    assert (lease.address, lease.bootfile) == (MACHINE.ip, "ipxe-x86_64.efi")
    assert host.client.call(wire.tftp, "192.168.100.1", lease.bootfile)[:2] == b"MZ"
    script = host.client.ask(f"/ipxe?mac={MACHINE.mac}", source=MACHINE.ip)
    assert (script.status, "web1 installs debian-12" in script.text) == (200, True)
    assert host.client.ask("/images/debian-12/x86_64/vmlinuz").text == "kernel"
    assert host.client.ask("/ipxe/ipxe-x86_64.efi", method="HEAD").status == 200


def test_it_may_do_no_more_than_was_granted(running: Host) -> None:
    status = dict(line.split(":\t") for line in running.execute("cat", "/proc/1/status").splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # Docker's own filter
    assert int(status["CapEff"], 16).bit_count() == len(container.CAPABILITIES)
    mounts = [line.split() for line in running.execute("cat", "/proc/1/mounts").splitlines()]
    kept = [fields[1] for fields in mounts if "rw" in fields[3].split(",")]
    writable = {path for path in kept if not path.startswith(("/dev", "/proc", "/sys"))}
    assert writable - {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"} == {"/run", "/tmp", "/mnt/host/status"}
    with pytest.raises(Exception, match="docker failed"):
        running.execute("touch", "/opt/pvmlab/x")


def test_the_workers_are_not_root(running: Host) -> None:
    """nginx's worker has no capability at all, dnsmasq two."""
    found: dict[str, dict[str, str]] = {}
    for line in running.execute("sh", "-c", "grep -H '' /proc/[0-9]*/status").splitlines():
        path, _, text = line.partition(":")
        name, _, value = text.partition(":\t")
        found.setdefault(path, {})[name] = value
    of = {entry["Name"]: entry for entry in found.values()}  # of nginx, the last one: its worker
    assert of["dnsmasq"]["Uid"].split()[0] != "0"
    assert int(of["dnsmasq"]["CapEff"], 16).bit_count() <= 3
    worker = [entry for entry in found.values() if entry["Name"] == "nginx" and entry["Uid"].split()[0] != "0"]
    assert [int(entry["CapEff"], 16) for entry in worker] == [0]


def test_docker_finds_out_when_it_is_not(running: Host) -> None:
    with pytest.raises(Exception, match="docker failed"):
        running.execute("sh", "-c", container.HEALTH_COMMAND.replace("-30 seconds", "30 seconds"))


def test_every_service_that_is_killed_comes_back(running: Host) -> None:
    """With what Docker grants: a service is started as the first time, and the others are not."""
    before = running.services()
    assert set(before) == {"boot_handler", "dnsmasq", "nginx", "watcher", "health"}
    for name, number in {"boot_handler": "KILL", "dnsmasq": "STOP", "nginx": "KILL", "watcher": "STOP"}.items():
        running.execute("sh", "-c", f"kill -{number} {before[name]['pid']}")
        wanted = before[name]["restarts"] + 1
        running.wait(f"{name} is started again", functools.partial(has_restarted, running, name, wanted))
        running.wait("it runs", functools.partial(runs, running, name))
        running.wait("the services answer again", running.answers)
        running.wait("DHCP answers again", functools.partial(gets_address, running))
        boots(running)
    assert running.services()["health"]["restarts"] == before["health"]["restarts"]


def has_restarted(host: Host, name: str, times: int) -> bool:
    return bool(host.services()[name]["restarts"] == times)


def runs(host: Host, name: str) -> bool:
    return host.services()[name]["pid"] is not None


def gets_address(host: Host) -> bool:
    return host.client.call(wire.dhcp, CLIENT, MACHINE.mac) is not None


def test_docker_finds_it_healthy_and_it_ends_quickly_and_well(host: Host) -> None:
    host.remove()
    first, *others = [word for word in container.docker_run_arguments() if word != "--rm"]
    host.run([first, "--health-interval=1s", *others])  # as the image says, but for who cannot wait
    assert host.inspect(".Config.Healthcheck")["Test"] == ["CMD-SHELL", container.HEALTH_COMMAND]
    host.wait("Docker finds it healthy", lambda: host.inspect(".State.Health.Status") == "healthy")
    assert host.answers()
    host.engine.docker(["stop", container.NAME])
    assert host.inspect(".State.ExitCode") == 0
    host.remove()


def test_its_labels_say_what_it_is(host: Host, artifacts: Cache) -> None:
    labels = json.loads(host.engine.docker(["inspect", "--format={{json .Config.Labels}}", container.TAG]).stdout)
    prefix = "org.opencontainers.image."
    assert set(labels) == {
        prefix + name for name in ("title", "description", "licenses", "version", "revision", "created")
    }
    assert dt.datetime.fromisoformat(labels[prefix + "created"]) < dt.datetime.now(dt.UTC)
    assert (
        labels[prefix + "created"]
        == host.engine.docker(["inspect", "--format={{.Created}}", container.TAG]).stdout.strip()
    )
    assert len(bytes.fromhex(labels[prefix + "revision"])) == 32


def test_it_is_small(artifacts: Cache) -> None:
    assert artifacts.container(Arch.X86_64).stat().st_size <= 120_000_000


def test_the_layers_are_an_oci_layout_too(artifacts: Cache, tmp_path: Path) -> None:
    image = read_image(artifacts.container(Arch.X86_64), tmp_path)
    assert json.loads(image.document)["config"]["Entrypoint"] == list(container.ENTRYPOINT)
    assert len(image.layers) == 2


def test_the_bill_of_materials_inside_is_the_one_beside(artifacts: Cache, tmp_path: Path) -> None:
    """But for what a document inside cannot say: the digest of the image, and all files, itself among them."""
    archive = artifacts.container(Arch.X86_64)
    layer = read_image(archive, tmp_path).plain[-1]
    with tarfile.open(layer) as tar:
        stream = tar.extractfile(str(container.SBOM).lstrip("/"))
        assert stream is not None
        inside = json.load(stream)
    beside = json.loads(archive.with_name(archive.name + SBOM_SUFFIX).read_bytes())
    assert inside["packages"][1:] == beside["packages"][1:]
    assert len(inside["packages"]) > 50
    assert {name: inside[name] for name in ("name", "creationInfo")} == {
        name: beside[name] for name in ("name", "creationInfo")
    }
    assert "checksums" not in inside["packages"][0]
