"""Following a target from its power button to a login: install, SSH, cloud-init. Says why when it stops moving."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence

from contracts.machine import AnswerFile, Installer, VmDefinition
from contracts.names import PROVISIONER_NAME
from contracts.report import InstallState, MachineStatus, Phase
from lab import orders, provisioner, ssh, target
from lab.diagnosis import diagnose, where
from lab.events import read_events
from lab.lab import Lab
from lab.progress import Reporter
from lab.provisioner import ProvisionerState
from lab.provisioner_record import ProvisionerMode
from lab.wait import Deadline
from pipeline.errors import CommandError, PvmlabError, WaitTimeoutError

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

_POLL = 0.1  # seconds between two looks at the status, a small local file
_CHUNK = 30  # seconds one remote loop runs: then we look whether the machine still does
_NOT_YET = 75  # its exit status (EX_TEMPFAIL) when what it waits for has not come
_TAIL = 15  # lines of the console in an error
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
    """

    lab: Lab
    definition: VmDefinition
    reporter: Reporter
    patience: float
    deadline: Deadline

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
            if status.state is InstallState.INSTALLED and orders.find_due(self.lab, self.definition, status) is None:
                return
            if status.state is InstallState.FAILED:
                raise InstallFailedError(status, console=self._logs_command)
            self._require_alive(f"during its install ({where(status)})")
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
        words = ["bash", "-c", _PORT_LOOP, "wait", self.definition.ip]
        self._ask_until(
            PROVISIONER_NAME, words, limit=self._limit(self._pace.login),
            missing=f"{self._name} did not answer by SSH at {self.definition.ip}",
        )  # fmt: skip

    def wait_for_cloud_init(self) -> None:
        """Return when cloud-init has finished on the target. It must have one: :meth:`has_cloud_init`.

        :raises CloudInitError: if it had errors. :raises MachineEndedError: if a QEMU ends.
        :raises WaitTimeoutError: if it does not finish, or lets nobody in.
        """
        self.reporter.show(f"{self._name}: cloud-init is at work")
        words = ["sh", "-c", _RESULT_LOOP, "wait"]
        text = self._ask_until(
            self._name, words, limit=self._limit(CLOUD_INIT), missing=f"cloud-init did not finish on {self._name}"
        )
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

    def _ask_until(self, name: str, words: Sequence[str], *, limit: Deadline, missing: str) -> str:
        """Run a remote loop on *name* again and again until it succeeds; return what it printed."""
        said = ""
        while True:
            self._require_alive("while it booted from its disk")
            seconds = max(1, min(_CHUNK, round(limit.left)))
            try:
                done = ssh.run_on(
                    self.lab, name, [*words, str(seconds)], timeout=seconds + ssh.CONNECT_LIMIT, check=False
                )
            except CommandError as error:  # it hangs
                said = error.brief
            else:
                if done.returncode == 0:
                    return done.stdout
                said = done.stderr.strip() or said
                if limit.passed:
                    raise self._timeout(missing + (f"; ssh said: {said}" if said else ""), limit)
                if done.returncode != _NOT_YET:
                    time.sleep(0.5)
                continue
            if limit.passed:
                raise self._timeout(f"{missing}; {said}", limit)

    def _require_alive(self, when: str) -> None:
        if not self.lab.machine(self._name).is_running():
            raise MachineEndedError(
                f"the QEMU of {self._name} ended {when}",
                details=self._tail(),
                resolution=f"{self._logs_command} --which=qemu shows QEMU's own words; then the same command again",
            )
        if not self.lab.provisioner.is_running():
            raise MachineEndedError(
                f"the provisioner's {self.lab.provisioner.runs} ended",
                details="\n".join(self.lab.provisioner.serial_tail(_TAIL)),
                resolution="the same command again starts it; "
                f"./pvmlab vm.logs {PROVISIONER_NAME} --which=qemu shows its own words",
            )
        said = provisioner.find_announcement(self.lab)
        if said is not None and said.state is ProvisionerState.FAILED:
            raise provisioner.ProvisionerError(
                f"the provisioner's services failed: {said.message}",
                resolution=f"see {self._services_log_command}; then ./pvmlab down and up",
            )

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
        lines = self._console(_TAIL)
        return "\n".join(["its console, the last lines:", *(f"  | {line}" for line in lines)] if lines else [
            "its console is empty"
        ])  # fmt: skip

    @property
    def _pace(self) -> Pace:
        return PACES[self.definition.installer]

    @property
    def _name(self) -> str:
        return self.definition.name

    @property
    def _logs_command(self) -> str:
        return f"./pvmlab vm.logs {self._name}"


def find_death(console: Sequence[str]) -> str | None:
    """Return the line that says that the machine's kernel or installer died without a report, or None."""
    return next((line for line in console if any(word in line for word in _DEATHS)), None)


def parse_result(text: str) -> list[str]:
    """Return the errors in cloud-init's ``result.json``; what cannot be read is one too."""
    try:
        return [str(error) for error in json.loads(text)["v1"]["errors"]]
    except (ValueError, KeyError, TypeError):
        return [f"its result cannot be read: {text[:200]!r}"]
