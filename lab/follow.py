"""Following a target from its power button to a login: install, SSH, cloud-init. Says why when it stops moving."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence

from contracts.machine import AnswerFile, Installer, VmDefinition
from contracts.names import PROVISIONER_NAME
from contracts.report import InstallState, MachineStatus, Phase
from lab import orders, provisioner, ssh, target
from lab.cloud_machine import is_cloud
from lab.diagnosis import diagnose, where
from lab.events import read_events
from lab.explain import CONSOLE_LINES, describe, explain_silence
from lab.lab import Lab
from lab.progress import Reporter
from lab.provisioner import ProvisionerState
from lab.provisioner_record import ProvisionerMode
from lab.wait import Deadline
from lab.watch import MachineWatch
from pipeline.errors import CommandError, PvmlabError, WaitTimeoutError

REBOOT = 60.0  # seconds from the last report of an install to the reboot
CLOUD_INIT = 60.0  # from an SSH server to cloud-init's result


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long things may take with hardware acceleration; emulated, Accelerator.patience times as long.

    :ivar silence: seconds between two signs of life of firmware and installer.
    :ivar login: seconds from the installed disk to an SSH server. :ivar total: seconds for everything together.
    """

    silence: float
    login: float
    total: float


# Several times what is usual. Debian's installer is made to say something every few seconds; the other two speak only
# when they begin, when their packages are installed, and at the end.
PACES = {
    Installer.PVMLAB: Pace(24.0, 60.0, 240.0),
    Installer.PRESEED: Pace(120.0, 120.0, 1500.0),
    Installer.AUTOINSTALL: Pace(900.0, 180.0, 3600.0),
    Installer.KICKSTART: Pace(900.0, 180.0, 3600.0),
}

# From the power button, not from the end of an install: firmware, bootloader, and a first boot that grows the disk.
IMAGE_PACE = Pace(24.0, 120.0, 300.0)

_POLL = 0.1  # seconds between two looks at the status, a small local file
_CHUNK = 30  # seconds one remote loop runs: then we look whether the machine still does
_NOT_YET = 75  # its exit status (EX_TEMPFAIL) when what it waits for has not come
_DEATHS = ("Kernel panic", "pvmlab: the install failed")  # the second one is said by the initrd's init

# $1 address, $2 seconds. Each try costs an emulated provisioner a fifth of a second in which the target could boot, and
# each login more: few tries, long loops. What answers must speak SSH: a forwarded or half-open port is not enough.
_PORT_LOOP = f"""
end=$((SECONDS + $2))
while :; do
    if timeout 3 bash -c 'exec 3<>/dev/tcp/$0/22 && read -r -t 3 line <&3 && [[ $line == SSH-2* ]]' "$1" 2>/dev/null
    then exit 0
    fi
    [ $SECONDS -ge $end ] && exit {_NOT_YET}
    sleep 1
done
"""
# $1 seconds. cloud-init writes the file, whole, as its last act.
_RESULT_LOOP = f"""
left=$(($1 * 4))
until [ -s /run/cloud-init/result.json ]; do
    left=$((left - 1))
    [ $left -le 0 ] && exit {_NOT_YET}
    sleep 0.25
done
cat /run/cloud-init/result.json
"""


class MachineEndedError(PvmlabError):
    """A machine's QEMU ended while something was expected of it."""


class InstallFailedError(PvmlabError):
    """The installer, or the boot handler for it, reported a failure. :ivar phase: None before the first."""

    def __init__(self, status: MachineStatus, *, console: str) -> None:
        self.phase = status.phase
        where = f" in phase {status.phase.number} of {len(Phase)}, {status.phase}" if status.phase else ""
        super().__init__(
            f"the install of {status.name} failed{where}: {status.message}",
            details="\n".join(f"  | {line}" for line in status.lines),
            resolution=f"the machine still runs: {console} shows its console; "
            f"./pvmlab vm.stop {status.name} --force, then the same command again, begins a new install",
        )


class CloudInitError(PvmlabError):
    """cloud-init finished with errors."""


@dataclasses.dataclass(frozen=True)
class Follower:
    """Follows one target.

    :ivar patience: see :class:`lab.spec.Accelerator`. :ivar deadline: of everything together.
    :ivar interrupt: called again and again during every wait; what it raises ends the wait.
    """

    lab: Lab
    definition: VmDefinition
    reporter: Reporter
    patience: float
    deadline: Deadline
    interrupt: Callable[[], None] = lambda: None
    _watches: dict[str, MachineWatch] = dataclasses.field(default_factory=dict)

    def wait_for_install(self) -> None:
        """Return when the target is installed: at once, if it was before.

        One that is ordered to be installed once more is waited for, too.

        :raises InstallFailedError: if the install fails. :raises MachineEndedError: if a QEMU ends.
        :raises WaitTimeoutError: if nothing moves for too long, with a diagnosis.
        """
        seen: MachineStatus | None = None
        quiet = self._limit(self._pace.silence)
        while True:
            status = target.read_status(self.lab, self.definition)
            if status != seen:
                seen, quiet = status, self._limit(self._pace.silence)
                self._tell(status)
            if self._is_installed(status):
                return
            if status.state is InstallState.FAILED:
                raise InstallFailedError(status, console=self._logs_command)
            try:
                self._require_alive(f"during its install ({where(status)})")
            except MachineEndedError:
                if self._is_installed():  # --no-reboot: it said so and ended, after we had asked
                    return
                raise
            if death := find_death(self._console(50)):
                raise MachineEndedError(
                    f"the install of {self._name} died without a report: {death}",
                    details=self._tail(),
                    resolution=f"{self._logs_command} shows its whole console; ./pvmlab vm.stop {self._name} --force, "
                    "then the same command again, begins a new install",
                )
            if quiet.passed:
                raise self._timeout(self._diagnose(status), quiet)
            time.sleep(_POLL)

    def wait_until_off(self) -> None:
        """Return when the target is off, which was started so that it does not reboot after its install.

        :raises WaitTimeoutError: if its system does not reboot.
        """
        self.reporter.show(f"{self._name}: ends its install")
        limit = self._limit(REBOOT)
        while self.lab.machine(self._name).is_running():
            self.interrupt()
            if limit.passed:
                raise self._timeout(f"{self._name} is installed and did not reboot, where it would be off", limit)
            time.sleep(_POLL)

    def wait_for_rescue(self) -> None:
        """Return when the target was sent into its rescue shell, as ordered.

        :raises MachineEndedError: if a QEMU ends. :raises WaitTimeoutError: if it does not ask for its script.
        """
        quiet = self._limit(self._pace.silence)
        self.reporter.show(f"{self._name}: firmware starts, then asks the network")
        while (status := target.read_status(self.lab, self.definition)).state is not InstallState.RESCUE:
            self._require_alive("before it came to its rescue shell")
            if quiet.passed:
                raise self._timeout(self._diagnose(status), quiet)
            time.sleep(_POLL)

    def wait_for_login(self) -> None:
        """Return when the target's SSH server answers on the lab's network.

        :raises MachineEndedError: if a QEMU ends. :raises WaitTimeoutError: if it does not answer.
        """
        self.reporter.show(f"{self._name}: boots from its disk, waiting for SSH")
        words, begun = ["bash", "-c", _PORT_LOOP, "wait", self.definition.ip], time.time()
        self._ask_until(
            PROVISIONER_NAME, words, limit=self._limit(self._pace.login),
            missing=f"{self._name} did not answer by SSH at {self.definition.ip}",
            explain=lambda: self._explain_silence(since=begun),
        )  # fmt: skip

    def wait_for_cloud_init(self) -> None:
        """Return when cloud-init has finished on the target. It must have one: :meth:`has_cloud_init`.

        :raises CloudInitError: if it had errors. :raises MachineEndedError: if a QEMU ends.
        :raises WaitTimeoutError: if it does not finish, or lets nobody in.
        """
        self.reporter.show(f"{self._name}: cloud-init is at work")
        words = ["sh", "-c", _RESULT_LOOP, "wait"]
        text = self._ask_until(
            self._name, words, limit=self._limit(CLOUD_INIT), missing=f"cloud-init did not finish on {self._name}",
            explain=self._explain_cloud_init,
        )  # fmt: skip
        if errors := parse_result(text):
            raise CloudInitError(
                f"cloud-init finished with errors on {self._name}",
                details="\n".join(errors),
                resolution=f"{ssh.login_hint(self._name)} -- sudo cat /var/log/cloud-init.log",
            )

    def has_cloud_init(self) -> bool:
        """Tell whether the target is known to have cloud-init, and to let us in to ask it.

        debian-installer and Anaconda install none, and what a person's own answers do is the person's business.
        """
        if is_cloud(self.definition):
            return True
        with_it = {Installer.PVMLAB, Installer.AUTOINSTALL}
        return self.definition.installer in with_it and self.definition.answer_file is AnswerFile.LAB

    def answers(self) -> bool:
        """Tell whether the target's SSH server answers now, or within a few seconds."""
        words = ["bash", "-c", _PORT_LOOP, "wait", self.definition.ip, "1"]
        try:
            ssh.run_on(self.lab, PROVISIONER_NAME, words, timeout=ssh.CONNECT_LIMIT)
        except CommandError:
            return False
        return True

    def _ask_until(
        self, name: str, words: Sequence[str], *, limit: Deadline, missing: str, explain: Callable[[], str]
    ) -> str:  # fmt: skip
        """Run a remote loop on *name* again and again until it succeeds; return what it printed.

        :param explain: asked at the end of the wait for the reason, as far as it can be told.
        """
        said = ""
        while True:
            self._require_booting()
            seconds = max(1, min(_CHUNK, round(limit.left)))
            try:
                done = ssh.run_on(
                    self.lab, name, [*words, str(seconds)], timeout=seconds + ssh.CONNECT_LIMIT, check=False,
                    watch=self._require_booting,
                )  # fmt: skip
            except CommandError as error:  # it hangs
                said = error.brief
            else:
                if done.returncode == 0:
                    return done.stdout
                said = done.stderr.strip() or said
                if limit.passed:
                    raise self._timeout(
                        "; ".join(filter(None, (missing, f"ssh said: {said}" if said else "", explain()))), limit
                    )
                if done.returncode != _NOT_YET:
                    time.sleep(0.5)
                continue
            if limit.passed:
                raise self._timeout(f"{missing}; {said}; {explain()}", limit)

    def _explain_silence(self, *, since: float) -> str:
        events = read_events(self.lab, self.definition)
        return explain_silence(self._name, self._console(200), events, since=since, now=time.time())

    def _explain_cloud_init(self) -> str:
        """Return what cloud-init is at, by its own word; nothing if that cannot be had."""
        words = ["sh", "-c", "cloud-init status --long; tail -n 3 /var/log/cloud-init-output.log"]
        try:
            done = ssh.run_on(self.lab, self._name, words, timeout=ssh.CONNECT_LIMIT, check=False)
        except CommandError:
            return ""
        return "it says: " + "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())[:600]

    def _require_booting(self) -> None:
        self._require_alive("while it booted from its disk")
        if panic := next((line for line in self._console(50) if _DEATHS[0] in line), None):
            raise MachineEndedError(
                f"the system of {self._name} died while it booted from its disk: {panic}",
                details=self._tail(),
                resolution=f"{self._logs_command} shows its whole console",
            )

    def _is_installed(self, status: MachineStatus | None = None) -> bool:
        known = status or target.read_status(self.lab, self.definition)
        return known.state is InstallState.INSTALLED and orders.find_due(self.lab, self.definition, known) is None

    def _require_alive(self, when: str) -> None:
        self.interrupt()
        if not self.lab.machine(self._name).is_running():
            raise MachineEndedError(
                f"the QEMU of {self._name} ended {when}",
                details=self._tail(),
                resolution=f"{self._logs_command} --which=qemu shows QEMU's own words; then the same command again",
            )
        self._watch(self._name).require_answer(when)
        if not self.lab.provisioner.is_running():
            raise MachineEndedError(
                f"the provisioner's {self.lab.provisioner.runs} ended",
                details="\n".join(self.lab.provisioner.serial_tail(CONSOLE_LINES)),
                resolution="the same command again starts it; "
                f"./pvmlab vm.logs {PROVISIONER_NAME} --which=qemu shows its own words",
            )
        self._watch(PROVISIONER_NAME).require_answer("while others were waited for")
        said = provisioner.find_announcement(self.lab)
        if said is not None and said.state is ProvisionerState.FAILED:
            raise provisioner.ProvisionerError(
                f"the provisioner's services failed: {said.message}",
                resolution=f"see {self._services_log_command}; then ./pvmlab down and up",
            )

    def _watch(self, name: str) -> MachineWatch:
        if name not in self._watches:
            self._watches[name] = MachineWatch(self.lab.machine(name))
        return self._watches[name]

    def _tell(self, status: MachineStatus) -> None:
        match status.state:
            case InstallState.NEW:
                self.reporter.show(f"{self._name}: firmware starts, then asks the network")
            case InstallState.BOOTING:
                self.reporter.show(f"{self._name}: {status.message}")
            case InstallState.INSTALLING if status.phase is not None:
                doing = f": {status.message}" if self.definition.installer.is_native else ""
                where = f"{status.phase.number}/{len(Phase)} {status.phase}{doing}"
                self.reporter.show(f"{self._name}: {where}", status.percent)
            case _:
                pass

    def _diagnose(self, status: MachineStatus) -> str:
        asks = self.definition.installer.is_native and status.state is InstallState.INSTALLING
        hint = "; it may ask something that its answer file does not answer" if asks else ""
        events = read_events(self.lab, self.definition, status)
        return diagnose(status, events, now=time.time(), console=self._console(200)) + hint

    def _timeout(self, brief: str, limit: Deadline) -> WaitTimeoutError:
        return WaitTimeoutError(
            f"{brief} (waited {limit.seconds:.0f} s)",
            details=self._tail(),
            resolution=f"{self._logs_command} shows its console, {self._services_log_command} "
            f"what the services were asked; ./pvmlab vm.stop {self._name} --force, then the same command, tries again",
        )

    @property
    def _services_log_command(self) -> str:
        """The command that shows what the services said."""
        if self.lab.provisioner_mode is ProvisionerMode.HOST:
            return f"./pvmlab vm.logs {PROVISIONER_NAME}"
        return f"{ssh.login_hint(PROVISIONER_NAME)} -- journalctl -b"

    def _limit(self, seconds: float) -> Deadline:
        return self.deadline.sooner(seconds * self.patience)

    def _console(self, lines: int) -> list[str]:
        return self.lab.machine(self._name).serial_tail(lines)

    def _tail(self) -> str:
        return describe(self._console(CONSOLE_LINES), read_events(self.lab, self.definition))

    @property
    def _pace(self) -> Pace:
        return pace_of(self.definition)

    @property
    def _name(self) -> str:
        return self.definition.name

    @property
    def _logs_command(self) -> str:
        return f"./pvmlab vm.logs {self._name}"


def pace_of(definition: VmDefinition) -> Pace:
    """Return how long things may take with the machine *definition*."""
    return IMAGE_PACE if is_cloud(definition) else PACES[definition.installer]


def find_death(console: Sequence[str]) -> str | None:
    """Return the line that says that the machine's kernel or installer died without a report, or None."""
    return next((line for line in console if any(word in line for word in _DEATHS)), None)


def parse_result(text: str) -> list[str]:
    """Return the errors in cloud-init's ``result.json``; what cannot be read is one too."""
    try:
        return [str(error) for error in json.loads(text)["v1"]["errors"]]
    except (ValueError, KeyError, TypeError):
        return [f"its result cannot be read: {text[:200]!r}"]
