"""Machines of all kinds ask the application for each other's secrets: nobody gets a byte of another's.

Twenty do it over real connections in ``tests/integration/boot_handler``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from pathlib import Path

import httpx
import pytest

from contracts.answers import DOCUMENTS
from contracts.machine import AnswerFile, Installer, SshHostKey, VmDefinition
from contracts.nocloud import DOCUMENTS as SEED
from pxeboot_stack.boot_handler.app import create_app
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.logs import JsonFormatter
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts, write_definition, write_native

COUNT = 10  # two or three of each kind of installer; three have answers of their own
SOURCES = ("deb http://mirror.example/debian trixie main",)


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine, and what is for it alone. :ivar secrets: strings that are in no other machine's documents."""

    machine: VmDefinition
    token: str
    secrets: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        kind = self.machine.installer
        answers = tuple(f"/m/{self.token}/answers/{name}" for name in DOCUMENTS[kind])
        seed = tuple(f"/m/{self.token}/cloud-init/{name}" for name in SEED)
        return (*answers, *seed, f"/m/{self.token}/ignition", *([] if answers else [f"/m/{self.token}/config"]))


def make(number: int) -> VmDefinition:
    kind = list(Installer)[number % len(Installer)]
    private = f"-----BEGIN OPENSSH PRIVATE KEY-----\nHOSTKEY-{number:03}-\n-----END OPENSSH PRIVATE KEY-----\n"
    return make_machine(
        name=f"m{number}",
        mac=f"52:54:00:00:00:{number:02x}",
        ip=f"192.168.100.{number + 10}",
        uuid=f"00000000-0000-4000-8000-{number:012d}",
        installer=kind,
        package_sources=SOURCES,
        repository="http://mirror.example/os/",
        answer_file=AnswerFile.VERBATIM if kind.is_native and number % 8 > 4 else AnswerFile.LAB,
        ssh_host_key=SshHostKey(private=private, public=f"ssh-ed25519 AAAA{number:03} m{number}"),
    )


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    made = make_settings(tmp_path)
    write_artifacts(made)
    (made.templates / "ignition.j2").write_text(
        '{"ignition": {"version": "3.4.0"}, "key": {{ machine.ssh_host_key.private | json }}}'
    )
    for number in range(COUNT):
        machine = make(number)
        write_definition(made.vms, machine)
        write_native(made, machine)
        (made.vms / f"{machine.name}.answers").write_text(f"# ANSWERS-{number:03}-\n")
    return made


def test_machines_read_nothing_of_each_other(lab: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asyncio.run(_try_all(lab))
    formatter = JsonFormatter("boot_handler")
    log = [formatter.format(record) for record in caplog.records if record.name.startswith("pxeboot_stack")]
    assert not any(re.search(r"[0-9a-f]{32}|HOSTKEY-|ANSWERS-", line) for line in log)
    assert sum("refused: " in line for line in log) >= COUNT * (COUNT - 1)


async def _try_all(lab: Settings) -> None:
    transport = httpx.ASGITransport(app=create_app(lab), client=("127.0.0.1", 50000), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://handler") as client:
        targets = [await _boot(client, make(number)) for number in range(COUNT)]
        own = 0
        for asking in targets:
            for owner in targets:
                for path in owner.paths:
                    answer = await client.get(path, headers={"x-real-ip": asking.machine.ip})
                    if owner is asking:
                        own += any(secret in answer.text for secret in owner.secrets)
                    else:
                        assert answer.status_code == 403
                        assert not any(secret in answer.text for target in targets for secret in target.secrets)
            for name in ("x-forwarded-for", "forwarded", "x-real-ip"):  # a header of the client's own, beside nginx's
                victim = targets[(targets.index(asking) + 1) % COUNT]
                forged = [("x-real-ip", asking.machine.ip), (name, victim.machine.ip)]
                answer = await client.get(victim.paths[0], headers=forged)
                assert answer.status_code == 403
        assert own >= 2 * COUNT  # each had its own key at least twice: the matrix is not empty for want of secrets
        for asking in targets:
            for owner in targets:
                if owner is not asking:  # and nobody speaks for another
                    answer = await client.post(f"/m/{owner.token}/report", headers={"x-real-ip": asking.machine.ip})
                    assert answer.status_code == 403


async def _boot(client: httpx.AsyncClient, machine: VmDefinition) -> Target:
    """Have the machine fetch its boot script; its neighbours, who ask for the same, get no token."""
    for address in ("192.168.100.250", "192.168.100.9"):
        other = await client.get(f"/ipxe?mac={machine.mac}", headers={"x-real-ip": address})
        assert "/m/" not in other.text
    script = await client.get(f"/ipxe?mac={machine.mac}", headers={"x-real-ip": machine.ip})
    (token,) = set(re.findall(r"/m/([0-9a-f]{32})/", script.text))
    number = int(machine.name[1:])
    return Target(machine, token, (f"HOSTKEY-{number:03}-", f"ANSWERS-{number:03}-"))
