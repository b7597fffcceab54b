"""Booting the appliance: QEMU's arguments, a watch that ends it when it hangs, and what it reported."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from contracts.arch import Arch
from pipeline.appliance.accelerator import Accelerator, Choice
from pipeline.errors import CommandError, PvmlabError
from pipeline.progress import watched
from pipeline.run import run
from pipeline.state import State

TIMEOUT = 3600.0  # seconds; of a whole job
IDLE = 180.0  # seconds in which nothing changes: no log, no report, no byte of a result
MEMORY_MIB = 768

_MACHINE_TYPE = {Arch.X86_64: "q35", Arch.AARCH64: "virt,gic-version=max"}
# What QEMU may no longer ask the kernel for once it runs: new programs, other users' rights, scheduling, old calls.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# A file system made to trip the kernel up ends the appliance at once, instead of leaving it half alive.
_KERNEL_ARGUMENTS = "quiet panic=-1 oops=panic softlockup_panic=1 hung_task_panic=1 mitigations=off"
_REPORT, _PID, _ALIVE = "report", "qemu.pid", "alive"
_LONGEST_REPORT = 1 << 20  # bytes; a guest that was taken over may write what it likes
_KILL_AFTER = 5.0  # seconds between SIGTERM and SIGKILL
_TAIL_LINES = 25
_COMPLAINT = re.compile(r"Kernel panic|\bOops\b|\bBUG:|Out of memory")
_REPORT_IT = (
    "if the image is the distribution's own and whole, report it with the log; "
    "PVMLAB_ACCEL=tcg rules out the host's virtualisation"
)


class ApplianceError(PvmlabError):
    """The appliance ended without doing its job.

    :ivar kind: what the guest calls the failure; ``ended`` or ``hung`` if it did not say any.
    :ivar text: its words. :ivar lines: its report.
    """

    def __init__(
        self, kind: str, text: str, *, brief: str = "", details: str = "", resolution: str = "",
        lines: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.kind, self.text, self.lines = kind, text, tuple(lines)
        super().__init__(
            brief or f"the appliance failed: {text}", details=details or text, resolution=resolution or _REPORT_IT
        )


@dataclasses.dataclass(frozen=True)
class Appliance:
    """What is booted."""

    arch: Arch
    kernel: Path
    initrd: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk of the appliance.

    :ivar format: ``qcow2`` or ``raw``; never guessed. :ivar is_kept: whether what the guest writes reaches the file.
    """

    path: Path
    format: str
    is_kept: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to do.

    :ivar name: of a script in the initrd's ``/jobs``. :ivar disks: ``/dev/vda`` first.
    :ivar folder: where the report is written, and what QEMU keeps to itself. :ivar log: takes console and QEMU's words.
    :ivar look: called now and then with the report so far; what it returns tells whether anything goes on.
    """

    name: str
    disks: tuple[Disk, ...]
    folder: Path
    log: Path
    look: Callable[[list[str]], object] = len
    timeout: float = TIMEOUT
    idle: float = IDLE


def qemu_arguments(program: Path, appliance: Appliance, job: Job, accelerator: Accelerator) -> list[str | Path]:
    """Return the whole argument list, a pure function. Paths may hold any character."""
    console = appliance.arch.serial_device
    return [
        program,
        "-name", "pvmlab-appliance",
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-no-reboot",
        "-nic", "none",
        "-sandbox", _SANDBOX,
        "-machine", _MACHINE_TYPE[appliance.arch],
        "-accel", accelerator.option,
        "-cpu", accelerator.cpu,
        "-smp", "1",
        "-m", str(MEMORY_MIB),
        "-kernel", appliance.kernel,
        "-initrd", appliance.initrd,
        "-append", f"console={console} {_KERNEL_ARGUMENTS} pvmlab.job={job.name}",
        *(word for number, disk in enumerate(job.disks) for word in _disk(number, disk)),
        "-device", "virtio-serial-pci",
        "-chardev", f"file,id=report,path={_REPORT}",
        "-device", "virtserialport,chardev=report,name=pvmlab.report",
        "-serial", "stdio",
        "-pidfile", _PID,
    ]  # fmt: skip


def _disk(number: int, disk: Disk) -> list[str]:
    path = os.fspath(disk.path.absolute()).replace(",", ",,")  # a comma ends a value, two are one
    # snapshot: the file is opened read-only, what the guest writes (a journal's replay) goes to one without a name.
    # werror: QEMU would stop the guest on a full disk and wait for somebody to make room.
    kept = "cache=unsafe,discard=unmap,werror=report" if disk.is_kept else "snapshot=on,cache=unsafe,werror=report"
    return [
        "-drive", f"if=none,id=disk{number},format={disk.format},{kept},file={path}",
        "-device", f"virtio-blk-pci,drive=disk{number}",
    ]  # fmt: skip


def run_job(appliance: Appliance, job: Job, *, state: State) -> list[str]:
    """Boot *appliance* for *job*; return the lines of its report, the last of which begins with ``done``.

    Hardware acceleration is tried if it may work, then emulation; *state* remembers which.

    :raises ApplianceError: if the job fails, the guest ends otherwise, or hangs.
    :raises MissingProgramError: if there is no QEMU.
    """
    choice = Choice(appliance.arch, state)
    *first, last = choice.candidates()
    for accelerator in first:
        watch = _run(choice.program, appliance, job, accelerator)
        choice.remember(accelerator, "" if watch.lines else watch.failure or "it ended before its first word")
        if watch.lines:
            return _result(watch, job)
    return _result(_run(choice.program, appliance, job, last), job)


def _run(program: Path, appliance: Appliance, job: Job, accelerator: Accelerator) -> _Watch:
    """Run QEMU to its end, whatever that is."""
    for name in (_REPORT, _PID):
        (job.folder / name).unlink(missing_ok=True)
    watch = _Watch(job, accelerator)
    with job.log.open("a") as log:
        log.write(f"booting the appliance with {accelerator.name}\n")
    try:
        with watched(watch.look):
            run(
                qemu_arguments(program, appliance, job, accelerator),
                timeout=job.timeout, cwd=job.folder, env={"TMPDIR": str(job.folder.absolute())}, log=job.log,
            )  # fmt: skip
    except CommandError as error:
        watch.error = error
    finally:
        watch.close()
    return watch


def _result(watch: _Watch, job: Job) -> list[str]:
    lines = watch.lines
    word, _, text = lines[-1].partition(" ") if lines else ("", "", "")
    if word == "done":
        return lines
    if word == "failed":
        kind, _, text = text.partition(" ")
        raise ApplianceError(kind, text, lines=lines)
    words = (f"  | {line}" for line in console_words(job.log.read_bytes()[-65_536:].decode(errors="replace")))
    details = "\n".join([*([watch.error.brief] if watch.error else []), *words])
    kind, what = ("hung", watch.failure) if watch.failure else ("ended", "it ended without a result")
    raise ApplianceError(kind, what, details=f"{details}\nlog: {job.log}", lines=lines)


def console_words(text: str) -> list[str]:
    """Return the lines of a console that say why it ended: from the kernel's first complaint on, else the last ones."""
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if _COMPLAINT.search(line)), len(lines))
    return lines[first : first + _TAIL_LINES] or lines[-_TAIL_LINES:]


class _Watch:
    """Looks at a running appliance and ends it when nothing goes on. :ivar failure: why it was ended, or empty."""

    def __init__(self, job: Job, accelerator: Accelerator) -> None:
        self.failure = ""
        self.error: CommandError | None = None
        self._job, self._accelerator = job, accelerator
        self._began = self._changed = time.monotonic()
        self._seen: object = None
        self._process: int | None = None
        self._ended_at = 0.0

    @property
    def lines(self) -> list[str]:
        """The whole lines of the report so far."""
        with contextlib.suppress(FileNotFoundError), (self._job.folder / _REPORT).open("rb") as stream:
            whole, _, _ = stream.read(_LONGEST_REPORT).rpartition(b"\n")
            return whole.decode(errors="replace").splitlines()
        return []

    def look(self) -> None:
        """See whether the guest lives and works; if not, end it."""
        lines, now = self.lines, time.monotonic()
        log = self._job.log.stat().st_size if self._job.log.exists() else 0
        if (seen := (len(lines), log, self._job.look(lines))) != self._seen:
            self._seen, self._changed = seen, now
        if not lines and now - self._began > self._accelerator.first_word:
            self._end(f"no sign of life within {self._accelerator.first_word:g} s with {self._accelerator.name}")
        elif lines and now - self._changed > self._job.idle:  # a kernel that boots says nothing for seconds
            self._end(f"nothing happened for {self._job.idle:g} s")

    def _end(self, failure: str) -> None:
        self.failure = self.failure or failure
        # A descriptor of the process, not its number: that may be another's once QEMU ended.
        if self._process is None:
            with contextlib.suppress(OSError, ValueError):
                self._process = os.pidfd_open(int((self._job.folder / _PID).read_text()))
                self._ended_at = time.monotonic()
        if self._process is not None:
            hard = time.monotonic() - self._ended_at > _KILL_AFTER
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL if hard else signal.SIGTERM)

    def close(self) -> None:
        """Give up what was opened."""
        if self._process is not None:
            os.close(self._process)
