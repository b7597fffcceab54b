"""Bringing one target up, with the provisioner below it: from a definition to a login.

What has to be undone on Ctrl-C is kept by :func:`stopped_if_interrupted`. :mod:`lab.journey` and
:mod:`lab.manifest_apply` put these steps together, for one machine and for many.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from contracts.arch import Arch
from contracts.machine import Installer, VmDefinition
from contracts.names import PROVISIONER_NAME
from contracts.orders import OrderKind
from contracts.report import InstallState
from lab import cloud_machine, orders, provisioner, ssh, target
from lab.follow import Follower, pace_of
from lab.lab import Lab
from lab.progress import Reporter
from lab.provisioner import ProvisionerState
from lab.spec import Accelerator, Firmware, MachineSpec
from lab.store import DefinitionStore
from lab.target import USUAL_START, BootFrom, StartOptions
from lab.wait import Deadline
from pipeline.errors import ConflictError, PvmlabError

AFTER = "{after}"  # stands for how long it took


class Artifacts(Protocol):
    """Builds what machines are made from, as far as it is not there, and renders what they are told."""

    def ensure_for(self, distro: str, arch: Arch, installer: Installer) -> None:
        """Have all there is to install *distro* on *arch* machines by *installer*, the provisioner included."""

    def ensure_image(self, distro: str, arch: Arch) -> None:
        """Have the cloud image of *distro* for *arch* machines, and the provisioner."""

    def ensure_provisioner(self) -> None:
        """Have what the provisioner is made from."""

    def seed_documents(self, lab: Lab, definition: VmDefinition) -> Mapping[str, str]:
        """Return the NoCloud documents of a machine, by their names."""


class Milestone(enum.StrEnum):
    """How far a target got on its way up, in the order of the way."""

    STARTED = "started"  # its QEMU runs
    INSTALLED = "installed"
    SSH = "ssh"  # its SSH server answers
    CLOUD_INIT = "cloud-init"  # has finished, without errors

    @property
    def rank(self) -> int:
        """Its place in the order."""
        return list(Milestone).index(self)


def ensure_artifacts(artifacts: Artifacts, definition: VmDefinition) -> None:
    """Build what the machine is made from."""
    if not cloud_machine.is_cloud(definition):
        artifacts.ensure_for(definition.distro, definition.arch, definition.installer)
    elif definition.image:
        artifacts.ensure_provisioner()
    else:
        artifacts.ensure_image(definition.distro, definition.arch)


def _ignore(_: Milestone) -> None:
    """Tell nobody."""


def _go_on() -> None:
    """Let a wait go on."""


@dataclasses.dataclass
class BringUp:
    """One target on its way up.

    :ivar timeout: seconds for all of it; None for plenty. :ivar reached: is told each milestone.
    :ivar interrupt: called again and again while something is waited for; what it raises ends the wait.
    :ivar options: what is other than usual with this start.
    """

    lab: Lab
    definition: VmDefinition
    reporter: Reporter
    artifacts: Artifacts
    timeout: float | None = None
    reached: Callable[[Milestone], None] = _ignore
    interrupt: Callable[[], None] = _go_on
    options: StartOptions = USUAL_START

    def run(self, *, wait: bool = True) -> None:
        """Go all the way that is left."""
        begun = time.monotonic()
        self._require_obedience()
        accelerator = self.lab.accelerator(self.definition.arch)
        follower = self.follower(accelerator)
        if wait and self._is_all_up(follower):
            self.reporter.say(f"everything is up; {ssh.login_hint(self._name)} goes in")
            if provisioner.is_outdated(self.lab):
                self.reporter.say("the provisioner was built anew since: ./pvmlab down, then up, starts the new one")
            return
        with stopped_if_interrupted(self.lab) as starting:
            self._ensure_running(follower, accelerator, starting=starting, early=wait)
            if not wait:
                self.reporter.say(f"{self._name} runs; {self._what_next()}")
                return
            end = self._follow(follower)
        took = time.monotonic() - begun
        self.reporter.say(f"{self._name} {end.replace(AFTER, f'after {took:.0f} s')}")

    def _require_obedience(self) -> None:
        """Check that an order for the target can be carried out: running from its disk, it does not ask for any.

        :raises ConflictError: if not.
        """
        if not self.lab.machine(self._name).is_running():
            return
        if self.options != USUAL_START:
            raise ConflictError(
                f"{self._name} is already running, and --boot and --no-reboot are for its start",
                resolution=f"./pvmlab vm.stop {self._name}, then the same command again",
            )
        status = target.read_status(self.lab, self.definition)
        due = orders.find_due(self.lab, self.definition, status)
        runs_from_disk = status.state is InstallState.INSTALLED or cloud_machine.is_cloud(self.definition)
        if due is not None and runs_from_disk:
            raise ConflictError(
                f"{self._name} runs from its disk, and a {due.kind} is ordered, for which it has to boot anew",
                resolution=f"./pvmlab vm.stop {self._name}, then the same command again",
            )

    def run_on_provisioner(self, starting: Starting) -> None:
        """Go all the way that is left, with a provisioner that is ready.

        :raises ConflictError: if that way leads into a rescue shell, not to a login.
        """
        self._require_obedience()
        self._require_no_rescue()
        accelerator = self.lab.accelerator(self.definition.arch)
        follower = self.follower(accelerator)
        self._ensure_target_runs(accelerator, starting)
        self._follow(follower)

    def _require_no_rescue(self) -> None:
        status = target.read_status(self.lab, self.definition)
        due = orders.find_due(self.lab, self.definition, status)
        if due is not None and due.kind is OrderKind.RESCUE:
            raise ConflictError(
                f"a rescue shell is ordered for {self._name}",
                resolution=f"./pvmlab vm.start {self._name} boots it; ./pvmlab vm.reinstall {self._name} --withdraw "
                "takes it back",
            )
        if status.state is InstallState.RESCUE and self.lab.machine(self._name).is_running():
            raise ConflictError(
                f"{self._name} is in its rescue shell", resolution=f"./pvmlab vm.stop {self._name} ends it"
            )

    def follower(self, accelerator: Accelerator) -> Follower:
        """Return who follows it, with the time for all of it beginning now."""
        usual = pace_of(self.definition).total * accelerator.patience
        total = self.timeout if self.timeout is not None else usual
        return Follower(
            self.lab, self.definition, self.reporter, accelerator.patience, Deadline(total), interrupt=self.interrupt
        )

    def _is_all_up(self, follower: Follower) -> bool:
        said = provisioner.find_announcement(self.lab)
        return (
            self.lab.provisioner.is_running()
            and said is not None
            and said.state is ProvisionerState.READY
            and self.lab.machine(self._name).is_running()
            and self._has_system()
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
            wait_for_provisioner(self.lab, self.reporter, deadline)
        self._ensure_target_runs(accelerator, starting)
        if early:
            wait_for_provisioner(self.lab, self.reporter, deadline)

    def _ensure_target_runs(self, accelerator: Accelerator, starting: Starting) -> None:
        with self.lab.starting(self._name):
            if not self.lab.machine(self._name).is_running():
                if cloud_machine.is_cloud(self.definition):
                    documents = self.artifacts.seed_documents(self.lab, self.definition)
                    cloud_machine.ensure_seed(self.lab, self._name, documents)
                with starting(self._name):
                    spec = target.start(self.lab, self.definition, accelerator, options=self.options)
                without = ", Secure Boot off" if self._boots_unsigned(spec) else ""
                self.reporter.say(f"{self._name} started ({accelerator.kind}{without})")
        self.reached(Milestone.STARTED)

    def _has_system(self) -> bool:
        """Tell whether it boots from its disk, with nothing to be installed."""
        if cloud_machine.is_cloud(self.definition):
            return True
        status = target.read_status(self.lab, self.definition)
        return status.state is InstallState.INSTALLED and orders.find_due(self.lab, self.definition, status) is None

    def _boots_unsigned(self, spec: MachineSpec) -> bool:
        """Tell whether its firmware, for a network boot, was given variables without Secure Boot."""
        own = target.variables_path(self.lab, self._name)
        return self.definition.secure_boot and isinstance(spec.boot, Firmware) and spec.boot.variables != own

    def _what_next(self) -> str:
        """Return what a person has to know who does not wait for it."""
        again = f"./pvmlab vm.start {self._name}"
        if not self.options.reboots:
            return f"it will be off where its system would reboot, and {again} starts it again"
        if self.definition.secure_boot and not self._has_system():
            return f"installed, it will be off, and {again} boots its disk with Secure Boot on"
        return f"{again} --wait follows it to a login"

    def _follow(self, follower: Follower) -> str:
        """Follow the target to what it was started for; return how it is then, with :data:`AFTER` for the time."""
        status = target.read_status(self.lab, self.definition)
        due = orders.find_due(self.lab, self.definition, status)
        if due is not None and due.kind is OrderKind.RESCUE and self.options.boot is not BootFrom.DISK:
            follower.wait_for_rescue()
            return f"boots its rescue shell {AFTER}; {self.lab.machine(self._name).serial_socket} is its console"
        if not self._has_system() and self.options.boot is not BootFrom.DISK:
            follower.wait_for_install()
            self.reporter.say(f"{self._name}: installed")
            if not self.options.reboots or self.definition.secure_boot:
                follower.wait_until_off()
            if not self.options.reboots:
                self.reached(Milestone.INSTALLED)
                return f"is installed and off {AFTER}; ./pvmlab vm.start {self._name} boots it"
            if self.definition.secure_boot:
                self._start_again()
        self.reached(Milestone.INSTALLED)
        follower.wait_for_login()
        self.reporter.say(f"{self._name}: SSH answers")
        self.reached(Milestone.SSH)
        if follower.has_cloud_init():
            follower.wait_for_cloud_init()
            self.reporter.say(f"{self._name}: cloud-init has finished")
            self.reached(Milestone.CLOUD_INIT)
        return f"is up {AFTER}; {ssh.login_hint(self._name)} goes in"

    def _start_again(self) -> None:
        """Start the installed target with Secure Boot on, which its install had to boot without."""
        with self.lab.starting(self._name):
            if not self.lab.machine(self._name).is_running():
                target.start(self.lab, self.definition, self.lab.accelerator(self.definition.arch))
        self.reporter.say(f"{self._name} started again, Secure Boot on")

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


def wait_for_provisioner(lab: Lab, reporter: Reporter, deadline: Deadline) -> None:
    """Return when the services answer, which were started."""
    said = provisioner.find_announcement(lab)
    if said is not None and said.state is ProvisionerState.READY:
        return
    reporter.show("provisioner: its services start")
    provisioner.wait_until(lab, ProvisionerState.READY, deadline=deadline)
    reporter.say("provisioner is ready")
