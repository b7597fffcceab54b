from __future__ import annotations

import email
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import document, nocloud
from contracts.install import InstallerConfig
from contracts.machine import DiskBus, MachineSource, Nic, VmDefinition
from contracts.orders import Order, OrderKind
from contracts.report import InstallState, MachineStatus, Outcome, Phase, Report
from contracts.timeline import EventKind, Strangers
from pxeboot_stack.boot_handler.documents import render as documents_render
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


def boot(handler: BootHandler, machine: VmDefinition = MACHINE) -> str:
    """Have the machine fetch its boot script; return its token, or nothing if there is none in the script."""
    script = handler.boot_script(machine.mac, client=machine.ip).body
    found = re.search(r"/m/([0-9a-f]{32})/", script)
    return found[1] if found else ""


def send(
    handler: BootHandler, token: str, outcome: Outcome, phase: Phase = Phase.BOOTLOADER, client: str | None = MACHINE.ip
) -> None:
    report = Report(phase=phase, outcome=outcome, percent=50, message="hello")
    handler.take_report(token, document.dumps(report).encode(), client=client)


def give_order(lab: Settings, kind: OrderKind, number: int = 1) -> None:
    order = Order(id=f"00000000-0000-4000-8000-{number:012}", kind=kind, uuid=MACHINE.uuid, time=1.0)
    (lab.vms / "web1.order").write_text(document.dumps(order))


def kinds(handler: BootHandler, machine: VmDefinition = MACHINE) -> list[EventKind]:
    return [event.kind for event in handler.timelines.events(machine)]


def refusal(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.sentence.strip()
    assert "\n" not in caught.value.sentence
    return caught.value


def test_a_machine_installs_once(handler: BootHandler, lab: Settings) -> None:
    token = boot(handler)
    assert token
    send(handler, token, Outcome.RUNNING, Phase.DISK)
    send(handler, token, Outcome.DONE)
    assert "boots from its disk" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    after = state(lab)
    assert after is not None
    assert (after.state, after.installs) == (InstallState.INSTALLED, 1)


@pytest.mark.parametrize("end", [Outcome.FAILED, Outcome.RUNNING])
def test_a_failed_or_interrupted_install_is_offered_again(handler: BootHandler, lab: Settings, end: Outcome) -> None:
    send(handler, boot(handler), end, Phase.SYSTEM)
    assert "installs debian-12" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    now = state(lab)
    assert now is not None
    assert now.state is InstallState.BOOTING


def test_an_install_survives_a_restart_of_the_handler(handler: BootHandler, lab: Settings) -> None:
    token = boot(handler)
    send(handler, token, Outcome.RUNNING, Phase.SYSTEM)
    again = BootHandler(lab, clock=lambda: 1001.0)
    send(again, token, Outcome.DONE)
    assert "boots from its disk" in again.boot_script(MACHINE.mac, client=MACHINE.ip).body


def test_a_machine_made_again_under_its_name_is_installed_again(handler: BootHandler, lab: Settings) -> None:
    send(handler, boot(handler), Outcome.DONE)
    write_definition(lab.vms, make_machine(uuid="00000000-0000-4000-8000-000000000009"))
    assert "installs debian-12" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    now = state(lab)
    assert now is not None
    assert (now.state, now.installs) == (InstallState.BOOTING, 0)


def test_an_ordered_install_is_done_once_whoever_is_restarted(handler: BootHandler, lab: Settings) -> None:
    send(handler, boot(handler), Outcome.DONE)
    give_order(lab, OrderKind.REINSTALL)
    token = boot(handler)
    assert token
    again = BootHandler(lab, clock=lambda: 1001.0)
    assert boot(again)  # the first one was broken off
    give_order(lab, OrderKind.REINSTALL)  # the same order, written once more
    send(again, boot(again), Outcome.DONE)
    for each in (again, BootHandler(lab)):
        assert "boots from its disk" in each.boot_script(MACHINE.mac, client=MACHINE.ip).body
    now = state(lab)
    assert now is not None
    assert now.installs == 2
    give_order(lab, OrderKind.REINSTALL, number=2)
    assert boot(again)


def test_an_ordered_rescue_boots_a_shell_once_and_leaves_the_machine_as_it_was(
    handler: BootHandler, lab: Settings
) -> None:
    send(handler, boot(handler), Outcome.DONE)
    give_order(lab, OrderKind.RESCUE)
    script = handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    assert "pvmlab.mode=shell" in script
    assert "/m/" not in script
    now = state(lab)
    assert now is not None
    assert now.state is InstallState.RESCUE
    assert "boots from its disk" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    after = state(lab)
    assert after is not None
    assert (after.state, after.installs) == (InstallState.INSTALLED, 1)


def test_a_rescue_without_its_files_is_refused_and_stays_ordered(handler: BootHandler, lab: Settings) -> None:
    send(handler, boot(handler), Outcome.DONE)
    give_order(lab, OrderKind.RESCUE)
    (lab.images / "debian-12/x86_64/vmlinuz").unlink()
    assert refusal(lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip)).status == 503
    assert EventKind.REFUSED in kinds(handler)
    write_artifacts(lab)
    assert "pvmlab.mode=shell" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body


@pytest.mark.parametrize("text", ["", "{", '{"kind": "reinstall"}', "[" * 5000, '{"kind": "wipe"}'])
def test_an_order_that_makes_no_sense_is_none(
    handler: BootHandler, lab: Settings, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    send(handler, boot(handler), Outcome.DONE)
    (lab.vms / "web1.order").write_text(text)
    assert "boots from its disk" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body
    assert "the order web1.order is not carried out" in caplog.text


def test_an_order_to_an_older_machine_of_that_name_is_void(handler: BootHandler, lab: Settings) -> None:
    again = make_machine(uuid="00000000-0000-4000-8000-000000000009")
    write_definition(lab.vms, again)
    send(handler, boot(handler), Outcome.DONE)
    give_order(lab, OrderKind.REINSTALL)
    assert "boots from its disk" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body


@pytest.mark.parametrize("client", ["192.168.100.12", "127.0.0.1", None, "", "192.168.100.200"])
def test_from_a_foreign_address_nothing_is_begun(
    handler: BootHandler, lab: Settings, client: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    script = handler.boot_script(MACHINE.mac, client=client).body
    assert "reserved for it is 192.168.100.11" in script
    assert "dhcp" in script.split()
    assert "vmlinuz" not in script
    assert "/m/" not in script
    assert state(lab) is None
    assert "which is not its address" in caplog.text
    assert kinds(handler) == [EventKind.FOREIGN]


def test_a_machine_may_boot_from_each_of_its_cards(handler: BootHandler, lab: Settings) -> None:
    second = Nic(mac="52:54:00:aa:bb:05", ip="192.168.100.15", ipv6="fd00::15")
    write_definition(lab.vms, make_machine(nics=(second,)))
    for client in (second.ip, second.ipv6, MACHINE.ip):
        assert "web1 installs debian-12" in handler.boot_script(second.mac, client=client).body
    assert f"reserved for it is {second.ip}" in handler.boot_script(second.mac, client="192.168.100.99").body


def test_the_installer_gets_all_it_needs(handler: BootHandler, lab: Settings) -> None:
    write_definition(lab.vms, make_machine(disk_bus=DiskBus.VIRTIO, reboot_on_success=False))
    token = boot(handler)
    answer = handler.machine_document(token, "config", client=MACHINE.ip)
    config = document.loads(InstallerConfig, answer.body)
    assert (config.name, config.disk, config.domain) == ("web1", "/dev/vda", "pvmlab.local")
    assert config.rootfs.url == "http://192.168.100.1/images/debian-12/x86_64/rootfs.tar.zst"
    assert config.rootfs.size == len(ROOTFS)
    assert config.seed_url == f"http://192.168.100.1/m/{token}/cloud-init/"
    assert config.report_url == f"http://192.168.100.1/m/{token}/report"
    assert config.kernel_args == ("console=ttyS0,115200", "quiet")
    assert config.reboot_on_success is False
    assert answer.media_type == "application/json"


@pytest.mark.parametrize("kind", list(nocloud.DOCUMENTS))
def test_the_seed_is_the_contracts(handler: BootHandler, lab: Settings, kind: str) -> None:
    answer = handler.machine_document(boot(handler), f"cloud-init/{kind}", client=MACHINE.ip)
    assert answer.body == nocloud.DOCUMENTS[kind](MACHINE, lab.lan)


@pytest.mark.parametrize("client", [OTHER.ip, "192.168.100.1", "127.0.0.1", "", None])
def test_secrets_are_for_the_machine_itself(
    handler: BootHandler, lab: Settings, client: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    write_definition(lab.vms, OTHER)
    token, other = boot(handler), boot(handler, OTHER)
    before, wrong = state(lab), "0" * 32
    documents = ["config", *(f"cloud-init/{kind}" for kind in nocloud.DOCUMENTS), "nothing", "../config", ""]
    calls: list[Callable[[], object]] = [
        *(lambda path=path: handler.machine_document(token, path, client=client) for path in documents),
        lambda: handler.machine_document(wrong, "config", client=MACHINE.ip),
        lambda: handler.machine_document(other, "config", client=MACHINE.ip),
        lambda: send(handler, token, Outcome.DONE, client=client),
        lambda: send(handler, wrong, Outcome.DONE),
        lambda: send(handler, other, Outcome.DONE),
    ]
    for call in calls:
        error = refusal(call)
        assert error.status == 403
        assert "THE-SECRET" not in error.sentence
        assert token not in error.sentence
    assert caplog.text.count("refused:") == len(calls)
    assert token not in caplog.text
    assert state(lab) == before
    assert EventKind.DENIED in kinds(handler)  # what others asked of it, and what it asked of another
    assert EventKind.DENIED in kinds(handler, OTHER)


def test_a_token_of_a_machine_that_is_gone_opens_nothing(handler: BootHandler, lab: Settings) -> None:
    token = boot(handler)
    (lab.vms / "web1.json").unlink()
    assert refusal(lambda: handler.machine_document(token, "config", client=MACHINE.ip)).status == 404


def test_the_timeline_tells_a_whole_install(handler: BootHandler, lab: Settings) -> None:
    handler.chain_script(client=MACHINE.ip)
    token = boot(handler)
    handler.machine_document(token, "config", client=MACHINE.ip)
    send(handler, token, Outcome.RUNNING, Phase.DISK)
    send(handler, token, Outcome.DONE)
    boot(handler)
    assert kinds(handler) == [EventKind.CHAIN, EventKind.DOCUMENT, EventKind.DISK_SCRIPT]
    now = state(lab)
    assert now is not None
    assert [event.kind for event in now.events] == [EventKind.INSTALL_SCRIPT, EventKind.PHASE, EventKind.DONE]
    assert token not in "".join(event.text for event in (*now.events, *handler.timelines.events(MACHINE)))


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
        (json.dumps({"schema": 2, "sha256": "a" * 64, "size": 5}), "it says 5 bytes, rootfs.tar.zst has 29"),
        (json.dumps({"schema": 2, "sha256": "a" * 64, "size": "many"}), "invalid literal"),
    ],
)
def test_a_wrong_sidecar_stops_the_install_before_it_begins(
    handler: BootHandler, lab: Settings, sidecar: str, reason: str
) -> None:
    token = boot(handler)
    (lab.images / "debian-12/x86_64/rootfs.tar.zst.json").write_text(sidecar)
    for call in (
        lambda: handler.machine_document(token, "config", client=MACHINE.ip),
        lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip),
    ):
        error = refusal(call)
        assert error.status == 503
        assert reason in error.sentence


def test_an_installed_machine_needs_no_artifacts(handler: BootHandler, lab: Settings) -> None:
    send(handler, boot(handler), Outcome.DONE)
    (lab.images / "debian-12/x86_64/vmlinuz").unlink()
    assert "boots from its disk" in handler.boot_script(MACHINE.mac, client=MACHINE.ip).body


@pytest.mark.parametrize("mac", ["", "nonsense", "52:54:00:aa:bb", "01:00:5e:00:00:01", "52:54:00:aa:bb:0g"])
def test_what_is_no_mac_is_400(handler: BootHandler, mac: str) -> None:
    assert refusal(lambda: handler.boot_script(mac, client=None)).status == 400


@pytest.mark.parametrize("spelling", ["52-54-00-AA-BB-01", "5254.00aa.bb01", "525400aabb01"])
def test_every_spelling_of_a_mac_is_understood(handler: BootHandler, spelling: str) -> None:
    assert "web1" in handler.boot_script(spelling, client=MACHINE.ip).body


def test_a_stranger_is_shown_who_it_is_and_how_it_is_adopted(handler: BootHandler, lab: Settings) -> None:
    handler.chain_script(client="192.168.100.200")
    script = handler.boot_script(OTHER.mac, client="192.168.100.200").body
    assert f"./pvmlab vm.adopt {OTHER.mac}" in script
    assert "192.168.100.200" in script
    handler.chain_script(client="192.168.100.200")
    handler.timelines.flush()
    seen = document.loads(Strangers, (lab.status / "_strangers.json").read_bytes()).strangers
    assert [(each.mac, each.address) for each in seen] == [(OTHER.mac, "192.168.100.200")]
    assert [event.kind for event in seen[0].events] == [EventKind.MENU, EventKind.CHAIN]
    write_definition(lab.vms, OTHER)
    assert "web2 has the address 192.168.100.200" in handler.boot_script(OTHER.mac, client="192.168.100.200").body
    assert "web2 installs" in handler.boot_script(OTHER.mac, client=OTHER.ip).body


@given(name=st.text(max_size=80) | st.sampled_from(["..", "../config", "cloud-init/../config", "config\n", "CONFIG"]))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=50
)
def test_no_path_leads_anywhere(handler: BootHandler, name: str) -> None:
    token = boot(handler)
    assert refusal(lambda: handler.machine_document(token, name, client=MACHINE.ip)).status in {403, 404}


def test_a_broken_definition_is_500_with_the_reason(handler: BootHandler, lab: Settings) -> None:
    text = document.dumps(OTHER).replace('"cpus": 2', '"cpus": 0')
    (lab.vms / "web2.json").write_text(text)
    error = refusal(lambda: handler.boot_script(OTHER.mac, client=OTHER.ip))
    assert error.status == 500
    assert "the definition of web2 cannot be used" in error.sentence
    assert "cpus is 0" in error.sentence


def test_two_machines_with_one_mac_are_both_500(handler: BootHandler, lab: Settings) -> None:
    write_definition(lab.vms, make_machine(name="web2", ip="192.168.100.12", uuid=OTHER.uuid))
    error = refusal(lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip))
    assert error.status == 500
    assert "web1 and web2 have the same address" in error.sentence


def test_a_broken_status_never_means_install(handler: BootHandler, lab: Settings) -> None:
    (lab.status / "web1.json").write_text("{")
    assert refusal(lambda: handler.boot_script(MACHINE.mac, client=MACHINE.ip)).status == 500


def test_a_status_that_cannot_be_kept_means_no_install(handler: BootHandler, lab: Settings) -> None:
    lab.status.rename(lab.status.with_name("away"))
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
    token = boot(handler)
    before = state(lab)
    assert refusal(lambda: handler.take_report(token, body, client=MACHINE.ip)).status == status
    assert state(lab) == before


def test_all_faults_of_a_report_are_said(handler: BootHandler) -> None:
    token = boot(handler)
    sentence = refusal(lambda: handler.take_report(token, b'{"percent": "x"}', client=MACHINE.ip)).sentence
    assert all(word in sentence for word in ("percent", "phase", "outcome", "message"))


def test_the_log_has_the_transitions(handler: BootHandler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    send(handler, boot(handler), Outcome.FAILED)
    assert "web1: new -> booting" in caplog.text
    assert "web1: booting -> failed: hello" in caplog.text


def test_files_of_artifacts_are_read_once_and_again_when_they_change(
    handler: BootHandler, lab: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    plain = Path.open

    def counted(path: Path, *arguments: Any, **more: Any) -> Any:
        if lab.images in path.parents or lab.initrds in path.parents:
            reads.append(path.name)
        return plain(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", counted)
    for _ in range(3):
        token = boot(handler)
        handler.machine_document(token, "config", client=MACHINE.ip)
    assert sorted(reads) == ["initrd.gz.json", "modules.cpio.gz.json", "rootfs.tar.zst.json", "vmlinuz.json"]
    record = lab.images / "debian-12/x86_64/rootfs.tar.zst.json"
    record.write_text(record.read_text() + "\n")
    reads.clear()
    boot(handler)
    assert reads == ["rootfs.tar.zst.json"]


def test_a_machine_from_an_image_is_sent_to_its_disk_and_nothing_is_remembered(tmp_path: Path) -> None:
    lab = make_settings(tmp_path)  # without any artifact
    cloud = make_machine(source=MachineSource.IMAGE)
    write_definition(lab.vms, cloud)
    handler = BootHandler(lab, clock=lambda: 1000.0)
    script = handler.boot_script(cloud.mac, client=cloud.ip).body
    assert "web1 has its system from a cloud image; it boots from its disk" in script
    assert script.endswith("exit 1\n")
    assert state(lab) is None


def test_user_data_of_a_persons_own_is_a_part_of_the_seed(lab: Settings, handler: BootHandler) -> None:
    (lab.vms / "web1.user-data").write_text("#!/bin/sh\necho hello\n")
    seed = handler.machine_document(boot(handler), "cloud-init/user-data", client=MACHINE.ip).body
    parts = [part.get_payload() for part in email.message_from_string(seed).walk() if not part.is_multipart()]
    assert [str(part).splitlines()[0] for part in parts] == ["#!/bin/sh", "#cloud-config"]


def test_user_data_that_cannot_be_read_stops_the_install(lab: Settings, handler: BootHandler) -> None:
    (lab.vms / "web1.user-data").write_bytes(b"\xff")
    with pytest.raises(Refusal, match="the user-data"):
        documents_render(MACHINE, "cloud-init/user-data", lab, token="0" * 32)
