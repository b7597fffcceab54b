from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import document, nocloud
from contracts.install import InstallerConfig
from contracts.machine import DiskBus
from contracts.report import InstallState, MachineStatus, Outcome, Phase, Report
from pxeboot_stack.boot_handler.handler import BootHandler
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import ROOTFS, make_machine, make_settings, write_artifacts, write_definition

MACHINE = make_machine()
OTHER = make_machine(
    name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid="00000000-0000-4000-8000-000000000002"
)


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    made = make_settings(tmp_path)
    write_artifacts(made)
    write_definition(made.vms, MACHINE)
    return made


@pytest.fixture
def handler(lab: Settings) -> BootHandler:
    return BootHandler(lab, clock=lambda: 1000.0)


def state(lab: Settings) -> MachineStatus | None:
    path = lab.status / "web1.json"
    return document.loads(MachineStatus, path.read_bytes()) if path.exists() else None


def send(
    handler: BootHandler, outcome: Outcome, phase: Phase = Phase.BOOTLOADER, client: str | None = MACHINE.ip
) -> None:
    report = Report(phase=phase, outcome=outcome, percent=50, message="hello")
    handler.take_report(MACHINE.mac, document.dumps(report).encode(), client=client)


def refusal(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.sentence.strip()
    assert "\n" not in caught.value.sentence
    return caught.value


def test_a_machine_installs_once(handler: BootHandler, lab: Settings) -> None:
    assert "installs debian-12" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    send(handler, Outcome.RUNNING, Phase.DISK)
    send(handler, Outcome.DONE)
    assert "boots from its disk" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    after = state(lab)
    assert after is not None
    assert (after.state, after.installs) == (InstallState.INSTALLED, 1)


@pytest.mark.parametrize("end", [Outcome.FAILED, Outcome.RUNNING])
def test_a_failed_or_interrupted_install_is_offered_again(handler: BootHandler, lab: Settings, end: Outcome) -> None:
    handler.boot_script(MACHINE.mac, client=MACHINE.ip)
    send(handler, end, Phase.SYSTEM)
    assert "installs debian-12" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    now = state(lab)
    assert now is not None
    assert now.state is InstallState.BOOTING


def test_an_install_survives_a_restart_of_the_handler(handler: BootHandler, lab: Settings) -> None:
    handler.boot_script(MACHINE.mac, client=MACHINE.ip)
    send(handler, Outcome.RUNNING, Phase.SYSTEM)
    send(BootHandler(lab), Outcome.DONE)
    assert "boots from its disk" in BootHandler(lab).boot_script(MACHINE.mac, client=MACHINE.ip).body


def test_a_machine_made_again_under_its_name_is_installed_again(handler: BootHandler, lab: Settings) -> None:
    handler.boot_script(MACHINE.mac, client=MACHINE.ip)
    send(handler, Outcome.DONE)
    write_definition(lab.vms, make_machine(uuid="00000000-0000-4000-8000-000000000009"))
    assert "installs debian-12" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    now = state(lab)
    assert now is not None
    assert (now.state, now.installs) == (InstallState.BOOTING, 0)


@pytest.mark.parametrize("client", ["192.168.100.12", "127.0.0.1", None])
def test_a_look_by_somebody_else_changes_nothing(
    handler: BootHandler, lab: Settings, client: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert "installs" in handler.boot_script(MACHINE.mac, client=client).body
    assert state(lab) is None
    assert "whose address is 192.168.100.11" in caplog.text


def test_the_installer_gets_all_it_needs(handler: BootHandler, lab: Settings) -> None:
    write_definition(lab.vms, make_machine(disk_bus=DiskBus.VIRTIO, reboot_on_success=False))
    answer = handler.installer_config(MACHINE.mac, client=MACHINE.ip)
    config = document.loads(InstallerConfig, answer.body)
    assert (config.name, config.disk, config.domain) == ("web1", "/dev/vda", "pvmlab.local")
    assert config.rootfs.url == "http://192.168.100.1/images/debian-12/x86_64/rootfs.tar.zst"
    assert config.rootfs.size == len(ROOTFS)
    assert config.seed_url == "http://192.168.100.1/cloud-init/web1/"
    assert config.report_url == "http://192.168.100.1/report/52:54:00:aa:bb:01"
    assert config.kernel_args == ("console=ttyS0,115200", "quiet")
    assert config.reboot_on_success is False
    assert answer.media_type == "application/json"


@pytest.mark.parametrize("kind", list(nocloud.DOCUMENTS))
def test_the_seed_is_the_contracts(handler: BootHandler, lab: Settings, kind: str) -> None:
    answer = handler.seed_document("web1", kind, client=MACHINE.ip)
    assert answer.body == nocloud.DOCUMENTS[kind](MACHINE, lab.lan)


@pytest.mark.parametrize("client", [OTHER.ip, "192.168.100.1", "127.0.0.1", "", None])
def test_secrets_are_for_the_machine_itself(
    handler: BootHandler, lab: Settings, client: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    write_definition(lab.vms, OTHER)
    calls: list[Callable[[], object]] = [
        *(lambda kind=kind: handler.seed_document("web1", kind, client=client) for kind in nocloud.DOCUMENTS),
        lambda: handler.installer_config(MACHINE.mac, client=client),
        lambda: send(handler, Outcome.RUNNING, client=client),
    ]
    for call in calls:
        error = refusal(call)
        assert error.status == 403
        assert "THE-SECRET" not in error.sentence
    assert caplog.text.count("refused:") == len(calls)
    assert state(lab) is None


@pytest.mark.parametrize("name", ["rootfs.tar.zst", "rootfs.tar.zst.json", "vmlinuz", "modules.cpio.gz", "initrd.gz"])
def test_a_missing_artifact_is_said_and_kept_for_the_host(handler: BootHandler, lab: Settings, name: str) -> None:
    folder = lab.initrds / "x86_64" if name == "initrd.gz" else lab.images / "debian-12/x86_64"
    (folder / name).unlink()
    error = refusal(lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip))
    assert (error.status, name in error.sentence) == (503, True)
    now = state(lab)
    assert now is not None
    assert (now.state, now.message) == (InstallState.FAILED, error.sentence)
    write_artifacts(lab)
    assert "installs" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "its schema is not 2"),
        ('{"schema": 1}', "its schema is not 2"),
        ('{"schema": 2}', "'sha256'"),
        ('{"schema": 2, "sha256": "abc", "size": 29}', "not a SHA-256 digest"),
        (json.dumps({"schema": 2, "sha256": "a" * 64, "size": 5}), "it says 5 bytes, the archive has 29"),
        (json.dumps({"schema": 2, "sha256": "a" * 64, "size": "many"}), "invalid literal"),
    ],
)
def test_a_wrong_sidecar_stops_the_install_before_it_begins(
    handler: BootHandler, lab: Settings, sidecar: str, reason: str
) -> None:
    (lab.images / "debian-12/x86_64/rootfs.tar.zst.json").write_text(sidecar)
    for call in (
        lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip),
        lambda: handler.installer_config(MACHINE.mac, client=MACHINE.ip),
    ):
        error = refusal(call)
        assert error.status == 503
        assert reason in error.sentence


def test_an_installed_machine_needs_no_artifacts(handler: BootHandler, lab: Settings) -> None:
    handler.boot_script(MACHINE.mac, client=MACHINE.ip)
    send(handler, Outcome.DONE)
    (lab.images / "debian-12/x86_64/vmlinuz").unlink()
    assert "boots from its disk" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body


@pytest.mark.parametrize("mac", ["", "nonsense", "52:54:00:aa:bb", "01:00:5e:00:00:01", "52:54:00:aa:bb:0g"])
def test_what_is_no_mac_is_400(handler: BootHandler, mac: str) -> None:
    assert refusal(lambda: handler.boot_script(mac, client=None)).status == 400
    assert refusal(lambda: handler.installer_config(mac, client=None)).status == 400
    assert refusal(lambda: handler.take_report(mac, b"{}", client=None)).status == 400


@pytest.mark.parametrize("spelling", ["52-54-00-AA-BB-01", "5254.00aa.bb01", "525400aabb01"])
def test_every_spelling_of_a_mac_is_understood(handler: BootHandler, spelling: str) -> None:
    assert "web1" in handler.boot_script(spelling, client=MACHINE.ip).body


def test_an_unknown_machine_is_404(handler: BootHandler) -> None:
    assert refusal(lambda: handler.boot_script(OTHER.mac, client=OTHER.ip)).status == 404
    assert refusal(lambda: handler.seed_document("web2", "user-data", client=OTHER.ip)).status == 404
    assert refusal(lambda: handler.seed_document("web1", "passwd", client=MACHINE.ip)).status == 404


@given(name=st.text(max_size=80) | st.sampled_from(["..", "../web1", "web1/../web1", "WEB1", "web1.json", "web1\n"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_leads_anywhere(handler: BootHandler, name: str) -> None:
    assert refusal(lambda: handler.seed_document(name, "user-data", client=MACHINE.ip)).status in {400, 404}


def test_a_broken_definition_is_500_with_the_reason(handler: BootHandler, lab: Settings) -> None:
    text = document.dumps(OTHER).replace('"cpus": 2', '"cpus": 0')
    (lab.vms / "web2.json").write_text(text)
    for call in (
        lambda: handler.boot_script(OTHER.mac, client=OTHER.ip),
        lambda: handler.seed_document("web2", "user-data", client=OTHER.ip),
    ):
        error = refusal(call)
        assert error.status == 500
        assert "the definition of web2 cannot be used" in error.sentence
        assert "cpus is 0" in error.sentence


def test_two_machines_with_one_mac_are_both_500(handler: BootHandler, lab: Settings) -> None:
    write_definition(lab.vms, make_machine(name="web2", ip="192.168.100.12"))
    error = refusal(lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip))
    assert error.status == 500
    assert "web1 and web2 have the same address" in error.sentence


def test_a_broken_status_never_means_install(handler: BootHandler, lab: Settings) -> None:
    (lab.status / "web1.json").write_text("{")
    assert refusal(lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip)).status == 500


def test_a_status_that_cannot_be_kept_means_no_install(handler: BootHandler, lab: Settings) -> None:
    lab.status.rmdir()
    assert refusal(lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip)).status == 503


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 60_000, 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"phase": "disk", "outcome": "running", "percent": 101, "message": ""}', 422),
        (b'{"phase": "nonsense", "outcome": "running", "percent": 1, "message": ""}', 422),
        (b'{"phase": "disk", "outcome": "done", "percent": 1, "message": ""}', 422),
        (b'{"phase": "disk", "outcome": "running", "percent": 1, "message": "", "more": 1}', 422),
    ],
)
def test_a_report_that_makes_no_sense_changes_nothing(
    handler: BootHandler, lab: Settings, body: bytes, status: int
) -> None:
    assert refusal(lambda: handler.take_report(MACHINE.mac, body, client=MACHINE.ip)).status == status
    assert state(lab) is None


def test_all_faults_of_a_report_are_said(handler: BootHandler) -> None:
    sentence = refusal(lambda: handler.take_report(MACHINE.mac, b'{"percent": "x"}', client=MACHINE.ip)).sentence
    assert all(word in sentence for word in ("percent", "phase", "outcome", "message"))


def test_health_is_good_and_names_what_is_refused(handler: BootHandler, lab: Settings) -> None:
    (lab.vms / "web2.json").write_text("{")
    answer = handler.health()
    detail = json.loads(answer.body)
    assert (answer.status, detail["ready"], detail["machines"]) == (200, True, 1)
    assert "not JSON" in detail["refused_definitions"]["web2"]


@pytest.mark.parametrize("name", ["vms", "status", "images", "initrds"])
def test_health_is_bad_when_a_directory_is_missing(handler: BootHandler, lab: Settings, name: str) -> None:
    path: Path = getattr(lab, name)
    path.rename(path.with_name("away"))
    answer = handler.health()
    assert answer.status == 503
    assert any(str(path) in problem for problem in json.loads(answer.body)["problems"])


def test_the_log_has_the_transitions(handler: BootHandler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    handler.boot_script(MACHINE.mac, client=MACHINE.ip)
    send(handler, Outcome.FAILED)
    assert "web1: new -> booting" in caplog.text
    assert "web1: booting -> failed: hello" in caplog.text
