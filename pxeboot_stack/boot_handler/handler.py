"""What the boot handler answers, decided without a word of HTTP.

Who may ask: anybody on the LAN may ask what a machine would boot, but only a request from the machine's reserved
address changes its install state, reports, or reads its secrets (host key, seed, configuration). The address is
what nginx saw, so a machine that takes another's address is taken for it; the lab trusts its own machines so far.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable

from contracts import document, nocloud
from contracts.answers import MAIN
from contracts.install import InstallerConfig, report_path, seed_path
from contracts.machine import VmDefinition
from contracts.names import normalize_mac, validate_machine_name
from contracts.report import InstallState, MachineStatus, Report
from pxeboot_stack.boot_handler import answers, scripts, status
from pxeboot_stack.boot_handler.artifacts import require_artifacts, require_rootfs
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.definitions import DefinitionStore, Fault

_LOG = logging.getLogger(__name__)
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


@dataclasses.dataclass(frozen=True)
class Answer:
    """A body and what it is. :ivar status: 200, or 503 of :meth:`BootHandler.health`."""

    body: str
    media_type: str = TEXT
    status: int = 200


class BootHandler:
    """Answers requests; each method is one route. They raise :class:`Refusal` for every answer that is no success.

    Statuses: 400 the request makes no sense; 403 not for this client; 404 no such machine or document; 409 and 422 a
    report that cannot be; 500 a file of the lab needs a person (a broken definition or status); 503 something is
    missing that may be there at the next try (an artifact, room on the disk).
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._definitions = DefinitionStore(settings.vms, lan=settings.lan)
        self._statuses = status.StatusStore(settings.status)
        self._clock = clock

    def chain_script(self) -> Answer:
        """``GET /boot.ipxe``."""
        return Answer(scripts.render_chain(self._settings.lan.base_url))

    def boot_script(self, mac: str, *, client: str | None) -> Answer:
        """``GET /ipxe?mac=``: the disk for a machine that is installed, the installer for any other."""
        machine = self._require_mac(mac)
        now, known = self._clock(), self._statuses.read(machine)
        if known.state is InstallState.INSTALLED:
            self._record(machine, status.disk_script_fetched(known, now=now), before=known, client=client)
            return Answer(scripts.render_boot_disk(machine))
        try:
            require_artifacts(self._settings, machine)
            if machine.installer.is_native:
                answers.check(machine, self._settings)
        except Refusal as refusal:
            self._record(machine, status.refused(known, refusal.sentence, now=now), before=known, client=client)
            raise
        self._record(machine, status.install_script_fetched(known, now=now), before=known, client=client)
        render = scripts.render_native if machine.installer.is_native else scripts.render_install
        return Answer(render(machine, self._settings))

    def installer_config(self, mac: str, *, client: str | None) -> Answer:
        """``GET /config/<mac>``: a :class:`contracts.install.InstallerConfig`, for the machine itself only."""
        machine = self._require_mac(mac)
        _require_own_address(machine, client, what="configuration")
        base = self._settings.lan.base_url
        config = InstallerConfig(
            name=machine.name,
            mac=machine.mac,
            arch=machine.arch,
            distro=machine.distro,
            domain=self._settings.lan.domain,
            disk=machine.disk_bus.device,
            rootfs=require_rootfs(self._settings, machine),
            seed_url=base + seed_path(machine.name),
            report_url=base + report_path(machine.mac),
            kernel_args=(f"console={machine.arch.serial_device},115200", "quiet"),
            reboot_on_success=machine.reboot_on_success,
        )
        return Answer(document.dumps(config), JSON)

    def seed_document(self, name: str, kind: str, *, client: str | None) -> Answer:
        """``GET /cloud-init/<name>/<kind>``: a NoCloud document, for the machine itself only."""
        machine = self._require_name(name)
        render = nocloud.DOCUMENTS.get(kind)
        if render is None:
            raise Refusal(404, f"{kind!r} is no NoCloud document; there are {', '.join(nocloud.DOCUMENTS)}")
        _require_own_address(machine, client, what=kind)
        return Answer(render(machine, self._settings.lan))

    def answer_document(self, name: str, document_name: str, *, client: str | None) -> Answer:
        """``GET /answers/<name>/<document>``: what its own installer is told, for the machine itself only."""
        machine = self._require_name(name)
        _require_own_address(machine, client, what="answer file")
        text = answers.render(machine, document_name, self._settings)
        if document_name == MAIN.get(machine.installer):
            known = self._statuses.read(machine)
            self._record(machine, status.answers_fetched(known, now=self._clock()), before=known, client=client)
        return Answer(text)

    def take_report(self, mac: str, body: bytes, *, client: str | None) -> Answer:
        """``POST /report/<mac>``: a :class:`contracts.report.Report`, from the machine itself only."""
        machine = self._require_mac(mac)
        _require_own_address(machine, client, what="install state")
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"the report is not JSON: {error}") from None
        try:
            report = document.decode(Report, data)
        except document.DocumentError as error:
            raise Refusal(422, f"the report is {error}") from None
        known = self._statuses.read(machine)
        now = status.reported(known, report, now=self._clock())
        if now != known:
            self._statuses.write(machine, now)
        if now.state is not known.state:
            _LOG.info("%s: %s -> %s: %s", machine.name, known.state, now.state, now.message)
        return Answer(f"{machine.name} is {now.state}\n")

    def health(self) -> Answer:
        """``GET /healthz``: 200 if we can do our work, 503 if not; what is wrong is in the body either way."""
        machines = self._definitions.current()
        problems = [self._definitions.unreadable] if self._definitions.unreadable else []
        if not os.access(self._settings.status, os.W_OK | os.X_OK):
            problems.append(f"{self._settings.status} is not writable")
        problems += [
            f"{path} is not there" for path in (self._settings.images, self._settings.initrds) if not path.is_dir()
        ]
        detail = {
            "ready": not problems,
            "problems": problems,
            "machines": len(machines.by_name),
            "refused_definitions": {name: fault.reason for name, fault in sorted(machines.faults.items())},
        }
        return Answer(json.dumps(detail, indent=2) + "\n", JSON, 503 if problems else 200)

    def _require_mac(self, text: str) -> VmDefinition:
        try:
            mac = normalize_mac(text)
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        machines = self._definitions.current()
        if machine := machines.by_mac.get(mac):
            return machine
        if fault := machines.find_refused(mac):
            raise _refused_definition(fault)
        raise Refusal(404, f"no machine of this lab has the MAC address {mac}")

    def _require_name(self, text: str) -> VmDefinition:
        try:
            name = validate_machine_name(text)
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        machines = self._definitions.current()
        if machine := machines.by_name.get(name):
            return machine
        if fault := machines.faults.get(name):
            raise _refused_definition(fault)
        raise Refusal(404, f"this lab has no machine named {name}")

    def _record(self, machine: VmDefinition, now: MachineStatus, *, before: MachineStatus, client: str | None) -> None:
        """Keep the new status, if it is the machine itself that asked: a person with curl changes nothing."""
        if client != machine.ip:
            _LOG.warning("%s asked for the boot script of %s, whose address is %s", client, machine.name, machine.ip)
        elif now != before:
            self._statuses.write(machine, now)
            _LOG.info("%s: %s -> %s", machine.name, before.state, now.state)


def _require_own_address(machine: VmDefinition, client: str | None, *, what: str) -> None:
    if client != machine.ip:
        _LOG.warning("refused: %s asked for the %s of %s, whose address is %s", client, what, machine.name, machine.ip)
        raise Refusal(403, f"the {what} of {machine.name} is for {machine.name} only, and {client} is not its address")


def _refused_definition(fault: Fault) -> Refusal:
    return Refusal(500, f"the definition of {fault.name} cannot be used: {fault.reason}")
