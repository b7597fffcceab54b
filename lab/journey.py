"""The ways of a whole lab: up, down, clean; and of one machine from its definition to a login."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from contracts.arch import Arch
from contracts.machine import Installer, VmDefinition
from contracts.names import PROVISIONER_NAME
from contracts.orders import OrderKind
from contracts.report import InstallState
from lab import orders, provisioner, ssh, target
from lab.follow import PACES, Follower
from lab.lab import Lab
from lab.machine import StopOutcome
from lab.progress import Reporter
from lab.provisioner import ProvisionerState
from lab.spec import Accelerator
from lab.store import DefinitionStore, MachineRequest, require_name
from lab.wait import Deadline
from pipeline.errors import ConflictError, PvmlabError

DEFAULT_DISTRO = "debian-12"
Check = Callable[[VmDefinition], None]
"""Is shown a machine; what it raises keeps that from being started."""
STOP_TIMEOUT = 60.0  # seconds for a guest to shut down; emulated 10 are usual


class Artifacts(Protocol):
    """Builds what machines are made from, as far as it is not there."""

    def ensure_for(self, distro: str, arch: Arch, installer: Installer) -> None:
        """Have all there is to install *distro* on *arch* machines by *installer*, the provisioner included."""

    def ensure_provisioner(self) -> None:
        """Have what the provisioner is made from."""


def up(
    lab: Lab, *, name: str, distro: str | None, reporter: Reporter, artifacts: Artifacts, timeout: float | None = None,
    check: Check | None = None,
) -> None:  # fmt: skip
    """Bring the lab up: artifacts, provisioner and the target *name*, which is created if it is missing.

    On Ctrl-C the machines that this call started are stopped; the next ``up`` carries on.

    :param distro: what to install; None for the usual, or what the target is.
    :param timeout: seconds to wait for the target; None for plenty.
    :param check: is shown the target before anything is built, made or started for it, and again when all is built.
    :raises ConflictError: if another command is bringing the lab up or down, or the target is of another *distro*.
    """
    require_name(name)
    with lab.changing_lab():
        store = DefinitionStore(lab)
        definition = store.load(name) if store.exists(name) else None
        if definition is not None and distro not in {None, definition.distro}:
            raise ConflictError(
                f"{name} is a {definition.distro} machine, not a {distro} one",
                resolution=f"choose another --name, or ./pvmlab vm.clean {name} first",
            )
        request = MachineRequest(name=name, distro=distro or DEFAULT_DISTRO)
        machine = definition or request
        with _checked(check, definition or (target.plan(lab, request) if check is not None else None)):
            artifacts.ensure_for(machine.distro, machine.arch, machine.installer)
        if definition is None:
            definition = target.create(lab, request)
            reporter.say(f"created {name}: {definition.distro}, {definition.ip}")
        _Start(lab, definition, reporter, timeout).run()


def start(
    lab: Lab,
    definition: VmDefinition,
    *,
    reporter: Reporter,
    artifacts: Artifacts,
    wait: bool,
    timeout: float | None = None,
    check: Check | None = None,
) -> None:
    """Start a target, and the provisioner before it if that is off.

    :param wait: return when one can log in, not when its machine runs. :param check: as for :func:`up`.
    :raises ConflictError: if it runs already (without *wait*), or is not the lab's to run.
    """
    target.require_managed(definition)  # before anything is built for it
    if not wait and lab.machine(definition.name).is_running():
        raise ConflictError(f"{definition.name} is already running", resolution=ssh.login_hint(definition.name))
    with _checked(check, definition):
        artifacts.ensure_for(definition.distro, definition.arch, definition.installer)
    _Start(lab, definition, reporter, timeout).run(wait=wait)


@contextlib.contextmanager
def _checked(check: Check | None, definition: VmDefinition | None) -> Iterator[None]:
    """Check before and after: what a document is checked by may be among the artifacts that are built meanwhile."""
    if check is not None and definition is not None:
        check(definition)
    yield
    if check is not None and definition is not None:
        check(definition)


def start_provisioner(lab: Lab, *, reporter: Reporter, artifacts: Artifacts) -> None:
    """Start the provisioner and return when its services answer; do nothing if they do."""
    artifacts.ensure_provisioner()
    accelerator = lab.accelerator(provisioner.ARCH)
    with stopped_if_interrupted(lab) as starting:
        deadline = Deadline(provisioner.BOOT * accelerator.patience)
        ensure_provisioner_runs(lab, accelerator, reporter=reporter, starting=starting)
        _wait_for_provisioner(lab, reporter, deadline)


def down(lab: Lab, *, reporter: Reporter, timeout: float = STOP_TIMEOUT) -> dict[str, StopOutcome]:
    """Stop every machine of the lab, all at once, then its network; return what ended each that ran.

    :param timeout: seconds for the guests to shut down before they are ended by force.
    """
    with lab.changing_lab():
        return _stop_all(lab, reporter, timeout=timeout, force=False)


def clean(lab: Lab, *, reporter: Reporter, with_keys: bool) -> None:
    """End all machines of the lab and remove what is known of them. The cache is not touched.

    :param with_keys: also remove the keys and settings, that is, all that pvmlab made in the lab's home.
    """
    with lab.changing_lab():
        _stop_all(lab, reporter, timeout=0, force=True)
        for name in DefinitionStore(lab).names():
            target.clean(lab, name)
            reporter.say(f"removed {name}")
        provisioner.remove(lab)
        _remove_folders(lab.home.disks, lab.home.logs, lab.home.status)
        ssh.write_files(lab, None)
    if with_keys:
        _remove_folders(lab.home.vms, lab.home.config, lab.home.ssh, lab.home.run)
        for folder in (lab.home.templates, lab.home.root):
            with contextlib.suppress(OSError):  # something of a person's is in it, or it was never made
                folder.rmdir()


@dataclasses.dataclass
class _Start:
    """One start of a target, with the provisioner below it."""

    lab: Lab
    definition: VmDefinition
    reporter: Reporter
    timeout: float | None

    def run(self, *, wait: bool = True) -> None:
        """Go all the way that is left."""
        begun = time.monotonic()
        self._require_obedience()
        accelerator = self.lab.accelerator(self.definition.arch)
        follower = self._follower(accelerator)
        if wait and self._is_all_up(follower):
            self.reporter.say(f"everything is up; {ssh.login_hint(self._name)} goes in")
            if provisioner.is_outdated(self.lab):
                self.reporter.say("the provisioner was built anew since: ./pvmlab down, then up, starts the new one")
            return
        with stopped_if_interrupted(self.lab) as starting:
            self._ensure_running(follower, accelerator, starting=starting, early=wait)
            if not wait:
                self.reporter.say(f"{self._name} runs; ./pvmlab vm.start {self._name} --wait follows it to a login")
                return
            has_login = self._follow(follower)
        took = time.monotonic() - begun
        if not has_login:
            shell = self.lab.machine(self._name).serial_socket
            self.reporter.say(f"{self._name} boots its rescue shell after {took:.0f} s; {shell} is its console")
            return
        self.reporter.say(f"{self._name} is up after {took:.0f} s; {ssh.login_hint(self._name)} goes in")

    def _require_obedience(self) -> None:
        """Check that an order for the target can be carried out: running from its disk, it does not ask for any.

        :raises ConflictError: if not.
        """
        if not self.lab.machine(self._name).is_running():
            return
        status = target.read_status(self.lab, self.definition)
        due = orders.find_due(self.lab, self.definition, status)
        if due is not None and status.state is InstallState.INSTALLED:
            raise ConflictError(
                f"{self._name} runs from its disk, and a {due.kind} is ordered, for which it has to boot anew",
                resolution=f"./pvmlab vm.stop {self._name}, then the same command again",
            )

    def _follower(self, accelerator: Accelerator) -> Follower:
        usual = PACES[self.definition.installer].total * accelerator.patience
        total = self.timeout if self.timeout is not None else usual
        return Follower(self.lab, self.definition, self.reporter, accelerator.patience, Deadline(total))

    def _is_all_up(self, follower: Follower) -> bool:
        said = provisioner.find_announcement(self.lab)
        return (
            self.lab.provisioner.is_running()
            and said is not None
            and said.state is ProvisionerState.READY
            and self.lab.machine(self._name).is_running()
            and target.read_status(self.lab, self.definition).state is InstallState.INSTALLED
            and follower.answers()
        )

    def _ensure_running(self, follower: Follower, accelerator: Accelerator, *, starting: Starting, early: bool) -> None:
        """Have both machines run. :param early: start the target's firmware while the services still start."""
        services = self.lab.accelerator(provisioner.ARCH)
        deadline = follower.deadline.sooner(provisioner.BOOT * services.patience)
        ensure_provisioner_runs(self.lab, services, reporter=self.reporter, starting=starting)
        if early:
            self.reporter.show("provisioner: boots")
            provisioner.wait_until(self.lab, ProvisionerState.STARTING, deadline=deadline)
        else:
            _wait_for_provisioner(self.lab, self.reporter, deadline)
        with self.lab.starting(self._name):
            if not self.lab.machine(self._name).is_running():
                with starting(self._name):
                    target.start(self.lab, self.definition, accelerator)
                self.reporter.say(f"{self._name} started ({accelerator.kind})")
        if early:
            _wait_for_provisioner(self.lab, self.reporter, deadline)

    def _follow(self, follower: Follower) -> bool:
        """Follow the target to what it was started for; tell whether one can log in there."""
        status = target.read_status(self.lab, self.definition)
        due = orders.find_due(self.lab, self.definition, status)
        if due is not None and due.kind is OrderKind.RESCUE:
            follower.wait_for_rescue()
            return False
        if status.state is not InstallState.INSTALLED or due is not None:
            follower.wait_for_install()
            self.reporter.say(f"{self._name}: installed")
        follower.wait_for_login()
        self.reporter.say(f"{self._name}: SSH answers")
        if follower.has_cloud_init():
            follower.wait_for_cloud_init()
            self.reporter.say(f"{self._name}: cloud-init has finished")
        return True

    @property
    def _name(self) -> str:
        return self.definition.name


Starting = Callable[[str], contextlib.AbstractContextManager[None]]


def ensure_provisioner_runs(lab: Lab, accelerator: Accelerator, *, reporter: Reporter, starting: Starting) -> None:
    """Have the provisioner's machine run; one whose services failed is started again."""
    with lab.starting(PROVISIONER_NAME):
        if lab.provisioner.is_running():
            reason = provisioner.has_failed(lab, patience=accelerator.patience)
            if reason is None:
                return
            reporter.say(f"the provisioner had failed ({reason}): starting it again")
            lab.provisioner.kill()
        if provisioner.create(lab):
            reporter.say("created the provisioner")
        with starting(PROVISIONER_NAME):
            provisioner.start(lab, accelerator)
    reporter.say(f"provisioner started ({provisioner.describe_start(lab, accelerator)})")


@contextlib.contextmanager
def stopped_if_interrupted(lab: Lab) -> Iterator[Starting]:
    """Yield a block for each start of a machine; Ctrl-C within the whole ends the machines started so.

    Other failures leave them: people want to look.
    """
    started: list[str] = []

    @contextlib.contextmanager
    def starting(name: str) -> Iterator[None]:
        started.append(name)  # before: the signal may come right after the start
        try:
            yield
        except PvmlabError:  # it was not started, or by somebody else
            started.remove(name)
            raise

    try:
        yield starting
    except KeyboardInterrupt:
        with uninterrupted():
            for name in reversed(started):
                lab.machine(name).kill()
            stop_unused_network(lab)
        raise
    except PvmlabError:
        stop_unused_network(lab)
        raise


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore the signals by which people interrupt, for a short clean-up. Only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_unused_network(lab: Lab) -> None:
    """Stop the lab's network if no machine is on it."""
    if not any(lab.machine(name).is_running() for name in machine_names(lab)):
        lab.network.stop()


def machine_names(lab: Lab) -> list[str]:
    """Return the names of all machines that may run: the defined ones, the provisioner, and what has a record."""
    recorded = {path.stem for path in lab.home.run.glob("[!._]*.json")} - {"accelerator"}  # lab.accelerator's memory
    return sorted({*DefinitionStore(lab).names(), PROVISIONER_NAME, *recorded})


def _remove_folders(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)


def _wait_for_provisioner(lab: Lab, reporter: Reporter, deadline: Deadline) -> None:
    said = provisioner.find_announcement(lab)
    if said is not None and said.state is ProvisionerState.READY:
        return
    reporter.show("provisioner: its services start")
    provisioner.wait_until(lab, ProvisionerState.READY, deadline=deadline)
    reporter.say("provisioner is ready")


def _stop_all(lab: Lab, reporter: Reporter, *, timeout: float, force: bool) -> dict[str, StopOutcome]:
    names = [name for name in machine_names(lab) if lab.machine(name).is_running()]
    targets = [name for name in names if name != PROVISIONER_NAME]
    outcomes = {}
    if targets:
        reporter.show(f"stopping {', '.join(targets)}")
        with ThreadPoolExecutor(len(targets)) as threads:
            stops = {name: threads.submit(lab.machine(name).stop, timeout=timeout, force=force) for name in targets}
        outcomes = {name: stop.result() for name, stop in stops.items()}
    if PROVISIONER_NAME in names:  # last: the others may still ask it while they shut down
        outcomes[PROVISIONER_NAME] = provisioner.stop(lab)
    for name, outcome in outcomes.items():
        reporter.say(f"{name}: {outcome}")
    if not outcomes:
        reporter.say("no machine was running")
    lab.network.stop()
    return outcomes
