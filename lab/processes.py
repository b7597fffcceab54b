"""Processes that outlive the command that started them: recorded before they exist, recognised beyond doubt.

A process id says little: the process may be gone and its number given to another. So a record also holds when the
process started, a *token* that is an argument of its command line (a machine's UUID, a socket's path), in which boot
of the host that was, and for a QEMU the file that it keeps locked. Only a process with all of these is ours, and it is
signalled through a descriptor that is taken before they are checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from pipeline import commit
from pipeline.errors import ConflictError
from pipeline.run import Popen, run, spawn

_POLL = 0.05  # seconds, where the kernel cannot tell us
_PROC = Path("/proc")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)
# struct flock, whose order differs: type, whence, start, length, process (fcntl(2)); on macOS the process comes third
_FLOCK = struct.Struct("qqihh" if sys.platform == "darwin" else "hhqqi4x")
_children: dict[int, Popen[bytes]] = {}  # those this very process started: it must reap them


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """How to find a process again.

    :ivar token: one whole argument of its command line, that no other process has.
    :ivar pid: its process id; None while it is about to be started.
    :ivar start_time: when it started, in the kernel's own words.
    :ivar crashed: it was seen to have ended without being asked. :ivar reason: why, if that is known.
    :ivar boot_id: the boot of the host it was started in (:func:`host_boot_id`); empty if that is not known.
    :ivar lock_file: a file that the process itself keeps locked (QEMU's ``-pidfile``), or nothing.
    """

    token: str
    pid: int | None = None
    start_time: str | None = None
    crashed: bool = False
    reason: str = ""
    boot_id: str = ""
    lock_file: str = ""

    @property
    def is_of_another_boot(self) -> bool:
        """Whether the host was restarted since: then none of its processes is there, whatever their numbers say."""
        return bool(self.boot_id) and self.boot_id != host_boot_id()


def write_record(path: Path, record: ProcessRecord) -> None:
    """Publish *record* at *path*."""
    commit.publish_text(path, json.dumps(dataclasses.asdict(record), indent=2) + "\n", mode=0o600)


def find_record(path: Path) -> ProcessRecord | None:
    """Return the record at *path*, or None if there is none.

    A record whose writer died between the intent and the process is completed by looking for its token.

    :raises ConflictError: if the file is not one of our records, or somebody else's.
    """
    try:
        record = ProcessRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise ConflictError(
            f"the process record {path} cannot be read",
            details=error.strerror or "",
            resolution="it was made by another user, root say: work on this machine as that user, or give the lab's "
            "files to yours",
        ) from None
    except (ValueError, TypeError) as error:
        raise ConflictError(
            f"the process record {path} is damaged",
            details=str(error),
            resolution="end the process it was made for, if it still runs, then remove the file",
        ) from None
    if record.pid is None and not record.is_of_another_boot and (pid := _find_by_token(record.token)) is not None:
        return dataclasses.replace(record, pid=pid, start_time=_start_time(pid))
    return record


def spawn_recorded(
    path: Path, record: ProcessRecord, argv: Sequence[str | Path], *, cwd: Path, log: IO[bytes],
    pass_fds: Sequence[int] = (), env: Mapping[str, str] | None = None,
) -> ProcessRecord:  # fmt: skip
    """Start *argv* in a session of its own and return its record, which is kept at *path*.

    The intent is written first: were we killed at any point, the process would still be found by its token.
    Its output goes to *log*; *env* is added to its environment. The caller holds a lock, so that no two do this for
    one *path*.

    :raises MissingProgramError: if there is no such program; then no record stays.
    """
    record = dataclasses.replace(record, boot_id=host_boot_id())
    write_record(path, record)
    try:
        child = spawn(argv, cwd=cwd, stdout=log, stderr=log, pass_fds=pass_fds, env=env)
    except BaseException:
        path.unlink()
        raise
    _children[child.pid] = child
    record = dataclasses.replace(record, pid=child.pid, start_time=_start_time(child.pid))
    try:
        write_record(path, record)
    except BaseException:  # a full disk, say: what runs is recorded
        end_process(record)
        path.unlink()
        raise
    return record


def is_alive(record: ProcessRecord) -> bool:
    """Say whether the recorded process runs: same id, same start time, same token.

    A process that ended and was not waited for by its parent (a zombie) does not run. One that is just ending does:
    it has given up its memory, and so its command line, but still holds files and their locks.
    """
    if record.pid is None or record.start_time is None or record.is_of_another_boot:
        return False
    if _start_time(record.pid) == record.start_time and not _is_locked_by_another(record):
        arguments = _arguments(record.pid)
        if record.token in arguments or not any(arguments):
            return True
    if (child := _children.get(record.pid)) is not None and child.poll() is not None:
        del _children[record.pid]  # it was ours to reap
    return False


def arguments(record: ProcessRecord) -> list[str]:
    """Return the command line of the recorded process; empty if it does not run. Without /proc, split at blanks."""
    return [word for word in _arguments(record.pid) if word] if record.pid is not None and is_alive(record) else []


def resident_memory(record: ProcessRecord) -> int:
    """Return the bytes of memory that the recorded process, which runs, has in use on this host; 0 if nobody knows."""
    try:
        # proc(5): the second field of statm counts resident pages
        return int(_PROC.joinpath(str(record.pid), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def is_stopped(record: ProcessRecord) -> bool:
    """Say whether the recorded process, which runs, was stopped by a signal or a debugger (proc(5): T and t)."""
    if not is_alive(record) or record.pid is None:
        return False
    if not _PROC.joinpath("self").exists():
        return run(["ps", "-o", "state=", "-p", str(record.pid)], timeout=5, check=False).stdout.startswith("T")
    fields = _stat_fields(record.pid)
    return fields is not None and fields[0] in "Tt"


@functools.cache
def host_boot_id() -> str:
    """Return what names this boot of the host; empty if the host does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # macOS
        return run(["sysctl", "-n", "kern.bootsessionuuid"], timeout=5, check=False).stdout.strip()


def send_signal(record: ProcessRecord, number: signal.Signals) -> bool:
    """Signal the recorded process; return whether it was there to take it.

    Never reaches another process: the descriptor is taken first, then the process behind it is checked.
    (macOS has no such descriptors; there a few microseconds remain between the check and the signal.)
    """
    with _descriptor(record) as pidfd:
        if record.pid is None or not is_alive(record):
            return False
        try:
            if pidfd is not None:
                signal.pidfd_send_signal(pidfd, number)
            else:
                os.kill(record.pid, number)
        except ProcessLookupError:
            return False
    return True


def wait_for_end(record: ProcessRecord, *, timeout: float) -> bool:
    """Wait at most *timeout* seconds for the recorded process to end; return whether it did."""
    deadline = time.monotonic() + timeout
    with _descriptor(record) as pidfd:
        while is_alive(record):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if pidfd is not None:
                poller = select.poll()
                poller.register(pidfd, select.POLLIN)
                poller.poll(min(left, 1.0) * 1000)
            else:
                time.sleep(min(left, _POLL))
    return True


def end_process(record: ProcessRecord, *, grace: float = 5.0) -> bool:
    """End the recorded process: SIGTERM, and SIGKILL after *grace* seconds. Return whether it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not send_signal(record, number) or wait_for_end(record, timeout=grace):
            return True
    return not is_alive(record)


@contextlib.contextmanager
def hold_lock(path: Path, *, timeout: float, busy: str) -> Iterator[None]:
    """Hold an exclusive lock while the block runs; the kernel drops it if we die.

    :param timeout: seconds to wait for whoever holds it. :param busy: the error's sentence.
    :raises ConflictError: if it is still held after *timeout*.
    """
    deadline = time.monotonic() + timeout
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ConflictError(
                        busy, details=f"{path} is locked", resolution="let the other command end, then try again"
                    ) from None
                time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _descriptor(record: ProcessRecord) -> Iterator[int | None]:
    """Yield a pidfd of the recorded process id, or None where there is none."""
    pidfd = None
    if sys.platform == "linux" and record.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(record.pid)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _start_time(pid: int) -> str | None:
    """Return when the process started, or None if it does not run (any more)."""
    if not _PROC.joinpath("self").exists():
        return run(["ps", "-o", "lstart=", "-p", str(pid)], timeout=5, check=False).stdout.strip() or None
    # proc(5): state is field 3, num_threads field 20 (others may outlive the first for a moment), starttime field 22
    fields = _stat_fields(pid)
    return None if fields is None or (fields[0] in "ZX" and int(fields[17]) <= 1) else fields[19]


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` from the third one on, or None if there is no such process."""
    try:
        # The second field is the program's name in parentheses and may hold anything, parentheses too.
        return _PROC.joinpath(str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _is_locked_by_another(record: ProcessRecord) -> bool:
    """Say whether the record's lock file is there, and locked by another process than the recorded one.

    A file that is gone, or not locked yet, says nothing.
    """
    if not record.lock_file:
        return False
    try:
        descriptor = os.open(record.lock_file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        holder = _lock_holder(descriptor)
    finally:
        os.close(descriptor)
    return holder not in {None, record.pid}


def _lock_holder(descriptor: int) -> int | None:
    """Return the process that has locked the whole file (fcntl(2), F_GETLK), or None."""
    whole = 0, 0, os.getpid(), fcntl.F_WRLCK, os.SEEK_SET
    mac = sys.platform == "darwin"
    question = _FLOCK.pack(*whole) if mac else _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, os.getpid())
    answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    kind, pid = (answer[3], answer[2]) if mac else (answer[0], answer[4])
    return None if kind == fcntl.F_UNLCK else pid


def _arguments(pid: int) -> list[str]:
    """Return the command line of a process, empty if it is gone; without /proc, split at blanks."""
    if not _PROC.joinpath("self").exists():
        return run(["ps", "-ww", "-o", "command=", "-p", str(pid)], timeout=5, check=False).stdout.split()
    try:
        return _PROC.joinpath(str(pid), "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _find_by_token(token: str) -> int | None:
    """Return the id of the process of ours that has *token* as an argument, or None."""
    if not _PROC.joinpath("self").exists():
        pids = run(["ps", "-xo", "pid="], timeout=5).stdout.split()
    else:
        pids = [entry.name for entry in _PROC.iterdir() if entry.name.isdigit() and _is_ours(entry)]
    return next((int(pid) for pid in pids if int(pid) != os.getpid() and token in _arguments(int(pid))), None)


def _is_ours(entry: Path) -> bool:
    try:
        return entry.stat().st_uid == os.getuid()
    except (FileNotFoundError, ProcessLookupError):  # it ended since the listing
        return False
