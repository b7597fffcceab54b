"""What the boot handler answers, decided without a word of HTTP.

Who may ask: a boot script goes to the machine itself only, that is, to one of the addresses that are reserved for it;
the script carries a token, and both together open what is for that machine alone (:mod:`.tokens`). The address is what
nginx saw. Whoever else asks is told what is wrong, in a script, and changes nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from contracts import document
from contracts.answers import MAIN
from contracts.machine import MachineSource, VmDefinition
from contracts.names import normalize_mac
from contracts.orders import Order
from contracts.report import InstallState, MachineStatus, Outcome, Report
from contracts.timeline import EventKind
from pxeboot_stack.boot_handler import documents, menu, moment, scripts, status
from pxeboot_stack.boot_handler.artifacts import require_shell
from pxeboot_stack.boot_handler.documents import Document
from pxeboot_stack.boot_handler.orders import read_order
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.boot_handler.status import Boot
from pxeboot_stack.boot_handler.timeline import Timelines
from pxeboot_stack.boot_handler.tokens import REPORTING, TokenStore, addresses_of
from pxeboot_stack.boot_handler.write_behind import WriteBehind
from pxeboot_stack.definitions import DefinitionStore, Fault, Machines

_LOG = logging.getLogger(__name__)


class BootHandler:
    """Answers requests; each method is one route. They raise :class:`Refusal` for every answer that is no success.

    Statuses: 400 the request makes no sense; 403 not for this client; 404 no such machine or document; 409 and 422 a
    report that cannot be; 500 a file of the lab needs a person (a broken definition, status or template); 503
    something is missing that may be there at the next try (an artifact, room on the disk).

    :ivar definitions: the machines. :ivar statuses: their install states. :ivar timelines: what was seen of them.
    :ivar files: puts states and tokens in place.
    :raises OSError: if the folder of tokens cannot be made, or what an earlier process left cannot be put in place.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self.files = WriteBehind(settings.status)
        self._tokens = TokenStore(settings.tokens, self.files, clock=clock)
        self.definitions = DefinitionStore(settings.vms, lan=settings.lan)
        self.statuses = status.StatusStore(settings.status, self.files)
        self.timelines = Timelines(settings.status)

    def chain_script(self, *, client: str | None) -> Document:
        """``GET /boot.ipxe``: iPXE runs, and asks what to ask."""
        machines, now = self.definitions.current(), self._clock()
        if (machine := machines.by_address.get(client or "")) is not None:
            self.timelines.add(machine, EventKind.CHAIN, "boot.ipxe fetched", now=now)
        elif client and (mac := self.timelines.find_stranger(client)):
            self.timelines.add_stranger(mac, EventKind.CHAIN, "boot.ipxe fetched", now=now)
        return Document(scripts.render_chain(self._settings.lan.base_url))

    def boot_script(self, mac_text: str, *, client: str | None) -> Document:
        """``GET /ipxe?mac=``: the disk for a machine that is installed, the installer for any other."""
        try:
            mac = normalize_mac(mac_text)
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        machines, now = moment.once("definitions", self.definitions.current), self._clock()
        machine = machines.by_mac.get(mac)
        if machine is None:
            return self._stranger(mac, machines, client=client, now=now)
        if client not in addresses_of(machine):
            text = f"asked for a boot script from {client}, which is not its address"
            _LOG.warning("%s %s", machine.name, text, extra={"machine": machine.name, "client": client})
            self.timelines.add(machine, EventKind.FOREIGN, text, now=now)
            return Document(menu.render_foreign(machine, mac, client, self._settings))
        if machine.source is MachineSource.IMAGE:  # there is nothing to install, and nothing to remember
            self.timelines.add(machine, EventKind.DISK_SCRIPT, "boot script: boot the disk", now=now)
            return Document(scripts.render_boot_disk(machine))
        known, order = self.statuses.read(machine), read_order(self._settings.vms, machine)
        match status.decide(known, order):
            case Boot.DISK:
                self._record(machine, status.disk_script_fetched(known, now=now), before=known)
                self.timelines.add(machine, EventKind.DISK_SCRIPT, "boot script: boot the disk", now=now)
                return Document(scripts.render_boot_disk(machine))
            case Boot.RESCUE:
                assert order is not None  # noqa: S101 (nothing else leads here)
                return self._rescue(machine, known, order, now=now)
            case Boot.INSTALL:
                return self._install(machine, known, order, now=now)

    def _install(self, machine: VmDefinition, known: MachineStatus, order: Order | None, *, now: float) -> Document:
        try:
            documents.check(machine, self._settings)
            script = documents.boot_script(machine, self._settings, token=self._tokens.issue(machine))
        except Refusal as refusal:
            self._refused(machine, known, refusal, now=now)
            raise
        # First the state, then the answer: a machine that was sent into an install is never taken for another one.
        # It survives the end of this process and of the provisioner (write_behind), and where it replaces a system or
        # carries out an order, a power failure of the host as well. Any other may reach the disk a little later: that
        # failure would end the machine, too, before it has done anything.
        after = status.install_script_fetched(known, order=order, now=now)
        self._record(machine, after, before=known, flush=after.order != known.order or known.installs > 0)
        return Document(script)

    def _rescue(self, machine: VmDefinition, known: MachineStatus, order: Order, *, now: float) -> Document:
        try:
            require_shell(self._settings, machine)
        except Refusal as refusal:
            self.timelines.add(machine, EventKind.REFUSED, refusal.sentence, now=now)
            raise
        self._record(machine, status.rescue_script_fetched(known, order=order, now=now), before=known)
        return Document(scripts.render_rescue(machine, self._settings))

    def _refused(self, machine: VmDefinition, known: MachineStatus, refusal: Refusal, *, now: float) -> None:
        after = status.refused(known, refusal.sentence, now=now)
        if after is known:
            self.timelines.add(machine, EventKind.REFUSED, refusal.sentence, now=now)
        self._record(machine, after, before=known)

    def _stranger(self, mac: str, machines: Machines, *, client: str | None, now: float) -> Document:
        if fault := machines.find_refused(mac):
            raise _refused_definition(fault)
        text = "asked what to boot, and was shown how it is adopted"
        self.timelines.add_stranger(mac, EventKind.MENU, text, address=client or "", now=now)
        return Document(menu.render_unknown(mac, client, self._settings))

    def machine_document(self, token: str, path: str, *, client: str | None) -> Document:
        """``GET /m/<token>/<path>``: what is for one machine alone."""
        machine = self._require_bearer(token, document=path, client=client)
        now, answer = self._clock(), documents.render(machine, path, self._settings, token=token)
        self.timelines.add(machine, EventKind.DOCUMENT, f"{path} fetched", now=now)
        if path == f"{documents.ANSWERS}{MAIN.get(machine.installer)}":
            known = self.statuses.read(machine)
            self._record(machine, status.answers_fetched(known, now=now), before=known)
        return answer

    def take_report(self, token: str, body: bytes, *, client: str | None) -> Document:
        """``POST /m/<token>/report``: a :class:`contracts.report.Report`, from the machine itself only."""
        machine = self._require_bearer(token, document=REPORTING, client=client)
        report = _parse_report(body)
        known = self.statuses.read(machine)
        now = status.reported(known, report, now=self._clock())
        self._record(machine, now, before=known)
        if report.outcome is Outcome.DONE:
            self._tokens.end(machine)
        return Document(f"{machine.name} is {now.state}\n")

    def prune_tokens(self) -> None:
        """Remove what is kept of tokens that open nothing any more."""
        machines = self.definitions.current()
        # A definition that cannot be read may be that of a machine which is being installed.
        certain = not machines.faults and not self.definitions.unreadable
        self._tokens.prune(machines.by_uuid if certain else None)

    def _require_bearer(self, token: str, *, document: str, client: str | None) -> VmDefinition:
        """Return the machine that *token* was made for, if *client* may have *document* of it now.

        :raises Refusal: 403 if not; that is in the log, and in the timelines of both machines.
        """
        machines = self.definitions.current()
        try:
            uuid = self._tokens.require_uuid(token, document=document, client=client)
        except Refusal as refusal:
            self._denied(machines.by_address.get(client or ""), refusal)
            raise
        machine = machines.by_uuid.get(uuid)
        if machine is None:
            raise Refusal(404, "the machine that this was for is no machine of this lab any more")
        try:
            self._tokens.require(machine, token, document=document, client=client)
        except Refusal as refusal:
            self._denied(machine, refusal)
            if (asker := machines.by_address.get(client or "")) is not machine:
                self._denied(asker, refusal)
            raise
        return machine

    def _denied(self, machine: VmDefinition | None, refusal: Refusal) -> None:
        if machine is not None and refusal.status == 403:
            self.timelines.add(machine, EventKind.DENIED, f"refused: {refusal.sentence}", now=self._clock())

    def _record(
        self, machine: VmDefinition, now: MachineStatus, *, before: MachineStatus, flush: bool = True
    ) -> None:  # fmt: skip
        """Keep the new status, if there is one."""
        if now is before or now == before:
            return
        self.statuses.write(machine, now, flush=flush)
        if now.state is not before.state:
            said = f": {now.message}" if now.state in {InstallState.FAILED, InstallState.INSTALLED} else ""
            _LOG.info(
                "%s: %s -> %s%s", machine.name, before.state, now.state, said, extra={"machine": machine.name}
            )  # fmt: skip


def _parse_report(body: bytes) -> Report:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the report is not JSON: {error}") from None
    try:
        return document.decode(Report, data)
    except document.DocumentError as error:
        raise Refusal(422, f"the report is {error}") from None


def _refused_definition(fault: Fault) -> Refusal:
    return Refusal(500, f"the definition of {fault.name} cannot be used: {fault.reason}")
