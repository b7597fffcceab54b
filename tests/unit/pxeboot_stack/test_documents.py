"""The door to a machine's documents, and what its payloads must unpack to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import document, nocloud
from contracts.answers import DOCUMENTS
from contracts.install import InstallerConfig
from contracts.machine import DiskBus, ExtraDisk, Installer
from pxeboot_stack.boot_handler import documents
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import ROOTFS, make_machine, make_settings, write_artifacts

TOKEN = "0123456789abcdef" * 2
MACHINE = make_machine()
BASE = f"http://192.168.100.1/m/{TOKEN}/"


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    made = make_settings(tmp_path)
    write_artifacts(made)
    return made


def refusal(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    assert "\n" not in caught.value.sentence
    return caught.value


def set_tree(archive: Path, tree: object) -> None:
    path = archive.with_name(f"{archive.name}.json")
    record = json.loads(path.read_text())
    record["facts"] = {"tree": tree}
    path.write_text(json.dumps(record))


def test_the_configuration_has_all_that_the_installer_needs(lab: Settings) -> None:
    set_tree(lab.initrds / "x86_64/initrd.gz", "1" * 64)
    set_tree(lab.images / "debian-12/x86_64/modules.cpio.gz", "2" * 64)
    answer = documents.render(
        make_machine(disk_bus=DiskBus.VIRTIO, reboot_on_success=False), "config", lab, token=TOKEN
    )
    config = document.loads(InstallerConfig, answer.body)
    assert (config.name, config.disk, config.domain) == ("web1", "/dev/vda", "pvmlab.local")
    assert (config.rootfs.url, config.rootfs.size) == (
        "http://192.168.100.1/images/debian-12/x86_64/rootfs.tar.zst", len(ROOTFS),
    )  # fmt: skip
    assert config.kernel is not None
    assert (config.kernel.url, config.kernel.size) == (
        "http://192.168.100.1/images/debian-12/x86_64/vmlinuz", len(b"kernel"),
    )  # fmt: skip
    assert config.kernel.sha256 == hashlib.sha256(b"kernel").hexdigest()
    assert (config.initrd_tree, config.modules_tree) == ("1" * 64, "2" * 64)
    assert (config.seed_url, config.report_url) == (f"{BASE}cloud-init/", f"{BASE}report")
    assert config.kernel_args == ("console=ttyS0,115200", "quiet")
    assert config.reboot_on_success is False
    assert answer.media_type == "application/json"


@pytest.mark.parametrize(
    ("first", "further", "serial"),
    [
        (DiskBus.NVME, DiskBus.NVME, "pvmlab-disk0"),
        (DiskBus.SATA, DiskBus.SATA, "pvmlab-disk0"),
        (DiskBus.NVME, DiskBus.VIRTIO, ""),
        (DiskBus.VIRTIO, DiskBus.VIRTIO, ""),
    ],
)
def test_a_disk_that_linux_may_call_otherwise_is_named_by_its_serial_number(
    lab: Settings, first: DiskBus, further: DiskBus, serial: str
) -> None:
    machine = make_machine(disk_bus=first, more_disks=(ExtraDisk(size_gib=1, bus=further),))
    config = document.loads(InstallerConfig, documents.render(machine, "config", lab, token=TOKEN).body)
    assert (config.disk, config.disk_serial) == (first.device, serial)


def test_a_boot_script_of_ones_own_may_start_any_kernel(lab: Settings) -> None:
    (lab.templates / "ipxe.j2").write_text("#!ipxe\nshell\n")
    config = document.loads(InstallerConfig, documents.render(MACHINE, "config", lab, token=TOKEN).body)
    assert config.kernel is None


@pytest.mark.parametrize("name", ["vmlinuz", "rootfs.tar.zst"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "is not built yet"),
        (lambda path: path.write_text("{"), "not JSON"),
        (lambda path: path.write_text('{"schema": 1}'), "its schema is not 2"),
        (lambda path: path.write_text('{"schema": 2, "size": 7}'), "sha256"),
        (lambda path: path.with_suffix("").write_bytes(b"of another length"), "has 17"),
        (lambda path: path.with_suffix("").unlink(), "is not built yet"),
    ],
)
def test_a_file_whose_digest_is_not_known_is_not_booted(
    lab: Settings, name: str, change: Callable[[Path], object], reason: str
) -> None:
    documents.check(MACHINE, lab)
    change(lab.images / "debian-12/x86_64" / f"{name}.json")
    for call in (
        lambda: documents.check(MACHINE, lab),
        lambda: documents.render(MACHINE, "config", lab, token=TOKEN),
    ):
        error = refusal(call)
        assert (error.status, name in error.sentence, reason in error.sentence) == (503, True, True)


def test_no_kernel_argument_of_the_installed_system_has_the_token(lab: Settings) -> None:
    config = document.loads(InstallerConfig, documents.render(MACHINE, "config", lab, token=TOKEN).body)
    assert not any(TOKEN in argument for argument in config.kernel_args)


@pytest.mark.parametrize("kind", list(nocloud.DOCUMENTS))
def test_the_seed_is_the_contracts(lab: Settings, kind: str) -> None:
    body = documents.render(MACHINE, f"cloud-init/{kind}", lab, token=TOKEN).body
    assert body == nocloud.DOCUMENTS[kind](MACHINE, lab.lan)


@pytest.mark.parametrize("kind", [kind for kind in Installer if kind.is_native])
def test_every_answer_document_is_there(lab: Settings, kind: Installer) -> None:
    machine = make_machine(
        installer=kind, package_sources=("deb http://m.example/debian trixie main",), repository="http://m.example/"
    )
    for name in DOCUMENTS[kind]:
        if name != "own.cfg":
            assert documents.render(machine, f"answers/{name}", lab, token=TOKEN).body.strip()


@pytest.mark.parametrize(
    "path", ["", "report", "config/", "cloud-init/", "cloud-init/passwd", "cloud-init/../config", "answers/ks.cfg",
             "answers/../config", "../config", "CONFIG", "ignition", "a\nb", "x" * 5000],
)  # fmt: skip
def test_there_is_nothing_else(lab: Settings, path: str) -> None:
    error = refusal(lambda: documents.render(MACHINE, path, lab, token=TOKEN))
    assert error.status == 404
    assert "THE-SECRET" not in error.sentence
    assert TOKEN not in error.sentence


@pytest.mark.parametrize("which", ["initrd.gz", "modules.cpio.gz"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_text("{"), "is not JSON"),
        (lambda path: path.write_text("[" * 100_000), "is not JSON"),
        (lambda path: path.write_text("[]"), "its schema is not 2"),
        (lambda path: path.write_text('{"schema": 1}'), "its schema is not 2"),
        (lambda path: path.write_text('{"schema": 2, "size": 7}'), "does not say what the archive unpacks to"),
        (lambda path: path.write_text('{"schema": 2, "size": 7, "facts": {"tree": "A"}}'), "does not say what"),
        (lambda path: path.write_text(json.dumps({"schema": 2, "size": 99, "facts": {"tree": "0" * 64}})), "99 bytes"),
        (lambda path: path.with_suffix("").write_bytes(b"of another length"), "the archive has 17"),
    ],
)
def test_what_does_not_say_what_it_unpacks_to_is_not_booted(
    lab: Settings, which: str, change: Callable[[Path], object], reason: str
) -> None:
    folder = lab.initrds / "x86_64" if which == "initrd.gz" else lab.images / "debian-12/x86_64"
    documents.check(MACHINE, lab)
    change(folder / f"{which}.json")
    for call in (
        lambda: documents.check(MACHINE, lab),
        lambda: documents.render(MACHINE, "config", lab, token=TOKEN),
    ):
        error = refusal(call)
        assert (error.status, which in error.sentence) == (503, True)
        assert reason in error.sentence
