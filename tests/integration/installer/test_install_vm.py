"""The installer in a real machine: the kernel started directly, the boot handler played by a server on the host.

No DHCP server, switch or provisioner of ours takes part (QEMU's user network stands in), so what fails here is the
initrd, the modules archive, the installer or the bootloader.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import zstandard

from contracts.arch import Arch
from contracts.document import dumps, loads
from contracts.install import (
    ARG_CONFIG_URL,
    ARG_MAC,
    ARG_MODE,
    InstallerConfig,
    PayloadSource,
)
from contracts.machine import FIRST_DISK_SERIAL
from contracts.report import Outcome, Phase, Report
from contracts.tokens import PLACEHOLDER, config_path, report_path, seed_path
from lab.accelerator import choose_accelerator
from lab.firmware import find_firmware
from lab.qemu import accelerator_option, qemu_program
from lab.wait import Deadline, wait_for
from pipeline.recipes.build import ensure
from pipeline.recipes.graph import machine_tasks
from pipeline.run import spawn
from pipeline.workspace import Cache
from tests.integration.installer.conftest import Server

pytestmark = pytest.mark.vm

ARCH = Arch.X86_64
MAC = "52:54:00:00:00:07"
TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
DISTRO = "debian-12"
WITH_SATA = "debian-13"
HOST = "10.0.2.2"  # the host's loopback address, seen from QEMU's user network
INSTALL_WITHIN = 600.0  # seconds; 31 under emulation, 150 with two other machines on the same two cores
BOOT_WITHIN = 600.0  # seconds; 36 and 140
FAILURE_WITHIN = 120.0
GIB = 1 << 30
SEED = {
    "meta-data": b"instance-id: iid-test\nlocal-hostname: web1\n",
    "user-data": b"#cloud-config\nhostname: web1\nfinal_message: seed-was-read after $UPTIME s\n",
    "network-config": json.dumps(
        {"version": 2, "ethernets": {"lan0": {"match": {"macaddress": MAC}, "dhcp4": True}}}
    ).encode(),
    "vendor-data": b"#cloud-config\n{}\n",
}


@dataclasses.dataclass(frozen=True)
class Artifacts:
    """What the pipeline built, from the cache."""

    vmlinuz: Path
    initrd: Path
    modules: Path
    rootfs: Path


@pytest.fixture(scope="module")
def built(artifacts: Cache) -> Artifacts:
    return artifacts_of(artifacts, DISTRO)


def artifacts_of(cache: Cache, distro: str) -> Artifacts:
    return Artifacts(
        vmlinuz=cache.image(distro, ARCH, "vmlinuz"),
        initrd=cache.installer_initrd(ARCH),
        modules=cache.image(distro, ARCH, "modules.cpio.gz"),
        rootfs=cache.image(distro, ARCH, "rootfs.tar.zst"),
    )


@dataclasses.dataclass
class Bench:
    """A machine's disk and its server, and the ways to boot it."""

    folder: Path
    server: Server
    artifacts: Artifacts
    disk_options: tuple[str, ...] = ("-device", "nvme,drive=disk,serial=1")
    distro: str = DISTRO

    @property
    def disk(self) -> Path:
        return self.folder / "disk.raw"

    def add_disk(self, size: int) -> None:
        with self.disk.open("wb") as image:
            image.truncate(size)

    def serve(
        self, rootfs: bytes, *, digest: str | None = None, device: str = "/dev/nvme0n1", serial: str = ""
    ) -> InstallerConfig:
        """Put everything an install asks for on the server; *digest* is what the configuration promises."""
        base, vmlinuz = self.server.url.replace("127.0.0.1", HOST), self.artifacts.vmlinuz.read_bytes()
        config = InstallerConfig(
            name="web1",
            mac=MAC,
            arch=ARCH,
            distro=self.distro,
            domain="pvmlab.local",
            disk=device,
            disk_serial=serial,
            rootfs=PayloadSource(
                url=f"{base}/rootfs", sha256=digest or hashlib.sha256(rootfs).hexdigest(), size=len(rootfs)
            ),
            kernel=PayloadSource(url=f"{base}/vmlinuz", sha256=hashlib.sha256(vmlinuz).hexdigest(), size=len(vmlinuz)),
            initrd_tree=tree_of(self.artifacts.initrd),
            modules_tree=tree_of(self.artifacts.modules),
            seed_url=f"{base}{seed_path(TOKEN)}",
            report_url=f"{base}{report_path(TOKEN)}",
            kernel_args=("console=ttyS0,115200",),
        )
        self.server.bodies = {f"{seed_path(TOKEN)}{name}": data for name, data in SEED.items()}
        self.server.bodies |= {"/rootfs": rootfs, "/vmlinuz": vmlinuz, config_path(TOKEN): dumps(config).encode()}
        return config

    @contextlib.contextmanager
    def boot_installer(self, *arguments: str, initrd: bytes | None = None) -> Iterator[Path]:
        """Start the kernel with the installer's initrd, or with *initrd*; yield the serial log."""
        path = self.folder / "initrds.gz"
        path.write_bytes(initrd or self.artifacts.initrd.read_bytes() + self.artifacts.modules.read_bytes())
        url = f"{self.server.url.replace('127.0.0.1', HOST)}{config_path(TOKEN)}"
        cmdline = ["console=ttyS0,115200", "quiet", f"{ARG_MAC}={MAC}", f"{ARG_CONFIG_URL}={url}", *arguments]
        words = [
            "-no-reboot",
            "-kernel",
            str(self.artifacts.vmlinuz),
            "-initrd",
            str(path),
            "-append",
            " ".join(cmdline),
        ]
        with self._run("installer", words) as serial:
            yield serial

    @contextlib.contextmanager
    def boot_disk(self) -> Iterator[Path]:
        """Start the firmware, which has no entry for the disk; yield the serial log."""
        firmware = find_firmware(ARCH)
        variables = self.folder / "vars.fd"
        shutil.copyfile(firmware.variables, variables)
        words = [
            "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={firmware.code}",
            "-drive", f"if=pflash,format=raw,unit=1,file={variables}",
        ]  # fmt: skip
        with self._run("disk", words) as serial:
            yield serial

    @contextlib.contextmanager
    def _run(self, name: str, words: Sequence[str]) -> Iterator[Path]:
        serial = self.folder / f"{name}.serial.log"
        accelerator = choose_accelerator(ARCH, state=self.folder)
        disk = [
            "-drive",
            f"file={self.disk},format=raw,if=none,id=disk,cache=unsafe",
            *self.disk_options,
        ]
        argv = [
            qemu_program(ARCH), "-nodefaults", "-display", "none", "-machine", "q35",
            "-accel", accelerator_option(accelerator.kind), "-cpu", accelerator.cpu, "-smp", "2", "-m", "1024",
            "-netdev", "user,id=lan", "-device", f"virtio-net-pci,netdev=lan,mac={MAC},romfile=",
            "-device", "virtio-rng-pci",
            *(disk if self.disk.exists() else []),
            "-serial", f"file:{serial}",
            *words,
        ]  # fmt: skip
        process = spawn(argv)
        try:
            yield serial
        finally:
            process.kill()
            process.wait(timeout=30)


def tree_of(archive: Path) -> str:
    """Return what the archive unpacks to, as its sidecar says."""
    return str(json.loads(archive.with_name(f"{archive.name}.json").read_text())["facts"]["tree"])


@pytest.fixture
def bench(tmp_path: Path, server: Server, built: Artifacts) -> Bench:
    return Bench(tmp_path, server, built)


def wait_for_line(serial: Path, text: str, *, within: float) -> str:
    """Return the whole serial log, once it has *text*."""

    def probe() -> str | None:
        log = serial.read_text(errors="replace") if serial.exists() else ""
        if "Kernel panic" in log:
            pytest.fail(f"the kernel panicked:\n{log[-2000:]}")
        return log if text in log else None

    def last_seen() -> str:
        return serial.read_text(errors="replace")[-2000:] if serial.exists() else "nothing"

    return wait_for(f"{text!r} on the console", probe, deadline=Deadline(within), last_seen=last_seen)


def reports_of(server: Server) -> list[Report]:
    return [loads(Report, body) for path, body in server.posts if path == report_path(TOKEN)]


def small_rootfs() -> bytes:
    """Return an archive with a system's folders and nothing that boots."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name in ("./etc", "./usr", "./usr/lib"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
    return zstandard.ZstdCompressor().compress(raw.getvalue())


def test_a_machine_is_installed_and_boots_its_disk(bench: Bench) -> None:
    bench.add_disk(4 * GIB)
    bench.serve(bench.artifacts.rootfs.read_bytes())
    with bench.boot_installer() as serial:
        wait_for_line(serial, "reboot: Restarting system", within=INSTALL_WITHIN)
    reports = reports_of(bench.server)
    percents = [report.percent for report in reports]
    assert percents == sorted(percents)
    assert list(dict.fromkeys(report.phase for report in reports))[-4:] == [
        Phase.DISK, Phase.SYSTEM, Phase.SETUP, Phase.BOOTLOADER,
    ]  # fmt: skip
    assert (reports[-1].phase, reports[-1].outcome, reports[-1].percent) == (Phase.BOOTLOADER, Outcome.DONE, 100)
    with bench.boot_disk() as serial:
        wait_for_line(serial, "seed-was-read", within=BOOT_WITHIN)
        wait_for_line(serial, "web1 login:", within=BOOT_WITHIN)


@pytest.mark.nightly  # builds another distribution: Debian 12's kernel for clouds has no driver for SATA
def test_of_two_sata_disks_the_first_is_installed(bench: Bench, artifacts: Cache) -> None:
    ensure(machine_tasks(WITH_SATA, ARCH))
    bench.artifacts, bench.distro = artifacts_of(artifacts, WITH_SATA), WITH_SATA
    other = bench.folder / "other.raw"
    with other.open("wb") as image:
        image.truncate(4 * GIB)
    # the other one is on the first port: Linux calls it sda
    bench.disk_options = (
        "-device", f"ide-hd,bus=ide.1,drive=disk,serial={FIRST_DISK_SERIAL}",
        "-drive", f"file={other},format=raw,if=none,id=other,cache=unsafe",
        "-device", "ide-hd,bus=ide.0,drive=other,serial=pvmlab-disk1",
    )  # fmt: skip
    bench.add_disk(4 * GIB)
    bench.serve(bench.artifacts.rootfs.read_bytes(), device="/dev/sda", serial=FIRST_DISK_SERIAL)
    with bench.boot_installer() as serial:
        wait_for_line(serial, "reboot: Restarting system", within=INSTALL_WITHIN)
    assert reports_of(bench.server)[-1].outcome is Outcome.DONE
    with other.open("rb") as disk:
        assert disk.read(1 << 20) == bytes(1 << 20)
    with bench.boot_disk() as serial:
        wait_for_line(serial, "web1 login:", within=BOOT_WITHIN)


def test_a_wrong_digest_is_reported_and_leaves_no_partitions(bench: Bench) -> None:
    bench.add_disk(2 * GIB)
    bench.serve(small_rootfs(), digest="0" * 64)
    with bench.boot_installer() as serial:
        log = wait_for_line(serial, "shell on the console", within=FAILURE_WITHIN)
    last = reports_of(bench.server)[-1]
    assert (last.phase, last.outcome) == (Phase.SYSTEM, Outcome.FAILED)
    assert last.message == "the root filesystem is not the one promised"
    assert last.lines[0] == f"expected sha256 {'0' * 64}"
    assert "FAILED in phase system: the root filesystem is not the one promised" in log
    with bench.disk.open("rb") as disk:
        assert disk.read(1 << 20) == bytes(1 << 20)


def test_a_root_filesystem_that_cannot_boot_is_reported_and_leaves_no_partitions(bench: Bench) -> None:
    bench.add_disk(2 * GIB)
    bench.serve(small_rootfs())
    with bench.boot_installer() as serial:
        wait_for_line(serial, "shell on the console", within=FAILURE_WITHIN)
    last = reports_of(bench.server)[-1]
    assert (last.phase, last.outcome) == (Phase.BOOTLOADER, Outcome.FAILED)
    assert "no kernel to boot" in last.message
    with bench.disk.open("rb") as disk:
        assert disk.read(1 << 20) == bytes(1 << 20)


def test_a_missing_disk_is_reported_and_the_token_is_told_nowhere(bench: Bench) -> None:
    bench.serve(small_rootfs())
    with bench.boot_installer() as serial:
        log = wait_for_line(serial, "shell on the console", within=FAILURE_WITHIN)
    assert re.search(r"the kernel is the one promised: [\d.]+\S* #1 SMP .*Debian", log)
    assert "the initrds are the ones promised" in log
    assert f"/m/{PLACEHOLDER}/config" in log
    assert TOKEN not in log
    assert not any(TOKEN.encode() in body for _, body in bench.server.posts)
    last = reports_of(bench.server)[-1]
    assert (last.phase, last.outcome) == (Phase.DISK, Outcome.FAILED)
    assert last.message == "the disk /dev/nvme0n1 did not appear within 20 s; there are: none"


def test_a_small_disk_is_reported_and_not_touched(bench: Bench) -> None:
    bench.add_disk(GIB)
    with bench.disk.open("r+b") as disk:
        disk.write(b"precious")
    bench.serve(small_rootfs())
    with bench.boot_installer() as serial:
        wait_for_line(serial, "shell on the console", within=FAILURE_WITHIN)
    last = reports_of(bench.server)[-1]
    assert (last.phase, last.outcome) == (Phase.DISK, Outcome.FAILED)
    assert last.message == "the disk /dev/nvme0n1 has 1024 MiB, an install needs 1536 MiB"
    with bench.disk.open("rb") as disk:
        assert disk.read(8) == b"precious"


def test_a_refused_configuration_is_reported_before_there_is_one(bench: Bench) -> None:
    bench.server.bodies[config_path(TOKEN)] = b'{"schema": 2}'
    with bench.boot_installer() as serial:
        wait_for_line(serial, "shell on the console", within=FAILURE_WITHIN)
    last = reports_of(bench.server)[-1]
    assert (last.phase, last.outcome) == (Phase.CONFIGURATION, Outcome.FAILED)
    assert last.message == "the configuration is not valid"
    assert any("missing key 'rootfs'" in line for line in last.lines)


def test_shell_mode_asks_nobody(bench: Bench) -> None:
    with bench.boot_installer(f"{ARG_MODE}=shell") as serial:
        wait_for_line(serial, "shell on the console", within=FAILURE_WITHIN)
    assert bench.server.requests == []
    assert bench.server.posts == []


def damaged(archive: Path, *, inside: str) -> bytes:
    """Return the archive with one bit changed in the middle of the file *inside*, as the kernel would unpack it."""
    raw = bytearray(gzip.decompress(archive.read_bytes()))
    start = raw.index(inside.encode() + b"\0")
    header = raw.rindex(b"070701", 0, start)
    size = int(raw[header + 54 : header + 62], 16)
    content = -(-(start + len(inside) + 1) // 4) * 4
    raw[content + size // 2] ^= 1
    return gzip.compress(raw, 1)


@pytest.mark.parametrize(("which", "file"), [("initrd", "usr/bin/mkfs.vfat"), ("modules", "ata_piix.ko")])
def test_a_damaged_initrd_is_reported_before_the_seed_is_asked_for(bench: Bench, which: str, file: str) -> None:
    bench.add_disk(2 * GIB)
    bench.serve(small_rootfs())
    whole = {"initrd": bench.artifacts.initrd, "modules": bench.artifacts.modules}
    path = next(name for name in names_in(whole[which]) if name.endswith(file))
    parts = {name: archive.read_bytes() for name, archive in whole.items()}
    parts[which] = damaged(whole[which], inside=path)
    with bench.boot_installer(initrd=parts["initrd"] + parts["modules"]) as serial:
        wait_for_line(serial, "shell on the console", within=FAILURE_WITHIN)
    last = reports_of(bench.server)[-1]
    assert (last.phase, last.outcome) == (Phase.CONFIGURATION, Outcome.FAILED)
    name = {"initrd": "the installer's initrd", "modules": "the archive of kernel modules"}[which]
    assert last.message == f"{name} is not the one promised: it was damaged on its way here, or built again meanwhile"
    assert not any("cloud-init" in path for path, _ in bench.server.requests)
    with bench.disk.open("rb") as disk:
        assert disk.read(1 << 20) == bytes(1 << 20)


def names_in(archive: Path) -> list[str]:
    """Return the paths of an archive."""
    raw = gzip.decompress(archive.read_bytes())
    return [match[1].decode() for match in re.finditer(rb"070701[0-9A-F]{104}([^\0]+)\0", raw)]
