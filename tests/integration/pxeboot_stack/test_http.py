"""The boot handler in uvicorn behind nginx, over real connections."""

from __future__ import annotations

import re
from typing import Any, Protocol

import pytest

from contracts import document
from contracts.install import InstallerConfig
from contracts.report import InstallState, MachineStatus, Outcome, Phase, Report
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import ROOTFS, make_machine, write_definition
from tests.fakes.web_client import wait_until_in_place

MACHINE = make_machine(ip="127.0.0.11")
OTHER = make_machine(name="web2", mac="52:54:00:aa:bb:02", ip="127.0.0.12", uuid="00000000-0000-4000-8000-000000000002")


class Front(Protocol):
    """What the fixture gives."""

    settings: Settings

    def ask(self, path: str, **more: Any) -> Any:
        """Send a request to nginx."""


@pytest.fixture(autouse=True)
def _machines(front: Front) -> None:
    write_definition(front.settings.vms, MACHINE)
    write_definition(front.settings.vms, OTHER)


def send(front: Front, token: str, outcome: Outcome, phase: Phase, percent: int) -> int:
    report = Report(phase=phase, outcome=outcome, percent=percent, message=f"{phase} it is")
    body = document.dumps(report).encode()
    status: int = front.ask(f"/m/{token}/report", method="POST", body=body, source=MACHINE.ip).status
    return status


def boot(front: Front) -> str:
    """Have the machine fetch its boot script, which installs it; return its token."""
    script = front.ask(f"/ipxe?mac={MACHINE.mac}", source=MACHINE.ip).text
    assert "web1 installs debian-12" in script
    found = re.search(r"/m/([0-9a-f]{32})/", script)
    assert found
    return found[1]


def state(front: Front) -> MachineStatus:
    wait_until_in_place(front.settings.status)
    return document.loads(MachineStatus, (front.settings.status / "web1.json").read_bytes())


def test_the_life_of_a_machine(front: Front) -> None:
    token = boot(front)
    assert state(front).state is InstallState.BOOTING

    config = document.loads(InstallerConfig, front.ask(f"/m/{token}/config", source=MACHINE.ip).text)
    prefix = "http://127.0.0.1"
    assert front.ask(config.rootfs.url.removeprefix(prefix)).text.encode() == ROOTFS
    assert config.report_url == f"{prefix}/m/{token}/report"
    seed = config.seed_url.removeprefix(prefix)
    assert "THE-SECRET" in front.ask(f"{seed}user-data", source=MACHINE.ip).text
    assert MACHINE.uuid in front.ask(f"{seed}meta-data", source=MACHINE.ip).text

    for number, phase in enumerate(Phase):
        assert send(front, token, Outcome.RUNNING, phase, 10 * number) == 200
    assert send(front, token, Outcome.FAILED, Phase.BOOTLOADER, 90) == 200
    assert state(front).state is InstallState.FAILED

    token = boot(front)
    for number, phase in enumerate(Phase):
        assert send(front, token, Outcome.RUNNING, phase, 10 * number) == 200
    assert send(front, token, Outcome.DONE, Phase.BOOTLOADER, 100) == 200
    assert send(front, token, Outcome.DONE, Phase.BOOTLOADER, 100) == 200  # the answer got lost
    assert "boots from its disk" in front.ask(f"/ipxe?mac={MACHINE.mac}", source=MACHINE.ip).text
    assert (state(front).state, state(front).installs) == (InstallState.INSTALLED, 1)
    assert send(front, token, Outcome.RUNNING, Phase.DISK, 10) == 409
    assert front.ask(f"/m/{token}/config", source=MACHINE.ip).status == 403  # its install has ended


@pytest.mark.parametrize("forged", [{}, {"X-Real-IP": MACHINE.ip}, {"X-Forwarded-For": MACHINE.ip}])
def test_a_neighbour_reads_no_secrets_whatever_it_claims(front: Front, forged: dict[str, str]) -> None:
    token = boot(front)
    for path in ("config", "cloud-init/user-data", "cloud-init/meta-data"):
        answer = front.ask(f"/m/{token}/{path}", source=OTHER.ip, headers=forged)
        assert answer.status == 403
        assert "THE-SECRET" not in answer.text
    assert "/m/" not in front.ask(f"/ipxe?mac={MACHINE.mac}", source=OTHER.ip, headers=forged).text


@pytest.mark.parametrize(
    "path",
    [
        "/images/", "/images/debian-12/", "/images/debian-12/x86_64", "/initrds/", "/images/debian-12/x86_64/nothing",
        "/images/.hidden", "/images/debian-12/.rootfs.tar.zst.1.partial", "/images/%2ehidden", "/.git/config",
        "/images/provisioner/x86_64/disk.qcow2", "/images//provisioner/x86_64/disk.qcow2",
        "/images/debian-12/../provisioner/x86_64/disk.qcow2", "/images/%70rovisioner/x86_64/disk.qcow2",
        "/images../vms/web1.json", "/images/../vms/web1.json", "/images/..%2fvms/web1.json",
        "/images/%2e%2e/vms/web1.json", "/vms/web1.json", "/status/web1.json", "/mnt/host/vms/web1.json",
    ],
)  # fmt: skip
def test_nothing_but_artifacts_is_served(front: Front, path: str) -> None:
    images = front.settings.images
    (images / "provisioner/x86_64").mkdir(parents=True)
    for name in (".hidden", "debian-12/.rootfs.tar.zst.1.partial", "provisioner/x86_64/disk.qcow2"):
        (images / name).write_text("THE-SECRET")
    answer = front.ask(path, source=MACHINE.ip)
    assert answer.status in {301, 400, 404}
    assert "THE-SECRET" not in answer.text
    assert "rootfs" not in answer.text.lower()


def test_every_error_is_one_plain_sentence(front: Front) -> None:
    for path, method, body, status in (
        ("/images/nothing", "GET", None, 404),
        ("/images/debian-12/x86_64/vmlinuz", "POST", b"x", 405),
        (f"/m/{'0' * 32}/report", "POST", b"x" * 70_000, 413),  # the boot handler's limit
        (f"/m/{'0' * 32}/report", "POST", b"x" * 140_000, 413),  # nginx's
        ("/ipxe?mac=nonsense", "GET", None, 400),
        ("/cloud-init/web1/user-data", "GET", None, 404),
        (f"/m/{'0' * 32}/config", "GET", None, 403),
    ):
        answer = front.ask(path, method=method, body=body, source=OTHER.ip)
        assert answer.status == status, path
        assert answer.headers["content-type"].startswith("text/plain")
        assert len(answer.text.splitlines()) == 1
        assert "<" not in answer.text


def test_the_host_header_steers_nothing(front: Front) -> None:
    script = front.ask(f"/ipxe?mac={MACHINE.mac}", headers={"Host": "evil.example"}, source=MACHINE.ip).text
    assert "http://127.0.0.1/images/debian-12/x86_64/vmlinuz" in script
    assert "evil" not in script
