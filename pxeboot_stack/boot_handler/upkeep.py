"""What the boot handler does between requests, and how it says that it is well.

A few times a second: look for changed definitions, take the lines of dnsmasq and nginx, write timelines, tell the host
which definitions cannot be used. Each part is bounded in time, since requests wait meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator

from contracts import document
from contracts.machine import VmDefinition
from contracts.report import InstallState
from contracts.timeline import FAULTS_FILE, RefusedDefinition, ServiceFaults
from pxeboot_stack.boot_handler.handler import BootHandler
from pxeboot_stack.boot_handler.journal import Journal
from pxeboot_stack.boot_handler.metrics import Metrics
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.definitions import INTERVAL
from pxeboot_stack.publish import publish_text
from pxeboot_stack.watcher import find_dnsmasq

_LOG = logging.getLogger(__name__)
FLUSH_INTERVAL = 1.0  # seconds between two writings of timelines
PRUNE_INTERVAL = 60.0  # seconds between two looks for tokens that open nothing any more
STALLED = 10.0  # seconds without upkeep after which we are not alive
_READ_BUDGET = 0.02  # seconds of an upkeep for reading statuses ahead
_LEAST_FREE = 1024 * 1024  # bytes on the status directory's file system
_PROBE = "_writable"


class Upkeep:
    """The boot handler's own work. :param handler: whose it is. :param settings: where things are."""

    def __init__(self, handler: BootHandler, settings: Settings) -> None:
        self._handler = handler
        self._settings = settings
        self._journal = Journal(settings.run.dnsmasq_log, settings.run.access_log)
        self._generation = -1
        self._faults: ServiceFaults | None = None
        self._ahead: Iterator[VmDefinition] = iter(())
        self._flushed = self._pruned = self._worked = time.monotonic()

    async def run(self) -> None:
        """Work until this is cancelled; then write what is left."""
        self.start()
        try:
            while True:
                await self.work()
                await asyncio.sleep(INTERVAL)
        finally:
            self.stop()

    def start(self) -> None:
        """Take over what an earlier process left, and begin to listen."""
        self._handler.timelines.load_strangers()
        self._handler.files.start()
        self._journal.open()

    def stop(self) -> None:
        """Write what is left."""
        self._drain()
        self._journal.close()
        self._handler.files.stop()
        self._handler.timelines.flush(everything=True)

    async def work(self) -> None:
        """Do all that is due. What goes wrong in it is said in the log and tried again; in the end we are not alive."""
        try:
            for part in (self._follow, self._tell_faults, self._drain, self._read_ahead, self._write):
                part()
                await asyncio.sleep(0)  # whoever waits is answered in between
        except Exception:  # noqa: BLE001 (the upkeep ends with the process only)
            _LOG.exception("the upkeep failed")
        else:
            self._worked = time.monotonic()

    def _follow(self) -> None:
        self._handler.definitions.current()
        if self._handler.definitions.generation != self._generation:
            self._generation = self._handler.definitions.generation
            self._follow_changes()

    def _drain(self) -> None:
        self._journal.drain(self._handler.definitions.current(), self._handler.timelines)

    def _write(self) -> None:
        if time.monotonic() - self._flushed >= FLUSH_INTERVAL:
            self._handler.timelines.flush()
            self._flushed = time.monotonic()
        if time.monotonic() - self._pruned >= PRUNE_INTERVAL:
            self._handler.prune_tokens()
            self._pruned = time.monotonic()

    def _follow_changes(self) -> None:
        """Forget machines that are gone; give adopted ones what was seen of them."""
        machines, timelines = self._handler.definitions.current(), self._handler.timelines
        for name in timelines.names():
            if name not in machines.by_name:
                timelines.forget(name)
        for name in self._handler.statuses.known():
            if name not in machines.by_name:
                self._handler.statuses.forget(name)
        for mac in timelines.strangers():
            if (machine := machines.by_mac.get(mac)) is not None:
                timelines.adopt(machine)
        self._ahead = iter(list(machines.by_name.values()))

    def _read_ahead(self) -> None:
        """Read the states of machines before they ask: a storm of a thousand then reads no files."""
        end = time.monotonic() + _READ_BUDGET
        while time.monotonic() < end and (machine := next(self._ahead, None)) is not None:
            try:
                self._handler.statuses.read(machine)
            except Refusal:  # said to the machine, when it asks
                continue

    def _tell_faults(self) -> None:
        """Write what the services cannot use where the host can see it, when it has changed."""
        definitions = self._handler.definitions
        refused = (
            RefusedDefinition(name=fault.name, reason=fault.reason, kept=fault.superseded)
            for _, fault in sorted(definitions.current().faults.items())
        )
        faults = ServiceFaults(unreadable=definitions.unreadable, definitions=tuple(refused))
        if faults == self._faults:
            return
        try:
            publish_text(self._settings.status / FAULTS_FILE, document.dumps(faults))
        except OSError as error:
            if self._faults is not None:
                _LOG.error("faults of definitions cannot be told: %s", error.strerror)
            return
        self._faults = faults

    def is_alive(self) -> bool:
        """Tell whether the upkeep runs."""
        return time.monotonic() - self._worked < STALLED

    def problems(self) -> list[str]:
        """Return what keeps the services from doing their work, as sentences; none if they can."""
        settings, definitions = self._settings, self._handler.definitions
        definitions.current()
        found = [definitions.unreadable] if definitions.unreadable else []
        try:
            publish_text(settings.status / _PROBE, "", flush=False)
            (settings.status / _PROBE).unlink()
            if shutil.disk_usage(settings.status).free < _LEAST_FREE:
                found.append(f"{settings.status} has no room left")
        except OSError as error:
            found.append(f"{settings.status} cannot be written to: {error.strerror}")
        found += [f"{path} is not there" for path in (settings.images, settings.initrds) if not path.is_dir()]
        if find_dnsmasq(settings.run.dnsmasq_pid) is None:
            found.append("dnsmasq does not run")
        return found

    def render_metrics(self, metrics: Metrics) -> str:
        """Return all figures as text for Prometheus."""
        handler, machines = self._handler, self._handler.definitions.current()
        known = handler.statuses.known()  # of one that never asked there is none
        states = Counter(str(known[name].state if name in known else InstallState.NEW) for name in machines.by_name)
        gauges: dict[str, tuple[str, float]] = {
            "definitions": ("Definitions in use.", len(machines.by_name)),
            "definition_faults": ("Definitions that cannot be used as they are.", len(machines.faults)),
            "definitions_reload_seconds": ("How long reading the last changes took.", handler.definitions.last_reload),
            "strangers": ("Unknown machines that are remembered.", len(handler.timelines.strangers())),
            "events_total": ("Events put into timelines.", handler.timelines.events_seen),
            "events_lost_total": ("Lines of dnsmasq and nginx that were too many.", self._journal.lost),
        }
        return metrics.render(gauges, states)
