"""The installer's own program against a real server, up to the disk: its kernel is damaged, missing, or another one."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path

import pytest

from contracts import payload as tree
from contracts.arch import Arch
from contracts.document import dumps, loads
from contracts.install import InstallerConfig, PayloadSource
from contracts.report import Outcome, Phase, Report
from contracts.tokens import config_path, report_path, seed_path
from installer import __main__ as program
from installer import client, disk, kernel, network, payload
from installer.errors import InstallError
from installer.kernel_arguments import KernelArguments
from tests.fakes.kernels import make_arm64_image, make_vmlinuz
from tests.integration.installer.conftest import Server

MAC = "52:54:00:00:00:07"
TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
RUNNING = "6.1.0-9-cloud-amd64 #1 SMP"
KERNEL = make_vmlinuz("6.1.0-9-cloud-amd64") + random.Random(6).randbytes(600_000)
SEED = {
    "meta-data": b"instance-id: x\n",
    "user-data": b"#cloud-config\n",
    "network-config": b"{}",
    "vendor-data": b"{}",
}
REACHED = "the disk was reached"


class Bench:
    """A machine that was booted, up to where it would look for its disk, and its server."""

    def __init__(self, server: Server, root: Path) -> None:
        self.server = server
        initrd, modules = tree.measure_tree(root)
        self.config = InstallerConfig(
            name="web1", mac=MAC, arch=Arch.of_host(), distro="debian-12", domain="pvmlab.local", disk="/dev/vda",
            rootfs=PayloadSource(url=f"{server.url}/rootfs", sha256="0" * 64, size=1), kernel=None,
            initrd_tree=initrd, modules_tree=modules, seed_url=server.url + seed_path(TOKEN),
            report_url=server.url + report_path(TOKEN), kernel_args=(),
        )  # fmt: skip
        server.bodies = {f"{seed_path(TOKEN)}{name}": data for name, data in SEED.items()}
        self.promise(KERNEL)

    def promise(self, vmlinuz: bytes) -> None:
        """Serve *vmlinuz*, and have the configuration say so."""
        self.server.bodies["/vmlinuz"] = vmlinuz
        digest = hashlib.sha256(vmlinuz).hexdigest()
        self.configure(PayloadSource(url=f"{self.server.url}/vmlinuz", sha256=digest, size=len(vmlinuz)))

    def configure(self, source: PayloadSource | None) -> None:
        self.config = dataclasses.replace(self.config, kernel=source)
        self.server.bodies[config_path(TOKEN)] = dumps(self.config).encode()

    def run(self) -> Report:
        """Run the installer, which cannot succeed; return its last report."""
        assert program.main() == program.FAILED
        path, body = self.server.posts[-1]
        assert path == report_path(TOKEN)
        return loads(Report, body)


@pytest.fixture
def bench(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """What cannot exist here is left out: the network card, the tree of an initrd, the disk."""

    def reached(_: str) -> str:
        raise InstallError(REACHED)

    (tmp_path / "init").write_text("#!/bin/sh\n")
    measure = payload.start_measuring
    monkeypatch.setattr(network, "configure", lambda mac: f"{mac} is up")
    monkeypatch.setattr(payload, "start_measuring", lambda _: measure(tmp_path))
    monkeypatch.setattr(kernel, "running_name", lambda: RUNNING)
    monkeypatch.setattr(disk, "require", reached)
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.01)
    arguments = KernelArguments(MAC, server.url + config_path(TOKEN))
    monkeypatch.setattr(program, "parse", lambda _: arguments)
    return Bench(server, tmp_path)


def test_the_kernel_that_was_promised_lets_the_install_go_on(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert bench.run().message == REACHED
    assert f"the kernel is the one promised: {RUNNING}" in capsys.readouterr().out


def test_a_flipped_bit_in_the_served_kernel_ends_the_install_before_the_disk_and_the_seed(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(7)
    source = bench.config.kernel
    assert source is not None
    for place in (0, 0x300, len(KERNEL) - 1, *(chance.randrange(len(KERNEL)) for _ in range(8))):
        damaged = bytearray(KERNEL)
        damaged[place] ^= 1 << chance.randrange(8)
        bench.server.bodies["/vmlinuz"] = bytes(damaged)
        last = bench.run()
        assert (last.phase, last.outcome) == (Phase.CONFIGURATION, Outcome.FAILED)
        assert last.message == "the kernel on the server is not the one promised"
        assert last.lines[:2] == (
            f"expected sha256 {source.sha256}", f"received sha256 {hashlib.sha256(damaged).hexdigest()}",
        )  # fmt: skip
        console = capsys.readouterr().out
        assert "FAILED in phase configuration: the kernel on the server is not the one promised" in console
        assert f"  | expected sha256 {source.sha256}" in console
    assert not any("cloud-init" in path for path, _ in bench.server.requests)


def test_another_size_is_refused_before_it_is_read(bench: Bench) -> None:
    bench.server.bodies["/vmlinuz"] = KERNEL + b"x"
    message = bench.run().message
    assert f"offers {len(KERNEL) + 1} bytes from 0, the configuration says {len(KERNEL)} from 0" in message


def test_a_kernel_that_is_gone_is_said(bench: Bench) -> None:
    del bench.server.bodies["/vmlinuz"]
    assert "/vmlinuz answered 404" in bench.run().message


def test_a_connection_that_is_cut_is_taken_up_again(bench: Bench) -> None:
    bench.server.cut_after = 300_000
    assert bench.run().message == REACHED
    assert [offset for path, offset in bench.server.requests if path == "/vmlinuz"] == [0, 300_000, 600_000]


@pytest.mark.parametrize("running", ["6.1.0-8-cloud-amd64 #1 SMP", "6.1.0-9-cloud-amd64 #1 SMP Debian 6.1.27-1"])
def test_another_kernel_than_the_served_one_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, running: str
) -> None:
    monkeypatch.setattr(kernel, "running_name", lambda: running)
    last = bench.run()
    assert (last.phase, last.outcome) == (Phase.CONFIGURATION, Outcome.FAILED)
    assert last.message.startswith("the kernel that runs is not the one promised")
    assert last.lines[:2] == (f"promised {RUNNING}", f"runs {running}")


def test_a_kernel_that_does_not_say_what_it_is_called_is_checked_by_its_digest_alone(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    image = make_arm64_image("6.1")
    bench.promise(image)
    assert bench.run().message == REACHED
    assert f"whether it is the one that runs, {RUNNING}, is not told" in capsys.readouterr().out
    bench.server.bodies["/vmlinuz"] = image[:-1] + b"x"
    assert bench.run().message == "the kernel on the server is not the one promised"


def test_the_kernel_of_a_boot_script_of_ones_own_is_not_checked(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.configure(None)
    assert bench.run().message == REACHED
    assert "which kernel it is to start is not known, and not checked" in capsys.readouterr().out
    assert not any(path == "/vmlinuz" for path, _ in bench.server.requests)


def test_this_kernel_calls_itself_what_proc_says() -> None:
    release, _, build = kernel.running_name().partition(" ")
    assert Path("/proc/sys/kernel/osrelease").read_text().strip() == release
    assert Path("/proc/sys/kernel/version").read_text().strip() == build
